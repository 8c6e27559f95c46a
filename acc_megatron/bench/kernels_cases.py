"""The cases of the kernel benchmark: defaults by device, and sweeps over tokens, supervised share or TP."""

from collections.abc import Sequence
from dataclasses import dataclass

from acc_megatron.errors import ConfigError
from acc_megatron.kernels.benchmark.costs import Case

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """The case that is measured if no option is given."""

    tokens: int
    vocab: int
    hidden: int
    dtype: str
    supervised_share: float = 0.04


# Qwen3-30B-A3B and one document of 131,072 tokens; plain does not fit there
ON_GPU = Defaults(tokens=131_072, vocab=151_936, hidden=2048, dtype="bfloat16")
ON_CPU = Defaults(tokens=1024, vocab=8192, hidden=256, dtype="float32")


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The cases to measure; `axis` names the field of a row that differs, None if there is one case."""

    cases: tuple[Case, ...]
    dtype: str
    axis: str | None


def make_sweep(
    defaults: Defaults,
    *,
    tokens: str | None,
    supervised_share: str | None,
    tensor_parallel: str,
    vocab: int | None,
    hidden: int | None,
    dtype: str | None,
) -> Sweep:
    """Parse the options; each of the first three is a value or a list such as "8192,16384".

    `vocab` is the full vocabulary, of which one shard is measured. Raises ConfigError for an invalid value, or if more
    than one option is a list.
    """
    dtype = dtype or defaults.dtype
    if dtype not in ELEMENT_BYTES:
        raise ConfigError(f"--dtype is {dtype!r}; allowed: {', '.join(ELEMENT_BYTES)}")
    token_counts = [int(value) for value in _values("--tokens", tokens or str(defaults.tokens), 1, None)]
    shares = _values("--supervised-share", supervised_share or str(defaults.supervised_share), 0, 1)
    shard_counts = [int(value) for value in _values("--tensor-parallel", tensor_parallel, 1, None)]
    lists = {"tokens": token_counts, "supervised": shares, "num_shards": shard_counts}
    axes = [axis for axis, values in lists.items() if len(values) > 1]
    if len(axes) > 1:
        raise ConfigError(
            "only one of --tokens, --supervised-share and --tensor-parallel can have several values; "
            f"{len(axes)} have: run one sweep for each of them"
        )
    full, width = vocab or defaults.vocab, hidden or defaults.hidden
    for count in shard_counts:
        if full % count:
            raise ConfigError(f"--tensor-parallel is {count}; --vocab {full} is not a multiple of it")
    cases = tuple(
        Case(number, round(number * share), full // count, width, ELEMENT_BYTES[dtype], count)
        for number in token_counts
        for share in shares
        for count in shard_counts
    )
    return Sweep(cases=cases, dtype=dtype, axis=axes[0] if axes else None)


def _values(option: str, text: str, low: float, high: float | None) -> Sequence[float]:
    allowed = f"a number from {low}" + (f" to {high}" if high is not None else "") + ", or several with commas"
    try:
        values = [float(part) if high is not None else int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} is {text!r}; allowed: {allowed}") from error
    if any(value < low or (high is not None and value > high) for value in values):
        raise ConfigError(f"{option} is {text!r}; allowed: {allowed}")
    return values
