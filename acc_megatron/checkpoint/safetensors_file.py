"""Writing a safetensors file in parts, so that only one part of one tensor is in memory.

The safetensors library can only write complete dicts. The bytes are the same as the library's: the length of the
header, the header as JSON padded with spaces to 8 bytes, then the tensors
(https://github.com/huggingface/safetensors#format).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_safetensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    parts: Callable[[str], Iterator[torch.Tensor]],
) -> None:
    """Write tensors in the order of `shapes`; `parts(name)` yields consecutive parts of one, in any float dtype."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            for part in parts(name):
                file.write(part.to(dtype).contiguous().view(torch.uint8).numpy().data)
    assert path.stat().st_size == 8 + len(text) + offset, path
