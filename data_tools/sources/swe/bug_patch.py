"""Instances of SWE-smith: their patch makes the bug, so the gold patch undoes it, in files that have the bug.

Source: docs/guides/harnesses.md of SWE-smith.
"""

import re
from collections import ChainMap
from collections.abc import Mapping
from typing import Any, cast

from acc_megatron.data_tools.sources.swe.own_patch import file_diff
from acc_megatron.data_tools.sources.swe.unified_diff import (
    PatchError,
    apply_changes,
    apply_patch,
    parse_patch,
    reversed_changes,
)
from acc_megatron.errors import Dropped

_OWNER = re.compile(r"(?:^|/)swesmith[./]")  # of the repository, or in the name of its image


def makes_bug(instance: Mapping[str, Any]) -> bool:
    """Whether the patch of an instance makes its bug."""
    names = (instance.get("repo"), instance.get("image_name"))
    return any(isinstance(name, str) and _OWNER.search(name) is not None for name in names)


def with_bug(patch: str, files: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
    """The files with the bug, and the patch that removes it; the given files may have the bug or not.

    Raises Dropped('bug_patch_does_not_apply').
    """
    buggy: Mapping[str, str | None]
    clean: Mapping[str, str | None]
    try:
        buggy = apply_patch(patch, files)
        clean = {path: files.get(path) for path in buggy}
    except PatchError as error:
        try:
            clean = apply_changes(reversed_changes(parse_patch(patch)), files)
            buggy = {path: files.get(path) for path in clean}
        except PatchError:
            raise Dropped("bug_patch_does_not_apply", f"the patch that makes the bug: {error.detail}") from None
    texts = {path: text for path, text in buggy.items() if text is not None}
    parts = [file_diff(path, texts[path], text) for path, text in clean.items() if path in texts and text is not None]
    if len(parts) != len(clean):
        raise Dropped(
            "bug_patch_does_not_apply", f"the patch that makes the bug adds or removes one of {sorted(clean)}"
        )
    return ChainMap(texts, cast(dict[str, str], files)), "\n".join(part for part in parts if part)
