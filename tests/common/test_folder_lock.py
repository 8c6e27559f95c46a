"""A folder is locked by one process, or shared by many."""

from pathlib import Path

import pytest

from acc_megatron.common import folder_lock as module
from acc_megatron.common.folder_lock import folder_lock


def test_a_folder_is_locked_by_one_or_shared_by_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.1)
    shared = folder_lock(tmp_path, shared=True)
    with shared as first, folder_lock(tmp_path, shared=True) as second, folder_lock(tmp_path) as exclusive:
        assert (first, second, exclusive) == (True, True, False)
    with folder_lock(tmp_path) as exclusive, folder_lock(tmp_path, shared=True) as other:
        assert (exclusive, other) == (True, False)
