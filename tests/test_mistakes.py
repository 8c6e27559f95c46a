"""Typical mistakes: each ends with exit code 2 and one line that names what is wrong and what to do."""

import json
from pathlib import Path

import pytest
from support.commands import ROOT
from support.in_process import acc_in_process
from support.make_inputs import write_triples

TINY = str(ROOT / "examples" / "tiny_cpu.toml")
ONE = ["parallel.context=1", "parallel.expert=1"]  # a layout of one process
EXPERIMENT = str(ROOT / "examples" / "experiment.toml")

# the words of the command, where {} is a folder with triples.jsonl, empty.jsonl, bytes.bin, run.txt, full/, damaged/
# and hf/ (a model of another family), and a part of the line
MISTAKES: list[tuple[list[str], str]] = [
    # a wrong verb or option
    (["trian", TINY], "No such command 'trian'"),
    (["convert", "{}/triples.jsonl", "--ouput", "{}/out"], "No such option: --ouput"),
    (["convert", "{}/triples.jsonl"], "Missing option '--out'"),
    (["convert", "{}/triples.jsonl", "-o", "{}/out", "--workers", "two"], "Invalid value for '--workers'"),
    # inputs that are not there, or something else
    (["compile", "{}/absent", "-o", "{}/out"], "no input at {}/absent"),
    (["convert", "{}/absent.jsonl", "-o", "{}/out"], "no input at {}/absent.jsonl"),
    (["convert", "{}/triples.jsonl", "-o", "{}/full"], "{}/full exists and is not a dataset folder; give"),
    (["convert", "{}/triples.jsonl", "-o", "{}/triples.jsonl/x"], "is a file, not a folder: choose another path"),
    (["convert", "{}/triples.jsonl", "-o", "{}/out", "--template", "llama"], "template must be one of 'qwen3'"),
    (["convert", "{}/triples.jsonl", "-o", "{}/out", "--tokenizer", "{}/absent"], "{}/absent"),
    (["convert", "{}/triples.jsonl", "-o", "{}/out", "--weight", "x"], "--weight must be INPUT=NUMBER"),
    (["convert", "{}/triples.jsonl", "-o", "{}/out", "--shard", "5/2"], "5"),
    (["compile", "{}/triples.jsonl", "-o", "{}/out", "--agent", "swee"], "unknown agent 'swee'; known are auto and"),
    (["compile", "{}/triples.jsonl", "-o", "{}/out", "--arm", "sft"], "unknown arm 'sft'; known: acc, agent-sft"),
    (["compile", "{}/triples.jsonl", "-o", "{}/out", "--judge-model", "m"], "--judge-endpoint and --judge-model"),
    (["inspect", "{}/full"], "no dataset in {}/full"),
    (["verify", "{}/absent"], "no dataset in {}/absent"),
    (["stats", "{}/full"], "{}/full is neither an output of compile or reason"),
    (["report", "{}/full"], "{}/full contains neither a dataset"),
    (["report", "{}/full", "{}/absent"], "{}/full is not a training run"),
    # settings
    (["train", "{}/absent.toml"], "no config file at {}/absent.toml"),
    (["train", "{}/run.txt"], "{}/run.txt is not valid TOML"),
    (["train", TINY, *ONE, "train.lr=1e-5"], "unknown key train.lr; did you mean optimizer.learning_rate?"),
    (["train", TINY, *ONE, "optimizer.epochs=2"], "unknown key optimizer.epochs; did you mean train.epochs?"),
    (["train", TINY, *ONE, "model.seq_length_tokens=9"], "did you mean data.seq_length_tokens?"),
    (["train", TINY, *ONE, "train.epochs=two"], "train.epochs must be int, got 'two'"),
    (["train", TINY, *ONE, "train.precision=bf16"], "got 'bf16'; did you mean 'bfloat16'?"),
    (["train", TINY, *ONE, "optimizer.kind=adam"], "got 'adam'; did you mean 'adamw'?"),
    (["train", TINY, *ONE, "memory.recompute=ful"], "got 'ful'; did you mean 'full'?"),
    (["train", TINY, *ONE, "train.epochs"], "override 'train.epochs' has no '='"),
    (["train", TINY], "needs 2 processes or a multiple of it, and this is one; start"),
    (["train", TINY, *ONE, "profile.memory=true"], "profile.memory needs profile.steps"),
    (["config", "xyzzy"], "no setting matches 'xyzzy'"),
    (["plan", TINY, "--machine", "h300"], "h300"),
    (["plan", TINY, "--write", "1", "{}/out.toml"], "--write N FILE needs --search"),
    # models, evaluation, benchmarks, launching
    (["import", "Qwen/Qwen3-0.6B", "-o", "{}/out"], "hf download Qwen/Qwen3-0.6B"),
    (["export", "{}/full", "-o", "{}/out"], "no checkpoint at {}/full"),
    (["eval", "{}/full", "-o", "{}/out"], "run 'acc-megatron export RUN --out FOLDER' first"),
    (["eval", "-o", "{}/out", "--endpoint", "http://127.0.0.1:9"], "--endpoint needs --model NAME"),
    (["bench", "step", TINY, "--csv", "{}/full"], "{}/full is a folder: give the name of a file"),
    (["bench", "kernels", "--plot", "{}/bench.xyz"], "the name must end with .svg, .png, .pdf"),
    (["launch", "slurm", EXPERIMENT, "--dry-run", "slurm.account=a", "slurm.partition=p", "slurm.time=8h"],
     "slurm.time = '8h' is not a time of SLURM: write hours:minutes:seconds, such as 08:00:00"),
    # what is there is empty, unreadable or of another kind
    (["convert", "{}/empty.jsonl", "-o", "{}/out"], "the input contains no rows"),
    (["convert", "{}/full", "-o", "{}/out"], "the folder {}/full contains no .jsonl"),
    (["convert", "{}/bytes.bin", "-o", "{}/out"], "no input at {}/bytes.bin: give a .jsonl"),
    (["convert", "{}/triples.jsonl", "-o", "/proc/out"], "there is no such file or folder: check the path"),
    (["compile", "{}/empty.jsonl", "-o", "{}/out"], "contain no run"),
    (["compile", "{}/bytes.bin", "-o", "{}/out"], "{}/bytes.bin is neither .jsonl"),
    (["compile", "{}/triples.jsonl", "-o", "{}/out", "--decontaminate", "{}/absent"],
     "{}/absent: there is no such file or folder"),
    (["inspect", "{}/triples.jsonl"], "no dataset in {}/triples.jsonl"),
    (["verify", "{}/triples.jsonl"], "no dataset in {}/triples.jsonl"),
    (["merge", "{}/absent"], "no shards of {}/absent to merge: run 'acc-megatron convert --shard I/N"),
    (["report", "{}/damaged"], "steps.jsonl:1 is not a line that training logs"),
    (["train", "{}/full"], "no config file at {}/full"),
    (["train", "{}/bytes.bin"], "{}/bytes.bin is not valid TOML"),
    (["plan", TINY, "--html", "{}/full"], "this is a folder, and a file is needed: give the name of a file"),
    (["plan", TINY, "--gpus", "3"], "does not divide 3 ranks"),
    (["import", "{}/hf", "-o", "{}/out"], "model_type 'llama' is not supported; supported: 'qwen3', 'qwen3_moe'"),
    (["import", "{}/full", "-o", "{}/out"], "{}/full has no config.json: it is not a Hugging Face model folder"),
    (["analyze", "overlap", "--training", "{}/absent", "--benchmark", "a={}/triples.jsonl", "-o", "{}/out"],
     "no file of questions at {}/absent"),
    (["launch", "local", "{}/absent.toml"], "no config file at {}/absent.toml"),
    # numbers that mean nothing
    (["convert", "{}/triples.jsonl", "-o", "{}/out", "--max-tokens", "-5"], "Invalid value for '--max-tokens'"),
    (["compile", "{}/triples.jsonl", "-o", "{}/out", "--dedupe-questions", "7"], "above 0 and at most 1, got 7.0"),
    (["train", TINY, *ONE, "train.epochs=-1"], "train.epochs = -1 must be at least 1"),
    (["bench", "data", "--curve", "a,b"], "--curve is 'a,b'; allowed: numbers of MB above 0"),
    (["bench", "data", "--rounds", "0"], "Invalid value for '--rounds'"),
    (["bench", "kernels", "--tokens", "-4"], "--tokens is '-4'; allowed: a number from 1"),
    (["bench", "step", TINY, "--gpus", "4"], "--gpus belongs to --balance"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("mistakes")
    write_triples(here / "triples.jsonl", [20])
    (here / "run.txt").write_text("x = [")
    (here / "full").mkdir()
    (here / "full" / "notes.txt").write_text("mine")
    (here / "damaged").mkdir()
    (here / "damaged" / "steps.jsonl").write_text("garbage\n")
    (here / "empty.jsonl").write_text("")
    (here / "bytes.bin").write_bytes(bytes(range(128, 256)) * 40)
    (here / "hf").mkdir()
    (here / "hf" / "config.json").write_text('{"model_type": "llama"}')
    return here


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[f"{n}-{m[0][0]}" for n, m in enumerate(MISTAKES, 1)])
def test_a_typical_mistake_ends_with_code_2_and_one_line_that_helps(
    folder: Path, words: list[str], message: str
) -> None:
    done = acc_in_process(*(word.replace("{}", str(folder)) for word in words))
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("override: ")]
    assert done.returncode == 2, done.stdout + done.stderr
    assert message.replace("{}", str(folder)) in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    # an error of the command line also shows the usage; the known names or a command to start are indented
    is_one_line = lines[0].startswith("error: ") and all(line.startswith("  ") for line in lines[1:])
    assert is_one_line or lines[0].startswith("Usage: "), done.stderr
    assert (folder / "full" / "notes.txt").read_text() == "mine"
    assert not (folder / "bench.xyz").exists() and not (folder / "out").exists()


def test_at_least_sixty_mistakes_are_listed() -> None:
    assert len(MISTAKES) >= 60


def test_a_successful_verb_says_what_it_replaced_and_what_comes_next(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    first = acc_in_process("convert", folder / "triples.jsonl", "-o", out)
    assert first.stderr.splitlines()[-1] == f"Next: acc-megatron train CONFIG data.path={out}"
    assert "replaced" not in first.stderr
    again = acc_in_process("convert", folder / "triples.jsonl", "-o", out, "--json")
    assert again.stderr.splitlines()[-2] == f"replaced the earlier output in {out}"
    assert json.loads(again.stdout)["documents_out"] == 1


def test_a_full_disk_is_reported_with_the_path(tmp_path: Path) -> None:
    from acc_megatron.common.atomic_files import atomic_file

    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "page.html") as file:
        file.write(b"x")
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")
    assert caught.value.filename == str(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_list_of_implementations_and_a_page_are_json_on_request(folder: Path, tmp_path: Path) -> None:
    listed = json.loads(acc_in_process("bench", "kernels", "--list", "--json").stdout)
    assert all(set(one) == {"available", "reason"} for one in listed.values()) and len(listed) > 5
    page = json.loads(acc_in_process("report", made_dataset(folder, tmp_path), "--json").stdout)["page"]
    assert Path(page).is_file()


def made_dataset(folder: Path, tmp_path: Path) -> Path:
    assert acc_in_process("convert", folder / "triples.jsonl", "-o", tmp_path / "dataset").returncode == 0
    return tmp_path / "dataset"
