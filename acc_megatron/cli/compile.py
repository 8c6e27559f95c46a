"""The command that makes triples of trajectories."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from acc_megatron.cli.options import (
    AllowEmptyReasoning,
    Inputs,
    Json,
    MaxBad,
    Out,
    RequireVerdict,
    Shard,
    TokenizerName,
    Workers,
    is_replaced,
    need_documents,
    print_counts,
    print_result,
    say_next,
)
from acc_megatron.errors import ConfigError

if TYPE_CHECKING:
    from acc_megatron.data_tools.compile.judge import JudgeSettings

verbs = typer.Typer()

MaskObservations = Annotated[
    float, typer.Option(help="Share of the evidence, 0 to 1, whose text is replaced by a notice.")
]
FillTokens = Annotated[
    list[str] | None,
    typer.Option(
        help="Fill documents of an agent kind with distractors up to this many tokens: search=100000 or "
        "search=60000..100000. Repeatable."
    ),
]
DedupeContexts = Annotated[
    float | None,
    typer.Option(help="Drop a run if the similarity of its evidence to an earlier run's is at least this, 0 to 1."),
]
Distractors = Annotated[
    str,
    typer.Option(
        help="Distractors of search runs. found: pages that were only found. opened: pages that were opened and not "
        "cited, and only cited pages are evidence. all: both."
    ),
]
Decontaminate = Annotated[
    list[Path] | None,
    typer.Option(help="File of evaluation questions: drop questions that resemble one. Repeatable."),
]
JudgeEndpoint = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Endpoint of a model that judges the answers which the rule leaves open."),
]
JudgeModel = Annotated[str | None, typer.Option(metavar="NAME", help="Name of the judge at the endpoint.")]
Messages = Annotated[
    bool, typer.Option("--messages", help="Also write messages.jsonl, on which TRL, axolotl and ms-swift can train.")
]


@verbs.command(short_help="Compile trajectories of agents into triples.")
def compile(
    inputs: Inputs,
    out: Out,
    agent: Annotated[str, typer.Option(help="Kind of agent, or auto; an unknown name lists all kinds.")] = "auto",
    resources: Annotated[
        list[Path] | None, typer.Option(help="Instance rows, source files, git repositories or databases. Repeatable.")
    ] = None,
    budget_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of the longest document. Evidence is never cut.")
    ] = 131_072,
    no_distractors: Annotated[bool, typer.Option("--no-distractors", help="Compile without distractors.")] = False,
    distractors: Distractors = "found",
    no_shuffle: Annotated[
        bool, typer.Option("--no-shuffle", help="Keep the order in which the agent met the pieces.")
    ] = False,
    arm: Annotated[
        str, typer.Option(help="acc, or agent-sft: the turns of the run, with observations masked from the loss.")
    ] = "acc",
    mask_observations: MaskObservations = 0.0,
    fill_tokens: FillTokens = None,
    dedupe_questions: Annotated[
        float | None, typer.Option(help="Drop a question if its similarity to an earlier one is at least this, 0 to 1.")
    ] = None,
    dedupe_contexts: DedupeContexts = None,
    decontaminate: Decontaminate = None,
    require_verdict: RequireVerdict = False,
    allow_empty_reasoning: AllowEmptyReasoning = False,
    judge_endpoint: JudgeEndpoint = None,
    judge_model: JudgeModel = None,
    workers: Workers = 1,
    shard: Shard = None,
    max_bad: MaxBad = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of all random choices.")] = 0,
    table_format: Annotated[str, typer.Option(help="Format of tables: markdown or csv.")] = "markdown",
    messages: Messages = False,
    tokenizer: TokenizerName = "qwen3",
    as_json: Json = False,
) -> None:
    """Compile trajectories of agents into triples: question, shuffled evidence, verified reasoning and answer."""
    from acc_megatron.data_tools.compile.compile import compile_inputs, compile_part, prepare
    from acc_megatron.data_tools.compile.distractor_fill import parse_targets
    from acc_megatron.data_tools.compile.near_duplicates import NearSettings
    from acc_megatron.data_tools.compile.settings import CompileSettings
    from acc_megatron.data_tools.sharding.job_part import parse_part
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer

    settings = CompileSettings(
        budget_tokens=budget_tokens,
        distractors=not no_distractors,
        distractor_tier=distractors,
        shuffle=not no_shuffle,
        seed=seed,
        table_format=table_format,  # type: ignore[arg-type]
        arm=arm,
        mask_observations=mask_observations,
        fill_tokens=parse_targets(fill_tokens or []),
        require_verdict=require_verdict,
        allow_empty_reasoning=allow_empty_reasoning,
    )
    near = NearSettings(questions=dedupe_questions, contexts=dedupe_contexts, evaluation=tuple(decontaminate or []))
    what: dict[str, Any] = {
        "agent": agent,
        "resources": resources or [],
        "settings": settings,
        "tokenizer": load_tokenizer(tokenizer),
        "near": near,
        "with_messages": messages,
        "judge": _judge_settings(judge_endpoint, judge_model, out),
    }
    if shard is not None:
        plan, part = prepare(inputs, out, **what), parse_part(shard, os.environ)
        print_result(compile_part(plan, part, num_workers=workers), as_json)
        say_next("merge", out, when="after all parts")
        return
    replaced = out if is_replaced(out) else None
    manifest = compile_inputs(inputs, out, max_bad_share=max_bad, num_workers=workers, **what)
    print_counts(manifest, out, as_json)
    need_documents(manifest, out)
    say_next("convert", out, "--out", "DATASET", replaced=replaced)


def _judge_settings(endpoint: str | None, model: str | None, out: Path) -> "JudgeSettings | None":
    """The judge, whose replies are kept next to the output; None without an endpoint. Raises ConfigError."""
    from acc_megatron.common.chat_client import ClientSettings
    from acc_megatron.data_tools.compile.judge import JudgeSettings

    if (endpoint is None) != (model is None):
        raise ConfigError("--judge-endpoint and --judge-model belong together: give both or none")
    if endpoint is None or model is None:
        return None
    client = ClientSettings(endpoint=endpoint, model=model, api_key=os.environ.get("ACC_API_KEY", ""))
    return JudgeSettings(client=client, cache=out.with_name(f"{out.name}.judge.sqlite"))
