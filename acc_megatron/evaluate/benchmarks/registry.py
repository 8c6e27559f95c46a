"""Every kind of benchmark that `eval` knows, in the order of the report."""

from typing import Any

from acc_megatron.common.registry import Registry
from acc_megatron.evaluate.benchmarks.benchmark import Benchmark
from acc_megatron.evaluate.benchmarks.graphwalks.benchmark import GraphWalks
from acc_megatron.evaluate.benchmarks.lm_eval_tasks.benchmark import LmEvalTasks
from acc_megatron.evaluate.benchmarks.mrcr.benchmark import Mrcr
from acc_megatron.evaluate.benchmarks.multiple_choice import MultipleChoice

BENCHMARKS: Registry[Benchmark[Any]] = Registry(
    "kind", {benchmark.kind: benchmark for benchmark in (Mrcr(), GraphWalks(), MultipleChoice(), LmEvalTasks())}
)
