"""Checking an answer that contains a patch: it must apply, change something, and pass the test if there is one."""

import re

from acc_megatron.data_tools.rows.fields import fenced_blocks, optional_object
from acc_megatron.data_tools.schema import Triple
from acc_megatron.data_tools.sources.container_test import ContainerTest, run_container_test
from acc_megatron.data_tools.sources.swe.unified_diff import PatchError, apply_patch
from acc_megatron.errors import Dropped

_DIFF = re.compile(r"^(diff --git |--- \S)", re.MULTILINE)


def check_patch(triple: Triple, answer: str, test: ContainerTest | None) -> None:
    """Return if the answer's patch is accepted; otherwise raise Dropped: patch_... or tests_..."""
    patch = patch_of(answer)
    files = {piece.id: piece.text for piece in triple.context}
    try:
        changed = apply_patch(patch, files)
    except PatchError as error:
        raise Dropped(f"patch_{error.reason}", error.detail) from None
    if all(text == files.get(path) for path, text in changed.items()):
        raise Dropped("patch_changes_nothing", f"the patch leaves all {len(changed)} files as they are")
    if test:
        run_container_test(test, str(optional_object(triple.settings, "notes").get("instance_id")), patch)


def patch_of(answer: str) -> str:
    """The unified diff of an answer: in its code fence, otherwise from the first line that opens a diff; '' if none."""
    answer = next((block for block in fenced_blocks(answer) if _DIFF.search(block)), answer)
    start = _DIFF.search(answer)
    return answer[start.start() :] if start else ""
