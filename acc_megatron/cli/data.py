"""The verbs that make data and show it: trajectories to triples to a dataset folder, and reports."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import (
    Inputs,
    Json,
    MaxBad,
    Out,
    TokenizerName,
    need_documents,
    print_counts,
    print_result,
)
from acc_megatron.errors import ConfigError

verbs = typer.Typer()


@verbs.command(short_help="Agents' trajectories to triples.")
def compile(
    inputs: Inputs,
    out: Out,
    agent: Annotated[str, typer.Option(help="auto, search, swe or sql.")] = "auto",
    resources: Annotated[
        list[Path] | None, typer.Option(help="Instance rows, whole files, git repositories or databases; repeatable.")
    ] = None,
    budget_tokens: Annotated[int, typer.Option(min=1, help="Longest document; evidence is never cut.")] = 131_072,
    no_distractors: Annotated[bool, typer.Option("--no-distractors", help="Leave distractors out.")] = False,
    no_shuffle: Annotated[bool, typer.Option("--no-shuffle", help="Keep pieces in the order met.")] = False,
    arm: Annotated[str, typer.Option(help="acc, or agent-sft: each turn of the run, observations unlearned.")] = "acc",
    mask_observations: Annotated[float, typer.Option(help="Share of the evidence whose text is withheld.")] = 0.0,
    fill_tokens: Annotated[
        list[str] | None, typer.Option(help="Aim, as search=100000 or search=60000..100000; repeatable.")
    ] = None,
    dedupe_questions: Annotated[float | None, typer.Option(help="Drop questions so similar, 0 to 1.")] = None,
    dedupe_contexts: Annotated[float | None, typer.Option(help="Drop runs with evidence so similar.")] = None,
    decontaminate: Annotated[
        list[Path] | None, typer.Option(help="Evaluation questions to keep away from; repeatable.")
    ] = None,
    max_bad: MaxBad = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    table_format: Annotated[str, typer.Option(help="Tables as markdown or csv.")] = "markdown",
    tokenizer: TokenizerName = "qwen3",
    as_json: Json = False,
) -> None:
    """Trajectories of search, SWE and SQL agents to triples: question, shuffled evidence, reasoning, answer."""
    from acc_megatron.data_tools.compile import CompileSettings, compile_inputs
    from acc_megatron.data_tools.decontaminate import NearSettings
    from acc_megatron.data_tools.fast_encoder import on_fast_engine
    from acc_megatron.data_tools.fill import parse_targets
    from acc_megatron.data_tools.tokenizer import load_tokenizer

    settings = CompileSettings(
        budget_tokens=budget_tokens,
        distractors=not no_distractors,
        shuffle=not no_shuffle,
        seed=seed,
        table_format=table_format,  # type: ignore[arg-type]
        arm=arm,
        mask_observations=mask_observations,
        fill_tokens=parse_targets(fill_tokens or []),
    )
    near = NearSettings(questions=dedupe_questions, contexts=dedupe_contexts, evaluation=tuple(decontaminate or []))
    manifest = on_fast_engine(
        lambda fastest: compile_inputs(
            inputs,
            out,
            agent=agent,
            resources=resources or [],
            settings=settings,
            tokenizer=fastest,
            max_bad_share=max_bad,
            near=near,
        ),
        load_tokenizer(tokenizer),
    )
    print_counts(manifest, out, as_json)
    need_documents(manifest, out)


@verbs.command(short_help="Fill in a teacher's verified reasoning.")
def reason(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The output folder of compile.")],
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible base URL, as http://host:8000/v1.")],
    model: Annotated[str, typer.Option(help="The teacher's name at the endpoint.")],
    out: Out,
    resources: Annotated[list[Path] | None, typer.Option(help="Databases of the SQL questions; repeatable.")] = None,
    best_of: Annotated[int, typer.Option(min=1, help="Ask until an answer is verified, at most so often.")] = 1,
    swe_v2: Annotated[bool, typer.Option("--swe-v2", help="SWE: the teacher sees the patch; no filter.")] = False,
    swe_container: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Container image to test SWE patches in; {instance_id} is filled in."),
    ] = None,
    swe_test_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="What to run in it, as \"sh -c 'git apply - && pytest'\": it has the patch on its input, no network, "
            "and passes with 0. Needs docker or podman.",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature.")] = 0.6,
    max_output_tokens: Annotated[int, typer.Option(min=1, help="Longest reply.")] = 32_768,
    budget_tokens: Annotated[int, typer.Option(min=1, help="Longest document with its reasoning.")] = 131_072,
    max_requests: Annotated[int | None, typer.Option(min=0, help="Cap on requests, over all runs of a cache.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Cap on tokens, over all runs of a cache.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8,
    tries: Annotated[int, typer.Option(min=1, help="Sends of one request before it is given up.")] = 5,
    timeout_seconds: Annotated[float, typer.Option(help="For one whole request.")] = 600.0,
    cache: Annotated[Path | None, typer.Option(help="File of answers paid for. Default: OUT.cache.sqlite.")] = None,
    api_key_variable: Annotated[str, typer.Option(help="Environment variable with the key.")] = "ACC_API_KEY",
    tokenizer: TokenizerName = "qwen3",
    as_json: Json = False,
) -> None:
    """Reasoning from a teacher behind an endpoint; keeps what reaches the ground truth, pays for nothing twice."""
    from acc_megatron.data_tools.answer_cache import Budget
    from acc_megatron.data_tools.chat_client import ClientSettings
    from acc_megatron.data_tools.discover import find_resources
    from acc_megatron.data_tools.reason import ReasonSettings, reason_folder
    from acc_megatron.data_tools.tokenizer import load_tokenizer
    from acc_megatron.data_tools.verify_answer import Verifier, swe_test

    manifest = reason_folder(
        folder,
        out,
        ReasonSettings(
            best_of=best_of,
            temperature=temperature,
            max_output_tokens=max_output_tokens,
            swe_v2=swe_v2,
            budget_tokens=budget_tokens,
        ),
        ClientSettings(
            endpoint=endpoint,
            model=model,
            api_key=os.environ.get(api_key_variable, ""),
            concurrency=concurrency,
            tries=tries,
            timeout_seconds=timeout_seconds,
        ),
        budget=Budget(max_requests=max_requests, max_tokens=max_tokens),
        cache_path=cache or out.with_name(f"{out.name}.cache.sqlite"),
        verifier=Verifier(find_resources(resources or []), swe_test(swe_container, swe_test_command)),
        tokenizer=load_tokenizer(tokenizer),
    )
    print_counts(manifest, out, as_json)
    need_documents(manifest, out)


@verbs.command(short_help="Triples to Megatron indexed binaries.")
def convert(
    inputs: Inputs,
    out: Out,
    tokenizer: TokenizerName = "qwen3",
    template: Annotated[str, typer.Option(help="qwen3 or qwen3-thinking-2507.")] = "qwen3",
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longer documents are dropped with a reason, never cut.")
    ] = 131_072,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the bytes do not depend on it.")] = 1,
    max_bad: MaxBad = 0.01,
    engine: Annotated[
        str, typer.Option(help="gigatoken, tiktoken, or auto: gigatoken where it is installed. The bytes are the same.")
    ] = "auto",
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Make only part I (from 0) of N for a later merge; N alone takes I from SLURM_ARRAY_TASK_ID or "
            "JOB_COMPLETION_INDEX, 'array' takes both from Slurm.",
        ),
    ] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Make the shards on a Ray cluster.")] = None,
    as_json: Json = False,
) -> None:
    """Triples, or the published ACC JSONL, to Megatron indexed binaries with loss masks."""
    from acc_megatron.data_tools import convert as road
    from acc_megatron.data_tools.parts import parse_part

    settings = road.ConvertSettings(tokenizer=tokenizer, template=template, max_tokens=max_tokens)
    if shard is not None and ray is not None:
        raise ConfigError("--shard makes a part here and --ray makes all shards on a cluster: give one of them")
    if shard is not None:
        part = parse_part(shard, os.environ)
        made = road.convert_part(inputs, out, settings, part=part, num_workers=workers, engine=engine)
        print_result(made, as_json)
        return
    runner = None
    if ray is not None:
        from acc_megatron.data_tools.on_ray import on_ray

        runner = on_ray(ray)
    manifest = road.convert(
        inputs, out, settings, num_workers=workers, max_bad_share=max_bad, engine=engine, runner=runner
    )
    print_counts(manifest, out, as_json)


@verbs.command(short_help="Join the parts of a conversion.")
def merge(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="The --out that 'convert --shard' was given.")],
    max_bad: MaxBad = 0.01,
    as_json: Json = False,
) -> None:
    """Publish the dataset folder whose shards 'convert --shard' has made."""
    from acc_megatron.data_tools.merge import merge as run

    print_counts(run(out, max_bad_share=max_bad), out, as_json)


@verbs.command(short_help="Show one document coloured by its loss mask.")
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset folder.")],
    doc: Annotated[int, typer.Option(help="Document number, from 0.")] = 0,
    show_all: Annotated[bool, typer.Option("--all", help="Show the whole context, however long.")] = False,
    tokenizer: TokenizerName = "qwen3",
) -> None:
    """Show one document coloured by its loss mask, piece by piece; page by page on a terminal."""
    from rich.console import Console

    from acc_megatron.data_tools.inspect import inspect as run
    from acc_megatron.data_tools.tokenizer import load_tokenizer

    console = Console()
    os.environ.setdefault("LESS", "RFX")  # colours pass, and a page that fits the screen does not wait
    with console.pager(styles=True) if console.is_terminal else nullcontext():
        run(folder, doc, load_tokenizer(tokenizer), console, context_tokens=0 if show_all else 400)


@verbs.command(short_help="Prove a dataset folder whole.")
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset folder.")], as_json: Json = False
) -> None:
    """Prove a dataset folder whole; exits 1 and names what is wrong."""
    from acc_megatron.data_tools.verify import verify as run

    problems = run(folder)
    if as_json:
        print(json.dumps({"whole": not problems, "problems": problems}))
    else:
        print("\n".join(problems) or f"{folder} is whole")
    sys.exit(1 if problems else 0)


@verbs.command(short_help="Draw a dataset and a run on one page.")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset folder, a training run, or both in one.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file; by default DIR/report.html beside a run.")
    ] = None,
    compiled: Annotated[
        Path | None, typer.Option(help="The folder of the compile, for pass rates; by default 'triples' beside.")
    ] = None,
) -> None:
    """Draw lengths, shares and drops of a dataset, and the curves of a run, on one self-contained page."""
    from acc_megatron.observe.report import write_report

    print(write_report(folder, out, compiled))
