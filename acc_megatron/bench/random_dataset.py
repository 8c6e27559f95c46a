"""A dataset folder of random tokens, as `convert` would write it, for runs whose text does not matter."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from acc_megatron.common.atomic_files import write_json
from acc_megatron.data_tools.convert.dataset_folder import SAMPLE_SCHEMA
from acc_megatron.data_tools.convert.indexed_file import write_indexed
from acc_megatron.data_tools.convert.manifest import FORMAT_VERSION, SAMPLES, fingerprint


def write_dataset(folder: Path, lengths_tokens: Sequence[int], vocab_size: int, *, supervised_share: float) -> Path:
    """Write a dataset folder of random ids below `vocab_size`; the end of each document is supervised."""
    rng = np.random.default_rng(0)
    shard = folder / "shards" / "00000"
    shard.mkdir(parents=True)
    documents = [rng.integers(0, vocab_size, length, dtype=np.int32) for length in lengths_tokens]
    masks = [np.zeros(length, np.uint8) for length in lengths_tokens]
    rows: list[dict[str, Any]] = []
    for number, (length, mask) in enumerate(zip(lengths_tokens, masks, strict=True)):
        supervised = max(1, round(length * supervised_share))
        mask[length - supervised :] = 1
        row: dict[str, Any] = dict.fromkeys(SAMPLE_SCHEMA.names)
        rows.append(row | {"id": str(number), "tokens": length, "supervised_tokens": supervised})
    write_indexed(shard / "tokens", documents, np.int32)
    write_indexed(shard / "loss_mask", masks, np.uint8)
    pq.write_table(pa.Table.from_pylist(rows, SAMPLE_SCHEMA), folder / SAMPLES, write_page_checksum=True)
    files = {
        str(path.relative_to(folder)): {
            "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()
        }
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip
    manifest = {"format_version": FORMAT_VERSION, "shards": 1, "files": files, "settings": {}}
    manifest["tokenizer"] = {"name": "random", "vocab_size": vocab_size, "pad_id": 0}
    manifest |= {"dropped": {}, "dropped_tokens": {}}
    write_json(folder / "manifest.json", manifest | {"fingerprint": fingerprint(manifest)})
    return folder
