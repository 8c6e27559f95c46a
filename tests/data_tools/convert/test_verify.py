"""Verifying finds and names any changed byte of a dataset folder; opening finds what is cheap to find."""

import hashlib
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from acc_megatron import __version__
from acc_megatron.common.atomic_files import write_json
from acc_megatron.data_tools.compile.output import FORMAT
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.inspect import inspect
from acc_megatron.data_tools.convert.manifest import fingerprint
from acc_megatron.data_tools.convert.verify import verify
from acc_megatron.data_tools.tokenizer.qwen_bpe import Tokenizer
from acc_megatron.errors import DataError


@pytest.fixture
def copy(dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset, tmp_path / "data"))


@contextmanager
def changed(file: Path, data: bytes) -> Iterator[None]:
    whole = file.read_bytes()
    file.write_bytes(data)
    yield
    file.write_bytes(whole)


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any], *, sign: bool) -> None:
    """Change the manifest and write it in its own format; `sign` updates the fingerprint."""
    file = folder / "manifest.json"
    manifest = json.loads(file.read_bytes())
    change(manifest)
    if sign:
        manifest["fingerprint"] = fingerprint(manifest)
    file.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def test_an_intact_folder_has_no_problems(dataset: Path) -> None:
    assert verify(dataset) == []
    assert len(open_dataset(dataset)) == 64
    times = []
    for _ in range(10):
        start = time.perf_counter()
        open_dataset(dataset)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


def test_every_changed_byte_is_found_and_its_file_named(copy: Path) -> None:
    generator = random.Random(8)
    files = files_of(copy)
    assert len(files) == 8 * 4 + 3
    manifest = copy / "manifest.json"
    for file in [*files, *files, *[manifest] * 300]:
        data = bytearray(file.read_bytes())
        at, bit = generator.randrange(len(data)), generator.randrange(8)
        data[at] ^= 1 << bit
        with changed(file, bytes(data)):
            problems = verify(copy)
        assert problems and str(file) in problems[0], f"bit {bit} of byte {at} of {file}"
    assert verify(copy) == []


def test_every_truncation_and_every_appended_byte_is_found(copy: Path) -> None:
    generator = random.Random(9)
    for file in files_of(copy):
        whole = file.read_bytes()
        for data in (whole[:-1], whole[: generator.randrange(len(whole))], b"", whole + b"\0", whole + b"\n"):
            with changed(file, data):
                problems = verify(copy)
                assert problems and str(file) in problems[0], f"{len(data)} of {len(whole)} bytes of {file}"
                if file.name != "manifest.json":
                    with pytest.raises(
                        DataError, match=f"{file} has {len(data)} bytes, the manifest says {len(whole)}"
                    ):
                        open_dataset(copy)
    assert verify(copy) == []


def test_a_missing_file_and_an_additional_file_are_found(copy: Path) -> None:
    for file in files_of(copy):
        file.rename(copy.parent / "away")
        problems = verify(copy)
        assert any(str(file) in problem for problem in problems) or problems[0].startswith(f"no dataset in {copy}")
        with pytest.raises(DataError):
            open_dataset(copy)
        (copy.parent / "away").rename(file)
    foreign = [copy / ".hidden", copy / "shards" / "00000" / "tokens.bak", copy / "link", copy / "dangling"]
    foreign[0].touch()
    foreign[1].touch()
    foreign[2].symlink_to(copy.parent)
    foreign[3].symlink_to("nowhere")
    assert sorted(verify(copy)) == sorted(f"{file}: not in the manifest" for file in foreign)


def test_a_folder_without_a_dataset_is_reported_as_such(tmp_path: Path) -> None:
    assert verify(tmp_path) == [
        f"no dataset in {tmp_path}: manifest.json is missing ('acc-megatron convert' writes it last)"
    ]
    with pytest.raises(DataError, match="no dataset in"):
        open_dataset(tmp_path)


def test_tokens_cut_in_half_are_refused_with_file_and_numbers(copy: Path) -> None:
    file = copy / "shards" / "00003" / "tokens.bin"
    size = file.stat().st_size
    with file.open("r+b") as handle:
        handle.truncate(size // 2)
    with pytest.raises(DataError, match=f"{file} has {size // 2} bytes, the manifest says {size}"):
        open_dataset(copy)


def test_the_manifest_contains_every_version_and_a_mismatch_names_both(copy: Path, tokenizer: Tokenizer) -> None:
    """D8: of format, tokenizer, template and code. The seed is in each sample, because samples may be mixed."""
    opened = open_dataset(copy)
    manifest = opened.manifest
    assert (manifest["format_version"], manifest["code_version"]) == (1, __version__)
    assert manifest["tokenizer"]["sha256"] == tokenizer.sha256 and manifest["tokenizer"]["pad_id"] == 151_643
    assert manifest["settings"]["template"] == "qwen3"
    assert all(json.loads(extra)["settings"]["seed"] == 1 for extra in opened.samples["extra"].to_pylist())
    edit_manifest(copy, lambda manifest: manifest["tokenizer"].update(sha256="f" * 64), sign=True)
    with pytest.raises(DataError, match=f"tokenizer {'f' * 64}, this is {tokenizer.sha256}"):
        inspect(copy, 0, tokenizer, Console())
    edit_manifest(copy, lambda manifest: manifest.update(format_version=7), sign=True)
    with pytest.raises(DataError, match="format version 7; this code reads version 1"):
        open_dataset(copy)


def test_the_output_of_compile_is_not_mistaken_for_a_dataset(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"format": FORMAT, "format_version": 1})
    expected = f"{tmp_path} contains acc-megatron triples, not a dataset: run 'acc-megatron convert' on it"
    assert verify(tmp_path) == [expected]
    with pytest.raises(DataError, match=expected):
        open_dataset(tmp_path)


def test_a_manifest_edited_by_hand_is_refused(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest["settings"].update(max_tokens=5), sign=False)
    with pytest.raises(DataError, match=r"manifest\.json was changed"):
        open_dataset(copy)
    assert len(verify(copy)) == 1


@pytest.mark.parametrize(
    "name",
    ["../outside", "shards/../../outside", "/etc/hostname", "a\0b", "x" * 300, "", ".", "shards/00000/other.bin"],
)
def test_a_manifest_that_lists_a_file_outside_of_the_folder_is_refused(name: str, copy: Path) -> None:
    entry = {"bytes": 1, "sha256": ""}
    edit_manifest(copy, lambda manifest: manifest["files"].update({name: entry}), sign=True)
    assert "is outside the folder" in verify(copy)[0]
    with pytest.raises(DataError, match="is outside the folder"):
        open_dataset(copy)


def test_symbolic_links_are_refused(copy: Path) -> None:
    """S6: even when the linked file has the right bytes."""
    for name in ("shards/00002/tokens.bin", "shards/00002", "shards", "samples.parquet"):
        real = (copy / name).rename(copy.parent / "elsewhere")
        (copy / name).symlink_to(real)
        assert "a symbolic link or inside a linked folder" in verify(copy)[0]
        with pytest.raises(DataError, match="is a symbolic link or inside a linked folder"):
            open_dataset(copy)
        (copy / name).unlink()
        real.rename(copy / name)
    assert verify(copy) == []


@pytest.mark.parametrize(
    "change",
    [
        {"files": None},
        {"files": [1]},
        {"files": {"samples.parquet": 3}},
        {"files": {"samples.parquet": {"bytes": "1", "sha256": ""}}},
        {"tokenizer": None},
        {"tokenizer": {"vocab_size": "many", "pad_id": 1}},
        {"shards": "x"},
        {"dropped": None},
        {"dropped": {"broken_json": "1"}},
        {"settings": 5},
    ],
)
def test_a_manifest_with_wrong_types_is_reported_as_damaged(change: dict[str, Any], copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest.update(change), sign=True)
    assert "manifest.json is damaged" in "".join(verify(copy))
    with pytest.raises(DataError, match="is damaged"):
        open_dataset(copy)


@pytest.mark.parametrize("key", ["documents_in", "documents_out", "tokens", "tokens_in", "supervised_tokens"])
def test_counts_that_do_not_add_up_are_found(key: str, copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest.update({key: manifest[key] + 1}), sign=True)
    assert [problem for problem in verify(copy) if f"{key} is" in problem] == verify(copy) != []


def test_a_quarantine_that_lost_a_row_is_found(copy: Path) -> None:
    def one_more(manifest: dict[str, Any]) -> None:
        manifest["dropped"]["unknown_shape"] += 1
        manifest["documents_in"] += 1

    edit_manifest(copy, one_more, sign=True)
    assert verify(copy) == [f"{copy / 'quarantine.jsonl'}: 4 rows, but the manifest counts 5 dropped rows"]


def test_a_quarantine_that_lost_tokens_is_found(copy: Path) -> None:
    edit_manifest(copy, lambda manifest: manifest["dropped_tokens"].update(over_max_tokens=1), sign=True)
    assert "tokens, but the manifest counts 1 dropped tokens" in "".join(verify(copy))


def test_documents_of_another_shard_are_found_even_with_matching_file_hashes(copy: Path) -> None:
    """Two shards are exchanged, with their hashes: the sizes match the index, but not the sample table."""
    shards = copy / "shards"
    for old, new in (("00000", "x"), ("00001", "00000"), ("x", "00001")):
        (shards / old).rename(shards / new)

    def swap(manifest: dict[str, Any]) -> None:
        for name in ("tokens.bin", "tokens.idx", "loss_mask.bin", "loss_mask.idx"):
            first, second = f"shards/00000/{name}", f"shards/00001/{name}"
            files = manifest["files"]
            files[first], files[second] = files[second], files[first]

    edit_manifest(copy, swap, sign=True)
    assert verify(copy) == [f"{copy}: the document lengths of the shards differ from those in samples.parquet"]


def test_a_changed_document_is_found_even_with_matching_file_hashes(copy: Path) -> None:
    file = copy / "shards" / "00002" / "loss_mask.bin"
    mask = np.fromfile(file, np.uint8)
    mask[0] = 1
    mask.tofile(file)
    digest = hashlib.sha256(mask.tobytes()).hexdigest()
    name = "shards/00002/loss_mask.bin"
    edit_manifest(copy, lambda manifest: manifest["files"][name].update(sha256=digest), sign=True)
    assert verify(copy) == [f"{copy}: document 16: its ids or its mask do not match the sha256 in samples.parquet"]


def test_a_document_number_out_of_range_is_refused(dataset: Path) -> None:
    opened = open_dataset(dataset)
    for number in (-1, 64):
        with pytest.raises(DataError, match=f"has no document {number}: documents are numbered 0 to 63"):
            opened.document(number)
    ids, mask = opened.document(63)
    assert len(ids) == len(mask) == opened.lengths[63]


def test_200_flips_50_truncations_and_10_appended_bytes_are_all_found(copy: Path) -> None:
    """D4: verify finds all; a truncation, an appended byte or a mask of another length is already found on opening."""
    generator = random.Random(12)
    data_files = [file for file in files_of(copy) if file.name != "manifest.json"]
    for trial in range(260):
        file = generator.choice(data_files)
        whole = file.read_bytes()
        at = generator.randrange(len(whole))
        flipped = whole[:at] + bytes([whole[at] ^ (1 << generator.randrange(8))]) + whole[at + 1 :]
        changes = [flipped] * (trial < 200) + [whole[:at]] * (200 <= trial < 250) + [whole + b"x"] * (trial >= 250)
        with changed(file, changes[0]):
            assert str(file) in verify(copy)[0], f"trial {trial}: byte {at} of {file}"
            if trial >= 200:
                with pytest.raises(DataError, match=str(file)):
                    open_dataset(copy)
    mask, other = (copy / "shards" / shard / "loss_mask.idx" for shard in ("00000", "00001"))
    with changed(mask, other.read_bytes()), pytest.raises(DataError, match="00000"):
        open_dataset(copy)
    assert verify(copy) == []
