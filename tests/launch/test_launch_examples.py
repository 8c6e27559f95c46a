"""The launch examples: the manifest is strictly valid, and nemo-run accepts the Python file."""

import json
from pathlib import Path

import pytest
from support.commands import ROOT, run_command
from support.slurm_cluster import LAUNCHER, SUPPORT, launch, need_launcher, read_json

EXAMPLES = ROOT / "examples" / "launch"


def test_the_plain_manifest_is_strictly_valid_and_equals_that_of_launch(tmp_path: Path) -> None:
    need_launcher()
    python, manifest = str(LAUNCHER.with_name("python")), EXAMPLES / "train_job.yaml"
    done = run_command([python, str(SUPPORT / "kube_check.py"), str(manifest)])
    assert done.returncode == 0 and json.loads(done.stdout) == {str(manifest): []}, done.stdout + done.stderr
    as_json = "import sys, json, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"
    service, job = json.loads(run_command([python, "-c", as_json, str(manifest)]).stdout)
    experiment = ROOT / "examples" / "experiment.toml"
    options = ["workdir=/data/acc", "network.infiniband_adapters=mlx5", f"launch_dir={tmp_path}", "--jobs", "train"]
    made = read_json(launch("kubernetes", experiment, *options, "--dry-run", "--json"))["manifests"]["train"]
    _, made_service, made_job = json.loads(Path(made).read_text())["items"]
    assert made_service["spec"] == service["spec"]
    for key in ("completions", "parallelism", "completionMode", "backoffLimit", "podFailurePolicy"):
        assert made_job["spec"][key] == job["spec"][key], key
    pod, made_pod = job["spec"]["template"]["spec"], made_job["spec"]["template"]["spec"]
    for key in ("subdomain", "terminationGracePeriodSeconds", "nodeSelector", "tolerations", "restartPolicy"):
        assert made_pod[key] == pod[key], key
    [main], [made_main] = pod["containers"], made_pod["containers"]
    words = [part for word in main["args"] for part in (word.split("=", 1) if word.startswith("--") else [word])]
    assert made_main["command"] == main["command"] + words
    names = {entry["name"]: entry for entry in made_main["env"]}
    assert all(names[entry["name"]] == entry for entry in main["env"])
    assert made_main["resources"] == main["resources"]
    assert made_main["securityContext"] == main["securityContext"]


@pytest.mark.slow
def test_nemo_run_accepts_the_python_file(tmp_path: Path) -> None:
    need_launcher()
    command = [str(LAUNCHER.with_name("python")), str(EXAMPLES / "with_nemo_run.py"), "--dry-run"]
    done = run_command([*command, "--home", str(tmp_path), "--account", "a", "--container", "r#img:1"])
    assert done.returncode == 0, done.stderr
    scripts = {Path(line).name: Path(line).read_text() for line in done.stdout.splitlines() if line.endswith(".sh")}
    assert len(scripts) == 6
    train = scripts["train_sbatch.sh"]
    assert "#SBATCH --gpus-per-node=8" in train and "--container-image r#img:1" in train
    assert "acc_megatron.launch.node --processes 8" in train
    assert "#SBATCH --array=0-63" in scripts["convert_sbatch.sh"]
