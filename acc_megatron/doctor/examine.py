"""Everything the doctor looks at, in the order of its table."""

import platform
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from acc_megatron.config import Config
from acc_megatron.data_tools.tokenizer import load_tokenizer
from acc_megatron.doctor.finding import Finding
from acc_megatron.doctor.job import check_configured
from acc_megatron.doctor.machine import check_machine, has_driver
from acc_megatron.doctor.packages import check_imports, check_names, check_versions
from acc_megatron.doctor.probe import probe
from acc_megatron.errors import AccError

PROBED = ("torch", "triton", "megatron.core", "transformer_engine", "apex")


def examine(config: Config | None = None, *, gpus: int | None = None) -> list[Finding]:
    """Findings of this machine, and of one configured job on it when a config is given.

    Packages for GPUs are needed where the driver is; a job without a GPU runs on CPU and needs none of them.
    """
    gpu = driver = has_driver()
    with ThreadPoolExecutor(max_workers=2) as pool:
        facts = dict(zip(PROBED, pool.map(probe, PROBED), strict=True))
    run_dir = Path(config.train.run_dir) if config else Path.cwd()
    findings = [
        _python(),
        *check_names(),
        *check_versions(),
        _vocabulary(),
        *check_imports(facts, gpu=gpu, driver=driver),
        *check_machine(facts["torch"], run_dir, gpu=gpu),
    ]
    if config is not None:
        findings += check_configured(config, gpus)
        findings += _devices_for(config, len(facts["torch"].get("devices", [])))
    return findings


def _python() -> Finding:
    return Finding(
        name="python",
        state="ok" if sys.version_info >= (3, 11) else "wrong",
        found=f"{platform.python_version()} at {sys.executable}",
        effect="nothing imports",
        mend="install Python 3.11 or newer",
        needed=True,
    )


def _vocabulary() -> Finding:
    try:
        tokenizer = load_tokenizer("qwen3")
    except AccError as error:
        return Finding(
            name="qwen3 vocabulary", state="missing", found=str(error), effect="--tokenizer qwen3 is refused",
            mend="pip install --no-deps dashscope, or name a folder with tokenizer.json",
        )  # fmt: skip
    return Finding(name="qwen3 vocabulary", state="ok", found=f"{len(tokenizer.ranks):,} byte sequences")


def _devices_for(config: Config, num_devices: int) -> Iterator[Finding]:
    if config.train.precision != "float32" and num_devices == 0:
        yield Finding(
            name="train.precision",
            state="wrong",
            found=f"{config.train.precision} without a GPU",
            effect="arithmetic on CPU in that precision is emulated: right, and slow",
            mend="run on a GPU node, or give train.precision=float32",
        )
