"""What `acc-megatron bench kernels` prints: measurements, the table of costs, or the compiler's report."""

import json
import sys
from pathlib import Path

from acc_megatron.errors import ConfigError, EnvironmentProblem


def run_bench(
    tokens: int,
    supervised_share: float,
    vocab: int,
    hidden: int,
    dtype: str,
    *,
    repeats: int,
    csv: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure one case; print a table, or one JSON object."""
    from acc_megatron.kernels import bench
    from acc_megatron.kernels.costs import Case

    if dtype not in bench.ELEMENT_BYTES:
        raise ConfigError(f"--dtype is {dtype!r}; allowed: {', '.join(bench.ELEMENT_BYTES)}")
    case = Case(tokens, round(tokens * supervised_share), vocab, hidden, bench.ELEMENT_BYTES[dtype])
    rows = bench.bench(case, dtype, repeats=repeats, progress=lambda line: print(line, file=sys.stderr, flush=True))
    if csv:
        bench.append_csv(csv, rows)
    if plot:
        bench.plot(plot, rows)
    print(json.dumps(bench.summary(rows)) if as_json else bench.text(rows))


def run_costs() -> None:
    """Print arithmetic, memory and roofline of every implementation at 131,072 tokens, 151,936 words, TP 1-8."""
    from acc_megatron.kernels.costs import table

    print(table())


def run_aot(as_json: bool) -> None:
    """Compile every kernel for each generation; exits 1 when one spills, does not fit or lacks its instructions."""
    try:
        from acc_megatron.kernels import aot
    except ImportError as error:
        raise EnvironmentProblem(
            f"--aot compiles with Triton, which is absent: pip install triton==3.7.1 ({error})"
        ) from None
    rows = aot.report()
    print(json.dumps({"rows": rows}) if as_json else aot.markdown(rows))
    wrong = [
        f"{row['target']} {row['kernel']} {row['config']}: {'; '.join(row['problems'])}"
        for row in rows
        if row["problems"]
    ]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        sys.exit(1)
