"""`bench kernels`: runs the measurements, or prints the list, the table of costs or the compiler's report."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from acc_megatron.optional import missing_package


def _print_progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def run_kernel_benchmark(
    *, only: Sequence[str], repeats: int, csv_file: Path | None, plot_file: Path | None, as_json: bool, **options: Any
) -> None:
    """Measure the cases of `kernels_cases.make_sweep(**options)`; print tables or one JSON object.

    Raises ConfigError for an invalid option or an unknown name in `only`.
    """
    import torch

    from acc_megatron.bench import kernels_plot, kernels_report
    from acc_megatron.bench.kernels_cases import ON_CPU, ON_GPU, make_sweep
    from acc_megatron.kernels.benchmark.ceilings import measure_ceiling
    from acc_megatron.kernels.benchmark.registry import IMPLEMENTATIONS, implementation
    from acc_megatron.kernels.benchmark.run import run_benchmark

    sweep = make_sweep(ON_GPU if torch.cuda.is_available() else ON_CPU, **options)
    chosen = tuple(map(implementation, only)) or IMPLEMENTATIONS
    ceiling = measure_ceiling(sweep.dtype)
    tables = [
        run_benchmark(case, sweep.dtype, repeats=repeats, ceiling=ceiling, progress=_print_progress, chosen=chosen)
        for case in sweep.cases
    ]
    rows = [row for table in tables for row in table]
    here = _write_csv(csv_file, [asdict(row) for row in rows])
    if plot_file:
        kernels_plot.plot(plot_file, rows, sweep.axis, here["machine"])
    if as_json:
        print(json.dumps(kernels_report.summary(rows) | here))
    else:
        print("\n\n".join(kernels_report.markdown(table) for table in tables))
        print(kernels_report.footnotes(rows, here))


def run_parts(*, repeats: int, csv_file: Path | None, as_json: bool, **options: Any) -> None:
    """Measure the products and kernels of the op for each case; print tables or one JSON object.

    Raises ConfigError for an invalid option.
    """
    import torch

    from acc_megatron.bench import kernels_report
    from acc_megatron.bench.kernels_cases import ON_CPU, ON_GPU, make_sweep
    from acc_megatron.kernels.benchmark.ceilings import measure_ceiling
    from acc_megatron.kernels.benchmark.parts import measure_parts

    sweep = make_sweep(ON_GPU if torch.cuda.is_available() else ON_CPU, **options)
    ceiling = measure_ceiling(sweep.dtype)
    tables = [measure_parts(case, sweep.dtype, repeats, ceiling) for case in sweep.cases]
    rows = [row for table in tables for row in table]
    here = _write_csv(csv_file, [asdict(row) for row in rows])
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in rows]} | here))
    else:
        print("\n\n".join(kernels_report.parts_markdown(table) for table in tables))
        print(kernels_report.footnotes(rows, here))


def _write_csv(csv_file: Path | None, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Append the rows with machine, versions and commit, and return these three."""
    import torch

    from acc_megatron.bench.csv_file import append_csv
    from acc_megatron.common.this_machine import machine
    from acc_megatron.kernels.benchmark.machine import commit

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    here = machine(gpu=gpu) | {"commit": commit()}
    if csv_file:
        append_csv(csv_file, [row | {"commit": here["commit"]} for row in rows], gpu=gpu)
    return here


def run_list(as_json: bool) -> None:
    """Print every implementation, and why it cannot run here."""
    import torch

    from acc_megatron.kernels.benchmark.registry import IMPLEMENTATIONS, reason_unavailable

    device = "cuda" if torch.cuda.is_available() else "cpu"
    reasons = {each.name: reason_unavailable(each, device) for each in IMPLEMENTATIONS}
    if as_json:
        shown = {name: {"available": not reason, "reason": reason or None} for name, reason in reasons.items()}
        print(json.dumps(shown))
        return
    for name, reason in reasons.items():
        print(f"{name:34}{f'not available: {reason}' if reason else 'available'}")


def run_costs(as_json: bool) -> None:
    """Print formulas of every implementation at 131,072 tokens, vocabulary 151,936 and TP 1 to 8."""
    from acc_megatron.kernels.benchmark.cost_table import cost_rows, cost_table

    rows = cost_rows()
    print(json.dumps({"rows": [asdict(row) for row in rows]}) if as_json else cost_table(rows))


def run_aot(as_json: bool) -> None:
    """Compile every kernel for each GPU generation and print the report; exit with 1 if a kernel has a problem.

    Raises EnvironmentProblem if Triton is not installed.
    """
    try:
        from acc_megatron.kernels.benchmark import aot
    except ModuleNotFoundError as error:
        raise missing_package("triton", "--aot") from error
    rows = aot.report()
    result = {"triton": aot.triton.__version__, "rows": [asdict(row) for row in rows]}
    print(json.dumps(result) if as_json else aot.markdown(rows))
    failed = [row for row in rows if row.problems]
    for row in failed:
        print(f"{row.target} {row.kernel} {row.config}: {'; '.join(row.problems)}", file=sys.stderr)
    if failed:
        sys.exit(1)
