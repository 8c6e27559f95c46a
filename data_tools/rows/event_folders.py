"""Runs of OpenHands with a file for each event: `events/0.json`, `events/1.json`, ... or `event-00000-ID.json`."""

import re
from pathlib import Path

from acc_megatron.common.json_rows import MAX_ROW_BYTES, BadRow, Row, digest, read_json

_NAME = re.compile(r"(?:event-)?(\d{1,9})(?:-[\w-]{1,80})?\.json")
_FOLDER = "events"


def event_files(path: Path) -> list[Path]:
    """The files of the run that an event belongs to, in their order; empty for any other file.

    A folder is a run if it is named `events` and contains an event 0.
    """
    if path.parent.name != _FOLDER or _NAME.fullmatch(path.name) is None:
        return []
    found = {int(match[1]): file for file in path.parent.iterdir() if (match := _NAME.fullmatch(file.name))}
    return [found[number] for number in sorted(found)] if 0 in found else []


def run_of_events(files: list[Path]) -> list[Row | BadRow]:
    """One row with all events, and a bad row for each file that is not one object."""
    first = str(files[0])
    if (num_bytes := sum(file.stat().st_size for file in files)) > MAX_ROW_BYTES:
        detail = f"the {len(files)} events have {num_bytes} bytes; the limit is {MAX_ROW_BYTES}"
        return [BadRow(file=first, line=1, byte_offset=0, reason="file_too_large", detail=detail)]
    rows = [row for file in files for row in read_json(file)]
    events = [row.value for row in rows if isinstance(row, Row)]
    value = {"history": events}
    run = Row(value=value, file=first, line=1, byte_offset=0, sha256=digest(events))
    return [*(row for row in rows if isinstance(row, BadRow)), run]
