"""Converting large documents and large files needs little memory."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from support.commands import run_command

from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.verify import verify

Rows = list[dict[str, Any]]


@pytest.mark.long
@pytest.mark.slow
def test_a_document_of_60_mb_is_converted_and_one_of_100_mb_drops_only_its_line(
    tmp_path: Path, triple_rows: Rows
) -> None:
    """Neither overflows a stack or needs more than a few copies of the text; the limit of a line is 64 MiB."""
    words = " ".join(f"w{number % 9_973:x}" for number in range(10_000)) + "\n"
    with (tmp_path / "triples.jsonl").open("w") as file:
        for number, num_bytes in enumerate((0, 60_000_000, 100_000_000, 0)):
            piece = {"id": "a", "title": "page", "text": words * (num_bytes // len(words))}
            json.dump(triple_rows[0] | {"id": f"doc-{number}", "context": [piece]}, file)
            file.write("\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom acc_megatron.data_tools.convert import convert\n"
        "settings = convert.ConvertSettings(max_tokens=100_000_000)\n"
        "made = convert.convert([Path(sys.argv[1])], Path(sys.argv[2]), settings, max_bad_share=0.5)\n"
        # not ru_maxrss: that begins with the memory of the process that started this one
        "status = Path('/proc/self/status')\n"
        "peak_kib = status.read_text().split('VmHWM:')[1].split()[0] if status.is_file() else '0'\n"
        "print(made['documents_out'], made['dropped'], int(peak_kib) >> 10)"
    )
    done = run_command([sys.executable, "-c", code, str(tmp_path / "triples.jsonl"), str(tmp_path / "out")])
    assert done.returncode == 0, done.stderr[-2_000:]
    counts, peak_mib = done.stdout.strip().rsplit(" ", 1)
    assert counts == "3 {'line_too_long': 1}"
    assert int(peak_mib) < 1_000
    dataset = open_dataset(tmp_path / "out")
    assert dataset.samples["id"].to_pylist() == ["doc-0", "doc-1", "doc-3"]
    assert dataset.lengths[1] > 10_000_000 and verify(tmp_path / "out") == []


@pytest.mark.long
@pytest.mark.slow
def test_peak_memory_is_flat_from_10_mb_to_60_mb_of_documents(tmp_path: Path, triple_rows: Rows) -> None:
    """With documents and shards of the usual size."""
    generator, words = random.Random(13), [f"w{number:x}" for number in range(5_000)]
    lines = []
    for number in range(64):
        text = " ".join(generator.choices(words, k=9_000))
        piece = {"id": "a", "title": "page", "text": text}
        lines.append(json.dumps(triple_rows[0] | {"id": f"doc-{number}", "context": [piece]}))
    code = (
        "import sys\nfrom pathlib import Path\nfrom acc_megatron.data_tools.convert import convert\n"
        "made = convert.convert([Path(sys.argv[1])], Path(sys.argv[2]), convert.ConvertSettings())\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(made['documents_out'], int(status.split('VmHWM:')[1].split()[0]) >> 10)"
    )
    peaks_mib = []
    for megabytes in (10, 60):
        source, size = tmp_path / f"{megabytes}.jsonl", 0
        with source.open("w") as file:
            while size < megabytes * 1_000_000:
                size += file.write(lines[size % 61] + "\n")
        done = run_command([sys.executable, "-c", code, str(source), str(tmp_path / f"{megabytes}")])
        assert done.returncode == 0, done.stderr[-2_000:]
        num_documents, peak_mib = map(int, done.stdout.split())
        assert num_documents * len(lines[0]) > megabytes * 900_000
        peaks_mib.append(peak_mib)
    small, large = peaks_mib
    assert large < 400 and large - small < 30, "50 MB more of input may not cost memory"
