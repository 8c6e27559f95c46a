"""nemo-run: batch scripts follow the experiment file, and its local executor runs jobs on this machine."""

import json
import sys
from pathlib import Path

import pytest
from support.commands import ROOT
from support.make_inputs import QWEN_VOCAB_SIZE, make_hf_folder, write_triples
from support.slurm_cluster import launch, read_json

EXAMPLE = ROOT / "examples" / "experiment.toml"


def scripts(folder: Path, *overrides: str) -> dict[str, str]:
    done = launch(
        "slurm", EXAMPLE, f"launch_dir={folder}", "workdir=/lustre/team/acc", *overrides, "--dry-run", "--json"
    )
    return {name: Path(path).read_text() for name, path in read_json(done)["scripts"].items()}


def test_the_batch_scripts_of_a_dry_run_follow_the_experiment_file(tmp_path: Path) -> None:
    found = scripts(
        tmp_path, "slurm.extra={reservation = 'r1'}", "environment.A='two words'", 'convert.options=["it\'s"]'
    )
    assert list(found) == ["compile", "convert", "merge", "train", "export", "eval"]
    train = found["train"]
    for flag in ("account=team", "partition=h100", "nodes=8", "gpus-per-node=8", "ntasks-per-node=1", "mem=0",
                 "time=08:00:00", "signal=B:USR1@600", "open-mode=append", "exclusive", "reservation=r1"):  # fmt: skip
        assert f"#SBATCH --{flag}\n" in train, flag
    assert "--container-image registry.example#team/acc-megatron:1 " in train
    assert "--container-mounts /lustre/team:/lustre/team," in train
    assert "export NCCL_IB_HCA=mlx5\n" in train and "export A='two words'\n" in train
    assert "-m acc_megatron.launch.node --processes 8 --run-dir runs/acc-30b/run" in train
    assert "#SBATCH --array=0-63\n" in found["convert"] and "#SBATCH --partition=cpu\n" in found["convert"]
    assert "#SBATCH --gpus-per-node=8\n" in found["eval"] and "gpus-per-node" not in found["export"]
    assert "--container-image registry.example#team/acc-vllm:1 " in found["eval"]
    assert "-m acc_megatron eval examples/eval_acc_30b.toml --out runs/acc-30b/eval" in found["eval"]
    assert """ 'it'"'"'s' """ in found["convert"]
    assert all("kill-on-invalid-dep=yes" in found[name] for name in found if name != "compile")


def experiment_here(folder: Path, sections: str) -> Path:
    """An experiment file with these sections, next to a few triples."""
    write_triples(folder / "triples.jsonl", [40, 20])
    file = folder / "experiment.toml"
    file.write_text(f"""
name = "here"
out = "out"
workdir = "{folder}"
launch_dir = "{folder}/launch"
python = "{sys.executable}"
{sections}""")
    return file


@pytest.mark.slow
def test_jobs_on_this_machine_run_one_after_the_other_up_to_the_scores(tmp_path: Path) -> None:
    make_hf_folder(tmp_path / "out" / "export", num_hidden_layers=1, hidden_size=16, max_position_embeddings=4096,
                   vocab_size=QWEN_VOCAB_SIZE)  # fmt: skip
    sections = """[convert]
inputs = ["triples.jsonl"]
shards = 1
[eval]
options = ["--items", "1", "--length-tokens", "1000", "--max-new-tokens", "4"]
"""
    file = experiment_here(tmp_path, sections)
    states = read_json(launch("local", file, "--json"))["states"]
    assert states == {"convert": "SUCCEEDED", "eval": "SUCCEEDED"}
    assert read_json(launch("status", file, "--json"))["states"] == states
    results = json.loads((tmp_path / "out" / "eval" / "results.json").read_bytes())
    assert {item["benchmark"] for item in results["items"]} == {"graphwalks", "mrcr"}
    assert "graphwalks" in launch("logs", file, "eval").stdout


@pytest.mark.slow
def test_jobs_after_a_failed_job_on_this_machine_do_not_run(tmp_path: Path) -> None:
    file = experiment_here(tmp_path, '[convert]\ninputs = ["triples.jsonl"]\nshards = 2\n[export]\n[eval]\n')
    states = read_json(launch("local", file, "--jobs", "convert", "--json"))["states"]
    assert states == {"convert": "SUCCEEDED"} and (tmp_path / "out" / "dataset" / "manifest.json").is_file()
    done = launch("local", file, "--jobs", "export,eval")
    assert done.returncode == 1 and "export ended as FAILED: see " in done.stderr.splitlines()[-1]
    assert read_json(launch("status", file, "--json"))["states"] == {"export": "FAILED"}
    assert "no checkpoint at" in launch("logs", file, "export").stdout
    refused = launch("cancel", file)
    assert refused.returncode == 2 and "Ctrl-C" in refused.stderr
