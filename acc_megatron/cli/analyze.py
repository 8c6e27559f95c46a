"""The group `acc-megatron analyze`: what training changed inside a model."""

from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import Out, Overrides

analyze = typer.Typer(no_args_is_help=True, help="What training changed inside a model.")

Before = Annotated[Path, typer.Option(help="Checkpoint or run folder before training.")]
After = Annotated[Path | None, typer.Option(help="Checkpoint or run folder after training.")]
Control = Annotated[Path | None, typer.Option(help="One trained on as many tokens of other data.")]
Tasks = Annotated[list[str], typer.Option("--task", metavar="NAME=DIR", help="A dataset folder; repeatable.")]
Documents = Annotated[int, typer.Option(min=1, help="Documents of each task.")]
MaxTokens = Annotated[int, typer.Option(help="Longer documents are left out, and counted.")]
Seed = Annotated[int, typer.Option(help="Seed of the choice of documents.")]


@analyze.command(short_help="How far each head looks, by task.")
def attention(
    before: Before,
    out: Out,
    task: Tasks,
    overrides: Overrides = None,
    after: After = None,
    control: Control = None,
    documents: Documents = 8,
    max_tokens: MaxTokens = 131_072,
    long_range_tokens: Annotated[
        int | None, typer.Option(min=1, help="Default: a quarter of the task's longest document.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Mean attention distance, its histogram in 32 bins and long-range entropy, by layer, head and task.

    Runs alone or under torchrun; KEY=VALUE sets parallel.tensor, parallel.context and parallel.expert.
    """
    from acc_megatron.analyze.attention import analyze_attention
    from acc_megatron.analyze.attention_page import attention_body
    from acc_megatron.analyze.page import publish
    from acc_megatron.analyze.tasks import open_tasks
    from acc_megatron.config import load_parallel
    from acc_megatron.ranks import is_rank_zero

    tasks = open_tasks(task, num_documents=documents, max_tokens=max_tokens, seed=seed)
    parallel = load_parallel(None, overrides or [])
    result = analyze_attention(_named(before, after, control), tasks, parallel, long_range_tokens=long_range_tokens)
    if is_rank_zero():
        print(publish(out, "attention", result, attention_body(result)))


@analyze.command(short_help="Which experts each task uses, and what changed.")
def routing(
    before: Before,
    out: Out,
    task: Tasks,
    overrides: Overrides = None,
    after: After = None,
    control: Control = None,
    documents: Documents = 8,
    max_tokens: MaxTokens = 131_072,
    seed: Seed = 0,
) -> None:
    """Expert frequency by layer and task, the most changed layers and experts, and the divergence between tasks.

    Runs alone or under torchrun; KEY=VALUE sets parallel.tensor, parallel.context and parallel.expert.
    """
    from acc_megatron.analyze.page import publish
    from acc_megatron.analyze.routing import analyze_routing
    from acc_megatron.analyze.routing_page import routing_body
    from acc_megatron.analyze.tasks import open_tasks
    from acc_megatron.config import load_parallel
    from acc_megatron.ranks import is_rank_zero

    tasks = open_tasks(task, num_documents=documents, max_tokens=max_tokens, seed=seed)
    result = analyze_routing(_named(before, after, control), tasks, load_parallel(None, overrides or []))
    if is_rank_zero():
        print(publish(out, "routing", result, routing_body(result)))


def _named(before: Path, after: Path | None, control: Path | None) -> dict[str, Path]:
    named = {"before": before, "after": after, "control": control}
    return {name: path for name, path in named.items() if path is not None}


@analyze.command(short_help="How near training questions come to a benchmark's.")
def overlap(
    training: Annotated[list[Path], typer.Option(help="File of training rows, such as triples; repeatable.")],
    benchmark: Annotated[list[str], typer.Option(metavar="NAME=FILE", help="A benchmark's rows; repeatable.")],
    out: Out,
    embedder: Annotated[
        str | None,
        typer.Option(help="Folder of an embedding model for transformers, or a package that holds one."),
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="OpenAI-compatible URL of an embedding model.")] = None,
    model: Annotated[str, typer.Option(help="Its name at the endpoint.")] = "all-MiniLM-L6-v2",
    num_words: Annotated[int, typer.Option(help="Words in a shared run.")] = 13,
    similarity: Annotated[float, typer.Option(help="Cosine from which questions count as the same.")] = 0.9,
    max_questions: Annotated[int, typer.Option(min=10, help="Questions of a side that are embedded.")] = 2000,
    seed: Seed = 0,
) -> None:
    """Shared n-grams; with an embedder also similar questions, separability (AUC) and a UMAP picture."""
    from acc_megatron.analyze.embeddings import endpoint_embedder, local_embedder
    from acc_megatron.analyze.overlap import analyze_overlap
    from acc_megatron.analyze.overlap_page import publish_overlap
    from acc_megatron.errors import ConfigError

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
    print(publish_overlap(out, result, vectors))
