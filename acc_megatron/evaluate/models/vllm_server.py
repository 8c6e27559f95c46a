"""A vLLM server for an exported folder: its command line, its start and its end.

Flags follow vLLM's documentation of 2026: `--rope-scaling` was removed, YaRN is set through `--hf-overrides` (Context
Extension); `--generation-config vllm` ignores a folder's own sampling settings (Engine Arguments). Checked with vLLM
0.32.0 built for CPU, also with a window that needs YaRN; not yet run on a GPU. The tests start and stop a server of
their own instead.
"""

import ctypes
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from acc_megatron.common.network_ports import free_port
from acc_megatron.errors import ConfigError, DataError, EnvironmentProblem
from acc_megatron.evaluate.models.local_folder import folder_config
from acc_megatron.evaluate.models.settings import ModelSettings
from acc_megatron.model.families.rope_scaling import trained_positions

_STOP_SECONDS = 30.0
_LIBC = ctypes.CDLL(None)  # loaded here because little may run between fork and exec
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def vllm_command(
    folder: Path, *, served_name: str, port: int, gpus: int = 1, window_tokens: int | None = None
) -> list[str]:
    """The command that serves `folder` on 127.0.0.1, for prompts and answers of up to `window_tokens` together.

    Tensor parallelism divides the key-value heads (at most 4 ways for Qwen3-30B-A3B), data parallelism uses the other
    GPUs, and experts are spread over all. A window beyond the folder's positions uses YaRN. Qwen3-30B-A3B in bfloat16
    has 61 GB of weights and 98,304 bytes of keys and values per token, 12.9 GB for 131,072 tokens, and needs two GPUs
    of 80 GB. Raises ConfigError for a folder that already scales its positions, but not far enough.
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
        # max_position_embeddings means the scaled length, in vLLM as in transformers
        overrides = {"max_position_embeddings": window, "rope_parameters": _yarn(config, window, folder)}
        command += ["--hf-overrides", json.dumps(overrides)]
    return command


def _yarn(config: dict[str, Any], window: int, folder: Path) -> dict[str, Any]:
    stated = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if stated.get("rope_type", "default") != "default":
        raise ConfigError(
            f"{folder} already scales its positions by {stated['rope_type']}, up to "
            f"{config['max_position_embeddings']}; choose a window_tokens of at most that instead of {window}"
        )
    trained = trained_positions(config["max_position_embeddings"])
    return {
        "rope_type": "yarn",
        "rope_theta": float(config.get("rope_theta") or stated.get("rope_theta") or 10_000.0),
        "factor": window / trained,
        "original_max_position_embeddings": trained,
    }


@contextmanager
def serving(settings: ModelSettings, *, name: str, log: Path, show: Callable[[str], None]) -> Iterator[str]:
    """The URL of a vLLM server for `settings.folder` that runs as long as the block; its output goes to `log`.

    On Linux the server also ends if this process is killed. Raises EnvironmentProblem if vLLM is not installed, is not
    ready after `start_seconds`, or ends before the block does.
    """
    assert settings.folder is not None
    if shutil.which("vllm") is None:
        raise EnvironmentProblem(f"models.{name}.engine is vllm, but no command vllm is on PATH: install vLLM")
    port = free_port()
    command = vllm_command(
        Path(settings.folder), served_name=name, port=port, gpus=settings.gpus, window_tokens=settings.window_tokens
    )
    show(f"eval {name}: $ {' '.join(command)}  (log: {log})")
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, preexec_fn=_end_with_parent
        )
    try:
        _wait_until_healthy(process, f"http://127.0.0.1:{port}/health", settings.start_seconds, name, log)
        yield f"http://127.0.0.1:{port}/v1"
        if process.poll() is not None:  # the cause of whatever had no answer
            raise EnvironmentProblem(_end_of_log(process, name, log))
    except DataError as error:
        if process.poll() is not None:
            raise EnvironmentProblem(_end_of_log(process, name, log)) from error
        raise
    finally:
        _stop(process)


def _end_with_parent() -> None:
    """Let the kernel end the server when this process ends, so that it does not keep the GPUs."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, seconds: float, name: str, log: Path) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise EnvironmentProblem(_end_of_log(process, name, log))
        try:
            if httpx2.get(url, timeout=5.0, trust_env=False).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(min(1.0, seconds / 20))
    raise EnvironmentProblem(f"vllm for models.{name} did not answer within start_seconds {seconds:g}; see {log}")


def _end_of_log(process: subprocess.Popen[bytes], name: str, log: Path) -> str:
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
    return f"vllm for models.{name} ended with {process.returncode}; the end of {log}:\n{tail}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's process group: SIGTERM first, SIGKILL after 30 seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_STOP_SECONDS)
            return
        except ProcessLookupError:
            process.wait()
            return
        except subprocess.TimeoutExpired:
            continue
