"""The product's commands, each a process that is run once: what it printed is kept, and a second call reads that."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).with_name("model.toml")


def acc(marker: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run `acc-megatron ARGUMENTS --json` unless `marker` holds its result; raises SystemExit when it fails."""
    return command(marker, [sys.executable, "-m", "acc_megatron", *map(str, arguments), "--json"])


def command(marker: Path, words: list[str]) -> dict[str, Any]:
    """Run a command whose last line of output is a JSON object, and keep that with its seconds in `marker`."""
    if marker.is_file():
        return json.loads(marker.read_bytes())
    marker.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, env=_environment())
    log = marker.with_suffix(".log")
    log.write_text(f"$ {' '.join(words)}\n{done.stderr}{done.stdout}", encoding="utf-8")
    if done.returncode:
        sys.exit(f"{' '.join(words)}\nended with {done.returncode}; the end of {log}:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1]) | {"seconds": round(time.monotonic() - started, 1)}
    publish(marker, json.dumps(result))
    print(f"{marker.parent.name + '/' + marker.stem:<36}{result['seconds']:>8.1f} s", file=sys.stderr, flush=True)
    return result


def publish(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def publish_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON lines, whole or not at all."""
    publish(path, "".join(json.dumps(row) + "\n" for row in rows))


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
