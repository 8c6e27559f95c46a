"""vLLM over an exported folder: the command line that serves it, and a server that lives as long as it is asked.

Flags as of vLLM's documentation of 2026: `--rope-scaling` is gone, YaRN goes through `--hf-overrides` (Context
Extension); `--generation-config vllm` keeps a folder's own sampling settings out (Engine Arguments). No GPU has run
this here: vLLM 0.32.0 built for CPU has, also over a window that YaRN reaches. The server's life is tested with a
server of our own in its place.
"""

import ctypes
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from acc_megatron.errors import ConfigError, DataError, EnvironmentProblem
from acc_megatron.evaluate.local import folder_config
from acc_megatron.evaluate.settings import ModelSettings

# Qwen3's first models state 40,960 positions, of which 32,768 were trained; their card scales YaRN from those
_TRAINED_POSITIONS = {40_960: 32_768}
_STOP_SECONDS = 30.0
_LIBC = ctypes.CDLL(None)  # loaded here: between fork and exec as little as possible may happen
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def vllm_command(
    folder: Path, *, served_name: str, port: int, gpus: int = 1, window_tokens: int | None = None
) -> list[str]:
    """The command that serves `folder` on 127.0.0.1, prompts and answers together up to `window_tokens`.

    Key-value heads are divided over GPUs as far as they go (4 for Qwen3-30B-A3B), replicas take the rest, and experts
    are spread over all. A window beyond the folder's positions is reached by YaRN. For Qwen3-30B-A3B in bfloat16 (61 GB
    of weights, 98,304 bytes of keys and values a token, so 12.9 GB for 131,072) that takes two GPUs of 80 GB or more.
    Raises ConfigError for a folder whose positions are scaled already, and not as far.
    """
    config = folder_config(folder)
    window = window_tokens or config["max_position_embeddings"]
    heads = int(config.get("num_key_value_heads") or config.get("num_attention_heads") or 1)
    tensor = math.gcd(gpus, heads)
    command = ["vllm", "serve", str(folder), "--served-model-name", served_name, "--host", "127.0.0.1"]
    command += ["--port", str(port), "--max-model-len", str(window), "--generation-config", "vllm"]
    command += ["--tensor-parallel-size", str(tensor), "--data-parallel-size", str(gpus // tensor)]
    if gpus > 1 and (config.get("num_experts") or config.get("n_routed_experts")):
        command.append("--enable-expert-parallel")
    if window > config["max_position_embeddings"]:
        # vLLM takes max_position_embeddings for scaled already, as transformers does
        overrides = {"max_position_embeddings": window, "rope_parameters": _yarn(config, window, folder)}
        command += ["--hf-overrides", json.dumps(overrides)]
    return command


def _yarn(config: dict[str, Any], window: int, folder: Path) -> dict[str, Any]:
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if stated.get("rope_type", "default") != "default":
        raise ConfigError(
            f"{folder} scales its positions by {stated['rope_type']} already, up to "
            f"{config['max_position_embeddings']}; window_tokens {window} is beyond that"
        )
    trained = _TRAINED_POSITIONS.get(config["max_position_embeddings"], config["max_position_embeddings"])
    return {
        "rope_type": "yarn",
        "rope_theta": float(config.get("rope_theta") or stated.get("rope_theta") or 10_000.0),
        "factor": window / trained,
        "original_max_position_embeddings": trained,
    }


@contextmanager
def serving(settings: ModelSettings, *, name: str, log: Path, show: Callable[[str], None]) -> Iterator[str]:
    """The URL of a vLLM server over `settings.folder`, up for as long as the block runs; its words go to `log`.

    On Linux it ends with this process too, however that is killed.
    Raises EnvironmentProblem when vLLM is not installed, takes over `start_seconds`, or ends before all is asked.
    """
    assert settings.folder is not None
    if shutil.which("vllm") is None:
        raise EnvironmentProblem(f"models.{name}.engine is vllm, and no command vllm is on PATH: install vLLM there")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = vllm_command(
        Path(settings.folder), served_name=name, port=port, gpus=settings.gpus, window_tokens=settings.window_tokens
    )
    show(f"eval {name}: $ {' '.join(command)}  (log: {log})")
    with log.open("ab") as words:
        process = subprocess.Popen(
            command, stdout=words, stderr=words, start_new_session=True, preexec_fn=_end_with_parent
        )
    try:
        _wait_until_healthy(process, f"http://127.0.0.1:{port}/health", settings.start_seconds, name, log)
        yield f"http://127.0.0.1:{port}/v1"
        if process.poll() is not None:
            show(f"eval {name}: {_last_words(process, name, log)}")
    except DataError as error:
        if process.poll() is not None:  # then that is why
            raise EnvironmentProblem(_last_words(process, name, log)) from error
        raise
    finally:
        _stop(process)


def _end_with_parent() -> None:
    """A server whose run was killed holds its GPUs for nobody: the kernel ends it, however the run ended."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, seconds: float, name: str, log: Path) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise EnvironmentProblem(_last_words(process, name, log))
        try:
            if httpx2.get(url, timeout=5.0, trust_env=False).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(min(1.0, seconds / 20))
    raise EnvironmentProblem(f"vllm for models.{name} did not answer within start_seconds {seconds:g}; see {log}")


def _last_words(process: subprocess.Popen[bytes], name: str, log: Path) -> str:
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    return f"vllm for models.{name} ended with {process.returncode}; the end of {log}:\n{tail}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's whole process group, at first politely."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(_STOP_SECONDS)
            return
        except ProcessLookupError:
            process.wait()
            return
        except subprocess.TimeoutExpired:
            continue
