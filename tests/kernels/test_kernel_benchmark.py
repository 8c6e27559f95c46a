"""The kernel benchmark at a small size: implementations, rows and reports. Times and ratios are not tested."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.loss_problems import error, make, plain
from torch.utils.flop_counter import FlopCounterMode

from acc_megatron.bench import kernels_plot, kernels_report
from acc_megatron.errors import ConfigError, EnvironmentProblem
from acc_megatron.kernels.benchmark import parts, run
from acc_megatron.kernels.benchmark.child import DoesNotFit
from acc_megatron.kernels.benchmark.costs import Case, Ceiling
from acc_megatron.kernels.benchmark.implementation import Unavailable
from acc_megatron.kernels.benchmark.inputs import Errors, errors, make_inputs
from acc_megatron.kernels.benchmark.measure import Measurement, Seconds
from acc_megatron.kernels.benchmark.registry import IMPLEMENTATIONS, implementation, reason_unavailable

# Megatron-core starts a process group: test_kernel_benchmark_command.py measures it in its own process
ON_CPU = [
    "plain",
    "plain, compacted",
    "chunked",
    "chunked, compacted",
    "ours, keep",
    "ours, recompute",
    "torch linear_cross_entropy",
    "torch linear_cross_entropy, compacted",
]


@pytest.mark.parametrize("name", ON_CPU)
def test_every_implementation_computes_the_loss_and_gradients_of_the_supervised_tokens(name: str) -> None:
    problem = make(40, 9, 97, 16, torch.float32)
    is_supervised = problem.token_weights > 0
    targets = problem.targets.clone()
    targets[is_supervised.nonzero()[0]] = 0  # column 0 is a target like any other
    problem = problem._replace(targets=targets, token_weights=is_supervised.float())
    truth = plain(problem, torch.float64, 0.0)
    hidden, weight = (x.clone().requires_grad_() for x in (problem.hidden, problem.weight))
    value = implementation(name).load("cpu")(hidden, weight, problem.targets)
    value.backward()
    assert hidden.grad is not None and weight.grad is not None
    assert error(value.detach(), truth.loss) < 1e-5
    assert error(hidden.grad, truth.hidden) < 1e-5 and error(weight.grad, truth.weight) < 1e-5


def test_errors_are_zero_for_exact_gradients_and_count_every_difference() -> None:
    inputs = make_inputs(Case(50, 11, 90, 16, 4), "float32", "cpu")
    hidden, weight, targets = inputs
    weights = (targets >= 0).float()
    problem = make(1, 1, 2, 1, torch.float32)._replace(
        hidden=hidden.detach(), weight=weight.detach(), targets=targets, token_weights=weights
    )
    truth = plain(problem, torch.float64, 0.0)
    assert errors(truth.loss, truth.hidden, truth.weight, inputs).largest < 1e-12
    spilled = truth.hidden.clone()
    spilled[0, 0] += truth.hidden.norm()  # an unsupervised row
    found = errors(1.5 * truth.loss, spilled, 0 * truth.weight, inputs)
    assert (found.loss, found.hidden, found.weight) == pytest.approx((0.5, 1.0, 1.0))


def test_an_implementation_that_cannot_run_gives_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {each.name: each for each in IMPLEMENTATIONS}
    assert all(not reason_unavailable(named[name], "cpu") for name in ON_CPU)
    for name in ("Liger", "Liger, compacted", "quack", "Cut Cross-Entropy", "Transformer Engine"):
        assert reason_unavailable(named[name], "cpu") == "needs a GPU"
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    assert reason_unavailable(named["Liger"], "cuda").startswith("ModuleNotFoundError")
    with pytest.raises(ConfigError, match=r"'Ligre' is not an implementation; known: plain; .*--list"):
        implementation("Ligre")


class Faulty:
    """An implementation that cannot be loaded, or whose measurement fails."""

    package = "no-such-package"
    shards_vocabulary = gradient_in_forward = False

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self, device: str) -> Any:
        if self.name == "absent":
            raise Unavailable("no such package")

    def cost(self, case: Case) -> None:
        return None


def measured(name: str, case: Case, dtype: str, repeats: int) -> Measurement:
    if name == "plain" and case.tokens > 1000:
        raise DoesNotFit("tried to allocate 223 GiB")
    if name == "crashes":
        raise EnvironmentProblem("exit code -11: no output")
    scale = 1.0 if name == "plain" else 0.25
    times = Seconds(*(scale * value for value in (0.9, 1.0, 1.1)))
    found = Errors(loss=1e-7, hidden=2e-7, weight=3e-7)
    return Measurement(forward=times, backward=times, both=times, peak_bytes=int(scale * 2**20), errors=found)


def rows_of(case: Case, monkeypatch: pytest.MonkeyPatch) -> list[run.Row]:
    monkeypatch.setattr(run, "measure", measured)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    chosen = [implementation(name) for name in ("plain", "chunked", "ours, keep")]
    chosen += [Faulty("absent"), Faulty("crashes")]
    return run.run_benchmark(
        case, "float32", repeats=2, ceiling=Ceiling(1e9, 1e9), progress=lambda line: None, chosen=chosen
    )


def test_rows_have_ratios_to_plain_and_failures_are_rows_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(Case(100, 4, 512, 16, 4), monkeypatch)
    by_name = {name: [row for row in rows if row.implementation == name] for name in {r.implementation for r in rows}}
    assert [row.direction for row in by_name["ours, keep"]] == ["forward", "backward", "both"]
    # its forward pass computes gradients, so the passes are not comparable one by one
    assert [row.direction for row in by_name["chunked"]] == ["both"]
    assert {(row.time_ratio_vs_plain, row.memory_ratio_vs_plain) for row in by_name["ours, keep"]} == {(4.0, 4.0)}
    assert all(row.weight_error == 3e-7 for row in rows if row.status == "measured")
    both = by_name["ours, keep"][-1]
    assert both.package.startswith("acc-megatron=") and by_name["absent"][0].package == "no-such-package=absent"
    assert both.gflop == round(2 * 3 * 4 * 512 * 16 / 1e9, 2) and both.floor_share is not None
    assert [row.status for row in by_name["absent"]] == ["not available: no such package"]
    assert [row.status for row in by_name["crashes"]] == ["failed: exit code -11: no output"]
    summary = kernels_report.summary(rows)
    assert summary["supervised_share"] == 0.04 and summary["implementation"].startswith("ours")
    table = kernels_report.markdown(rows).splitlines()
    assert len(table) == 4 + 5 and "| 1.0e-07 | 2.0e-07 | 3.0e-07 |" in table[-3]


def test_where_plain_does_not_fit_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(Case(131_072, 5243, 512, 16, 4), monkeypatch)
    assert rows[0].status == "does not fit: tried to allocate 223 GiB" and rows[0].p50_us is None
    ours = [row for row in rows if row.implementation == "ours, keep"]
    assert len(ours) == 3 and all(row.p50_us and row.time_ratio_vs_plain is None for row in ours)
    assert kernels_report.summary(rows)["time_ratio_vs_plain"] is None
    assert "| plain | does not fit: tried to allocate 223 GiB |" in kernels_report.markdown(rows)


def test_an_implementation_that_needs_the_full_vocabulary_is_not_measured_on_a_shard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = rows_of(Case(100, 4, 256, 16, 4, num_shards=2), monkeypatch)
    by_name = {row.implementation: row for row in rows}
    assert by_name["chunked"].status == "not available: every rank needs the full vocabulary"
    assert by_name["plain"].status == by_name["ours, keep"].status == "measured"


def test_a_sweep_is_drawn_as_a_line_per_implementation_that_ends_where_it_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [row for tokens in (512, 1000, 4096) for row in rows_of(Case(tokens, 4, 512, 16, 4), monkeypatch)]
    drawn: dict[str, list[float]] = {}
    monkeypatch.setattr(
        "matplotlib.axes.Axes.plot", lambda self, x, y, style, label: drawn.setdefault(label, []).extend(x)
    )
    kernels_plot.plot(tmp_path / "sweep.svg", rows, "tokens", "box")
    assert drawn["plain"] == [512, 1000] * 2 and drawn["ours, keep"] == [512, 1000, 4096] * 2
    monkeypatch.undo()
    kernels_plot.plot(tmp_path / "bars.svg", rows[:5], None, "box")
    assert "<svg" in (tmp_path / "bars.svg").read_text()


def test_the_parts_are_rows_with_rates_and_shares_of_the_ceiling_or_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"name": "statistics", "flops": 4e9, "bytes": 3e9, "seconds": (1.0, 2.0, 4.0)}
    monkeypatch.setattr(parts, "ask", lambda module, request: {"parts": [part], "gpu_state": "1980 MHz"})
    case = Case(100, 4, 512, 16, 4, num_shards=2)
    [row] = parts.measure_parts(case, "float32", 3, Ceiling(4e9, 6e9))
    assert (row.p20_us, row.p50_us, row.p80_us, row.gpu_state) == (1e6, 2e6, 4e6, "1980 MHz")
    assert (row.tflop_per_second, row.gb_per_second, row.ceiling_share) == (0.002, 1.5, 0.5)
    assert kernels_report.parts_markdown([row]).endswith(
        "| statistics | 1000000.0 | 2000000.0 | 4000000.0 | 0.002 | 1.5 | 50.0 |"
    )

    def refuse(module: str, request: Any) -> Any:
        raise DoesNotFit("tried to allocate 80 GiB")

    monkeypatch.setattr(parts, "ask", refuse)
    rows = parts.measure_parts(case, "float32", 3, Ceiling(4e9, 6e9))
    assert [row.p50_us for row in rows] == [None]
    assert "| all | does not fit: tried to allocate 80 GiB |" in kernels_report.parts_markdown(rows)


def test_the_parts_of_the_op_have_the_arithmetic_that_torch_counts() -> None:
    mapping = {torch.ops.aten.addmm_: lambda out, a, b, **_: 2 * a[0] * a[1] * b[1]}
    names = []
    for part in parts.make_parts(Case(64, 9, 90, 16, 4), "float32", "cpu"):
        names.append(part.name)
        with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
            part.run()
        assert counter.get_total_flops() == part.flops, part.name
    assert len(names) == len(set(names)) == 7
