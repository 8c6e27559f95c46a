"""The command that adds the reasoning of a teacher model."""

import os
from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import (
    Json,
    Out,
    TokenizerName,
    need_documents,
    print_counts,
    say_next,
)

verbs = typer.Typer()


@verbs.command(short_help="Add verified reasoning from a teacher model.")
def reason(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The output folder of 'compile'.")],
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible base URL, such as http://host:8000/v1.")],
    model: Annotated[str, typer.Option(help="Name of the teacher model at the endpoint.")],
    out: Out,
    resources: Annotated[list[Path] | None, typer.Option(help="Databases of the SQL questions. Repeatable.")] = None,
    best_of: Annotated[int, typer.Option(min=1, help="Ask at most this many times, until an answer is verified.")] = 1,
    swe_v2: Annotated[bool, typer.Option("--swe-v2", help="Give the teacher SWE patches; keep all answers.")] = False,
    swe_container: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Container image to test SWE patches in; {instance_id} is replaced."),
    ] = None,
    swe_test_command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Command to run in the container, such as \"sh -c 'git apply - && pytest'\": it reads the patch from "
            "standard input, has no network, and exits 0 if the patch is right. Requires docker or podman.",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature.")] = 0.6,
    max_output_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the longest reply.")] = 32_768,
    budget_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of the longest document, reasoning included.")
    ] = 131_072,
    max_requests: Annotated[
        int | None, typer.Option(min=0, help="Most requests that all runs with one cache may send.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=0, help="Most tokens that all runs with one cache may spend.")
    ] = None,
    price_in: Annotated[float | None, typer.Option(min=0.0, help="Price of a million input tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0.0, help="Price of a million output tokens.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight at the same time.")] = 8,
    tries: Annotated[int, typer.Option(min=1, help="How often a failing request is sent before it is given up.")] = 5,
    timeout_seconds: Annotated[float, typer.Option(help="Time limit of one request, in seconds.")] = 600.0,
    cache: Annotated[Path | None, typer.Option(help="File that keeps all answers. Default: OUT.cache.sqlite.")] = None,
    api_key_variable: Annotated[str, typer.Option(help="Environment variable with the API key.")] = "ACC_API_KEY",
    tokenizer: TokenizerName = "qwen3",
    as_json: Json = False,
) -> None:
    """Ask a teacher model for reasoning, and keep answers that match the ground truth. No request is paid for twice."""
    from acc_megatron.common.answer_cache import Budget
    from acc_megatron.common.chat_client import ClientSettings
    from acc_megatron.data_tools.compile.inputs import find_resources
    from acc_megatron.data_tools.reason.prices import Prices
    from acc_megatron.data_tools.reason.reason import ReasonSettings, reason_folder
    from acc_megatron.data_tools.sources.container_test import container_test
    from acc_megatron.data_tools.sources.verify_answer import Verifier
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer

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
        verifier=Verifier(find_resources(resources or []), container_test(swe_container, swe_test_command)),
        tokenizer=load_tokenizer(tokenizer),
        prices=Prices(input=price_in, output=price_out),
    )
    print_counts(manifest, out, as_json)
    need_documents(manifest, out)
    say_next("convert", out, "--out", "DATASET")
