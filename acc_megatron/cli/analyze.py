"""The verbs `acc-megatron analyze ...`: what training changed inside a model."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from acc_megatron.cli.options import Json, Out, Overrides, print_page
from acc_megatron.errors import ConfigError

if TYPE_CHECKING:
    from acc_megatron.analyze.task_documents import Task
    from acc_megatron.config import ParallelConfig

analyze = typer.Typer(no_args_is_help=True, help="What training changed inside a model.")


@dataclass(kw_only=True)
class Comparison:
    """The options of the verbs that compare checkpoints over tasks."""

    before: Annotated[Path, typer.Option(help="Checkpoint or run folder before training.")]
    out: Out
    task: Annotated[list[str], typer.Option(metavar="NAME=DIR", help="A dataset folder; repeatable.")]
    overrides: Overrides = None
    after: Annotated[Path | None, typer.Option(help="Checkpoint or run folder after training.")] = None
    control: Annotated[Path | None, typer.Option(help="Checkpoint trained on as many tokens of other data.")] = None
    documents: Annotated[int, typer.Option(min=1, help="Documents of each task.")] = 8
    max_tokens: Annotated[int, typer.Option(help="Longer documents are left out and counted.")] = 131_072
    seed: Annotated[int, typer.Option(help="Seed of the choice of documents.")] = 0
    by: Annotated[
        Literal["agent"] | None, typer.Option(help="Divide each task into one for each agent of its dataset.")
    ] = None
    as_json: Json = False

    def checkpoints(self) -> dict[str, Path]:
        """The given checkpoints by name, `before` first."""
        named = {"before": self.before, "after": self.after, "control": self.control}
        return {name: path for name, path in named.items() if path is not None}

    def tasks(self) -> "list[Task]":
        """The tasks with their chosen documents. Raises AccError for a task that cannot be used."""
        from acc_megatron.analyze.task_documents import open_tasks

        return open_tasks(
            self.task,
            num_documents=self.documents,
            max_tokens=self.max_tokens,
            seed=self.seed,
            by_agent=self.by == "agent",
        )

    def parallel(self) -> "ParallelConfig":
        """The layout of the run."""
        from acc_megatron.config import load_parallel

        return load_parallel(None, self.overrides or [])


def _with_comparison(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of Comparison, its first parameter, before its own: Typer reads only signatures."""
    shared = inspect.signature(Comparison).parameters
    own = list(inspect.signature(verb).parameters.values())[1:]

    @functools.wraps(verb)
    def with_options(**options: Any) -> None:
        verb(Comparison(**{name: options.pop(name) for name in shared}), **options)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*shared.values(), *own)]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


@analyze.command(short_help="The attention distance of each head, by task.")
@_with_comparison
def attention(
    comparison: Comparison,
    long_range_tokens: Annotated[
        int | None, typer.Option(min=1, help="Default: a quarter of the task's longest document.")
    ] = None,
) -> None:
    """Mean attention distance, its histogram in 32 bins and long-range entropy, by layer, head and task.

    Runs in one process or under torchrun; KEY=VALUE sets parallel.tensor, parallel.context and parallel.expert.
    """
    from acc_megatron.analyze.attention import analyze_attention
    from acc_megatron.analyze.attention_page import publish_attention
    from acc_megatron.mesh.torchrun_environment import is_rank_zero

    result = analyze_attention(
        comparison.checkpoints(), comparison.tasks(), comparison.parallel(), long_range_tokens=long_range_tokens
    )
    if is_rank_zero():
        print_page(publish_attention(comparison.out, result), comparison.as_json)


@analyze.command(short_help="The experts that each task uses, and what changed.")
@_with_comparison
def routing(comparison: Comparison) -> None:
    """Expert frequency by layer and task, the most changed layers and experts, and the divergence between tasks.

    Runs in one process or under torchrun; KEY=VALUE sets parallel.tensor, parallel.context and parallel.expert.
    """
    from acc_megatron.analyze.routing import analyze_routing
    from acc_megatron.analyze.routing_page import publish_routing
    from acc_megatron.mesh.torchrun_environment import is_rank_zero

    result = analyze_routing(comparison.checkpoints(), comparison.tasks(), comparison.parallel())
    if is_rank_zero():
        print_page(publish_routing(comparison.out, result), comparison.as_json)


@analyze.command(short_help="How close training questions are to a benchmark's.")
def overlap(
    training: Annotated[list[Path], typer.Option(help="File of training rows, such as triples; repeatable.")],
    benchmark: Annotated[list[str], typer.Option(metavar="NAME=FILE", help="A benchmark's rows; repeatable.")],
    out: Out,
    embedder: Annotated[
        str | None,
        typer.Option(help="Folder of an embedding model for transformers, or a package that contains one."),
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="OpenAI-compatible URL of an embedding model.")] = None,
    model: Annotated[str, typer.Option(help="Its name at the endpoint.")] = "all-MiniLM-L6-v2",
    num_words: Annotated[int, typer.Option(help="Words in a shared run.")] = 13,
    similarity: Annotated[float, typer.Option(help="Cosine from which two questions count as the same.")] = 0.9,
    max_questions: Annotated[int, typer.Option(min=10, help="Questions of each side that are embedded.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the choice of questions.")] = 0,
    as_json: Json = False,
) -> None:
    """Shared n-grams; with an embedder also similar questions, separability (AUC) and a UMAP picture."""
    from acc_megatron.analyze.embeddings import endpoint_embedder, local_embedder
    from acc_megatron.analyze.overlap import analyze_overlap
    from acc_megatron.analyze.overlap_page import publish_overlap

    if embedder is not None and endpoint is not None:
        raise ConfigError("give --embedder or --endpoint, not both")
    benchmarks: dict[str, Path] = {}
    for text in benchmark:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise ConfigError(f"--benchmark {text!r} is not NAME=FILE")
        if name in benchmarks:
            raise ConfigError(f"--benchmark {name} is given twice")
        benchmarks[name] = Path(file)
    embed = local_embedder(embedder) if embedder else endpoint_embedder(endpoint, model) if endpoint else None
    result, vectors = analyze_overlap(
        training,
        benchmarks,
        embed=embed,
        num_words=num_words,
        similarity=similarity,
        max_questions=max_questions,
        seed=seed,
    )
    print_page(publish_overlap(out, result, vectors), as_json)
