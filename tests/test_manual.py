"""Every block of the README and the manual is run by a test or says why not, and every link leads somewhere."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from support.commands import ROOT
from support.doc_blocks import blocks, headings, links, pages

from acc_megatron.data_tools.compile.compile import compile_inputs
from acc_megatron.data_tools.compile.settings import CompileSettings
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer

RUNNABLE = ("sh", "python")
LANGUAGES = {*RUNNABLE, "text", "toml", "json", "bibtex"}


def _tests_that_name(page: str) -> list[str]:
    """The test files that contain the path of a page, or its name, between quotes."""
    name = re.compile(rf'["/]{re.escape(page.rpartition("/")[2])}"')
    return [str(path) for path in (ROOT / "tests").rglob("test_*.py") if name.search(path.read_text())]


@pytest.mark.parametrize("page", pages())
def test_every_command_and_example_is_run_by_a_test_or_says_why_not(page: str) -> None:
    for block in blocks(page):
        where = f"{page}:{block.line}"
        assert block.language in LANGUAGES, f"{where}: give the block one of the languages {sorted(LANGUAGES)}"
        if block.language in RUNNABLE and not block.reason:
            assert _tests_that_name(page), f"{where}: no test runs this block: write <!-- not run: REASON --> before it"


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("../../"):  # the second: pages of the code host, such as a badge
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {link}"
        if anchor and path.suffix == ".md" and path.is_file():
            assert anchor in headings(path), f"{page}: {link}"


def test_every_folder_of_the_source_stands_in_the_tree_of_the_architecture() -> None:
    tree = (ROOT / "docs" / "architecture.md").read_text().split("## Folders")[1]
    for folder in ("acc_megatron", "data_tools"):
        for path in (ROOT / folder).iterdir():
            if (path / "__init__.py").is_file() and not path.is_symlink():
                assert f"{path.name}/" in tree, path


def test_the_readme_stays_a_front_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 170


def test_no_generated_page_is_committed() -> None:
    done = subprocess.run(["git", "ls-files", "site", "docs"], cwd=ROOT, capture_output=True, text=True, check=True)
    committed = set(done.stdout.split())
    assert not committed & {"docs/settings.md", "docs/experiment_settings.md", "docs/commands.md"}
    assert not [name for name in committed if name.startswith("site/")]


def test_the_document_of_the_readme_is_what_its_trajectory_becomes(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("qwen3")
    trajectory, document = (block.text for block in blocks("README.md")[:2])
    (tmp_path / "run.jsonl").write_text(json.dumps(json.loads(trajectory)) + "\n")
    compile_inputs(
        [tmp_path / "run.jsonl"],
        tmp_path / "triples",
        agent="auto",
        resources=[],
        settings=CompileSettings(),
        tokenizer=tokenizer,
    )
    convert([tmp_path / "triples"], tmp_path / "data", ConvertSettings())
    ids, mask = open_dataset(tmp_path / "data").document(0)
    lines = [line for line in tokenizer.decode(ids.tolist()).splitlines() if line]
    assert lines == document.splitlines()
    reply = document.partition("<|im_start|>assistant")[2].split()
    assert tokenizer.decode(ids[mask == 1].tolist()).split() == reply
