"""The tutorials work as they are written: files are written, commands and Python blocks run, in their order."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import ROOT
from support.doc_blocks import blocks
from support.official_templates import official_template

from acc_megatron.data_tools.tokenizer.huggingface_files import write_tokenizer_files
from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer

TUTORIALS = ROOT / "docs" / "tutorials"


def follow(page: str, folder: Path, replace: dict[str, str] | None = None, **environment: str) -> str:
    """Do in `folder` what the tutorial says; returns everything that its commands printed."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, words in {"python": "", "acc-megatron": "-m acc_megatron"}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)
    full = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", **environment}
    printed = []
    for block in blocks(f"docs/tutorials/{page}"):
        text = block.text
        for old, new in (replace or {}).items():
            text = text.replace(old, new)
        if block.title:
            (folder / block.title).write_text(text)
        elif block.language in ("sh", "python") and not block.reason:
            command = ["bash", "-ec", text] if block.language == "sh" else [sys.executable, "-c", text]
            done = subprocess.run(command, cwd=folder, env=full, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, f"{page}:{block.line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
            printed.append(done.stdout + done.stderr)
    return "\n".join(printed)


def checkout(folder: Path) -> Path:
    """A copy of what a contributor's checkout contains."""
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("acc_megatron", "data_tools", "kernels", "tests"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.slow
def test_a_reader_who_adds_a_format_ends_with_a_passing_test_and_a_compiled_run(tmp_path: Path) -> None:
    here = checkout(tmp_path / "checkout")
    said = follow("new_format.md", here, PYTHONPATH=str(here))
    assert "unrecognized" in said or "no known format" in said, "the first compile refuses the row"
    assert "1 passed" in said
    triple = json.loads((here / "robot_triples" / "triples.jsonl").read_text())
    assert [piece["kind"] for piece in triple["context"]].count("evidence") == 1


@pytest.mark.slow
def test_the_logs_of_an_agent_become_a_trained_model_that_transformers_loads(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    follow("own_logs.md", tmp_path)
    steps = [json.loads(line) for line in (tmp_path / "my_run" / "steps.jsonl").read_text().splitlines()]
    assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]
    assert (tmp_path / "my_model" / "model.safetensors").is_file() and (tmp_path / "document.html").is_file()


@pytest.mark.slow
def test_trl_trains_on_the_tokens_and_targets_of_convert(tmp_path: Path, make_hf_folder: Callable[..., Path]) -> None:
    """A tiny model with the official chat template stands in for the one on the hub."""
    pytest.importorskip("trl")
    model = make_hf_folder(tmp_path / "tiny", vocab_size=151_936, max_position_embeddings=16_384)
    write_tokenizer_files(load_tokenizer("qwen3"), model, max_length_tokens=16_384)
    (model / "chat_template.jinja").write_text(official_template("qwen3"))
    agent = next(block for block in blocks("docs/tutorials/own_logs.md") if block.title == "my_agent.py")
    (tmp_path / "my_agent.py").write_text(agent.text.replace("range(60)", "range(4)"))
    subprocess.run([sys.executable, "my_agent.py"], cwd=tmp_path, check=True, timeout=60)
    said = follow("trl.md", tmp_path, {"Qwen/Qwen3-0.6B": str(model)}, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert "4 documents have equal tokens and targets" in said


def test_every_tutorial_has_a_test() -> None:
    own = Path(__file__).read_text()
    assert not [page.name for page in TUTORIALS.glob("*.md") if f'"{page.name}"' not in own]
