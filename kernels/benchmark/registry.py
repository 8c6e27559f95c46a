"""The list of benchmarked implementations. To add one: its file in `implementations/` and a line here."""

from importlib.metadata import PackageNotFoundError, version

import torch

from acc_megatron.errors import ConfigError
from acc_megatron.kernels.benchmark.implementation import Implementation, Unavailable
from acc_megatron.kernels.benchmark.implementations.chunked import Chunked
from acc_megatron.kernels.benchmark.implementations.compacted import Compacted
from acc_megatron.kernels.benchmark.implementations.cut_cross_entropy import CutCrossEntropy
from acc_megatron.kernels.benchmark.implementations.liger import Liger
from acc_megatron.kernels.benchmark.implementations.megatron_core import MegatronCore
from acc_megatron.kernels.benchmark.implementations.ours import Ours
from acc_megatron.kernels.benchmark.implementations.plain import Plain
from acc_megatron.kernels.benchmark.implementations.quack import Quack
from acc_megatron.kernels.benchmark.implementations.torch_linear_cross_entropy import TorchLinearCrossEntropy
from acc_megatron.kernels.benchmark.implementations.transformer_engine import TransformerEngine

# the order of the tables; ratios are relative to the first
IMPLEMENTATIONS: tuple[Implementation, ...] = (
    Plain(),
    Compacted(Plain()),
    Chunked(),
    Compacted(Chunked()),
    Ours("ours, keep", "keep"),
    Ours("ours, recompute", "recompute"),
    Ours("torch reference", "keep", backend="torch"),
    TorchLinearCrossEntropy(),
    Compacted(TorchLinearCrossEntropy()),
    Liger(),
    Compacted(Liger()),
    Compacted(Liger("Liger, float32 sums", torch.float32)),
    Quack(),
    Compacted(Quack()),
    CutCrossEntropy("Cut Cross-Entropy", "cce"),
    CutCrossEntropy("Cut Cross-Entropy, no filter", "cce_exact"),
    TransformerEngine(),
    Compacted(TransformerEngine()),
    MegatronCore(),
    Compacted(MegatronCore()),
)


def implementation(name: str) -> Implementation:
    """Return the implementation with this name. Raises ConfigError for an unknown name."""
    for each in IMPLEMENTATIONS:
        if each.name == name:
            return each
    raise ConfigError(
        f"{name!r} is not an implementation; known: {'; '.join(each.name for each in IMPLEMENTATIONS)} "
        "(acc-megatron bench kernels --list)"
    )


def reason_unavailable(each: Implementation, device: str) -> str:
    """Why an implementation cannot run on "cpu" or "cuda"; empty if it can."""
    try:
        each.load(device)
    except Unavailable as error:
        return str(error)
    except Exception as error:
        # a missing package, or one built for another torch, must not stop the benchmark of the others
        return f"{type(error).__name__}: {error}"
    return ""


def package_version(each: Implementation) -> str:
    """The package of an implementation with its version, such as "liger-kernel=0.8.5" or "liger-kernel=absent"."""
    try:
        return f"{each.package}={version(each.package)}"
    except PackageNotFoundError:
        return f"{each.package}=absent"
