"""Writing one rank's part of a checkpoint: hashed while it is written, then read back.

Megatron's own writers start a manager process, copy views of all expert matrices at once, and report a failed write
only in the log. This one writes tensor by tensor in a thread and keeps the failure for `store.Save.finish`.
"""

import hashlib
import os
import threading
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import FileSystemWriter, Metadata, SavePlan, SavePlanner
from torch.distributed.checkpoint.filesystem import SerializationFormat, WriteResult, _write_item
from torch.distributed.checkpoint.planner import WriteItem

from acc_megatron.common.atomic_files import sha256_file


class RankWriter(FileSystemWriter):
    """Writes this rank's tensors to one file in a thread.

    With `is_staged`, every tensor is copied first, so that training can continue while the thread writes; otherwise
    the thread reads one tensor at a time from the model.
    """

    can_run_decentralized_global_plan = True

    def __init__(self, folder: Path, *, is_staged: bool) -> None:
        super().__init__(folder)
        self._is_staged = is_staged
        self.file = folder / f"__{dist.get_rank()}_0.distcp"
        self.metadata: Metadata | None = None  # of the complete checkpoint, on rank 0
        self.results: list[WriteResult] = []
        self.files: dict[str, dict[str, Any]] = {}  # bytes and sha256 of each written file
        self.failure: str | None = None
        self._items: list[tuple[WriteItem, Any]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def prepare_decentralized_global_plan(self, local_plan: SavePlan) -> SavePlan:
        """Return the plan unchanged: file names differ by rank, so that plans do not conflict."""
        return local_plan

    def prepare_write_data(self, plan: SavePlan, planner: SavePlanner) -> None:
        """Collect what to write, copied if the save is staged; Megatron calls this at the end of planning."""
        for item in plan.items:
            data = planner.resolve_data(item)
            if self._is_staged and torch.is_tensor(data):
                data = data.detach().to("cpu", copy=True)
            self._items.append((item, data))

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def has_ended(self) -> bool:
        """Return whether the thread has ended, with or without a failure."""
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            if self._items:
                self._write()
        except Exception as error:  # Save.finish raises it on every rank
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self._items.clear()

    def _write(self) -> None:
        with self.file.open("wb") as raw:
            stream: Any = _HashedStream(raw)
            try:
                for item, data in self._items:
                    self.results.append(
                        _write_item(
                            self.transforms, stream, _exact(data), item, self.file.name, SerializationFormat.TORCH_SAVE
                        )
                    )
            except Exception:
                if stream.failure is not None:  # torch.save hides the operating system's error
                    raise stream.failure from None
                raise
            raw.flush()
            os.fsync(raw.fileno())
        written, read = stream.digest.hexdigest(), sha256_file(self.file)
        if read != written:
            raise OSError(f"{self.file} has sha256 {read} when read back, but {written} was written")
        self.files[self.file.name] = {"bytes": stream.position, "sha256": written}


class _HashedStream:
    """A binary file that hashes what is written and remembers why a write failed."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = raw
        self.digest = hashlib.sha256()
        self.position = 0
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        try:
            self.raw.write(data)
        except OSError as error:
            self.failure = error
            raise
        self.digest.update(data)
        self.position += size
        return size

    def tell(self) -> int:
        return self.position

    def flush(self) -> None:
        self.raw.flush()

    def close(self) -> None:
        """Do nothing: this ends one item, not the file."""


def _exact(data: Any) -> torch.Tensor | BytesIO:
    """Return bytes unchanged, and a tensor as the only one in its storage, because torch.save writes whole storages."""
    if not torch.is_tensor(data):
        return data
    data = data.detach().cpu()
    return data.clone() if data.untyped_storage().nbytes() != data.numel() * data.itemsize else data
