"""Runs the commands of `acc-megatron`, each once: its result is kept in a file, and a second call reads that file."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).with_name("model.toml")


def acc(result_file: Path, *arguments: str | Path) -> dict[str, Any]:
    """Run `acc-megatron ARGUMENTS --json` unless `result_file` exists. Raises SystemExit if the command fails."""
    return run_once(result_file, [sys.executable, "-m", "acc_megatron", *map(str, arguments), "--json"])


def run_once(result_file: Path, command: list[str]) -> dict[str, Any]:
    """Run a command whose last line of output is a JSON object, and store that object and its seconds."""
    if result_file.is_file():
        return json.loads(result_file.read_bytes())
    result_file.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=_environment())
    log = result_file.with_suffix(".log")
    log.write_text(f"$ {' '.join(command)}\n{done.stderr}{done.stdout}", encoding="utf-8")
    if done.returncode:
        sys.exit(
            f"{' '.join(command)}\nended with exit code {done.returncode}; the end of {log}:\n{done.stderr[-2000:]}"
        )
    result = json.loads(done.stdout.strip().splitlines()[-1]) | {"seconds": round(time.monotonic() - start, 1)}
    publish(result_file, json.dumps(result))
    name = f"{result_file.parent.name}/{result_file.stem}"
    print(f"{name:<36}{result['seconds']:>8.1f} s", file=sys.stderr, flush=True)
    return result


def publish(path: Path, text: str) -> None:
    """Write a file atomically: it appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def publish_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines atomically."""
    publish(path, "".join(json.dumps(row) + "\n" for row in rows))


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
