"""Options and output that several commands share."""

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from acc_megatron.errors import DataError

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT...",
        help="Files, globs, folders, - for standard input, or URLs: hf://datasets/ORG/NAME, s3://, gs://.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Output folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
MaxBad = Annotated[float, typer.Option(min=0.0, max=1.0, help="Largest tolerated share of unreadable rows, 0 to 1.")]
TokenizerName = Annotated[
    str, typer.Option("--tokenizer", help="qwen3, a qwen.tiktoken file, or a folder with tokenizer.json.")
]
RequireVerdict = Annotated[
    bool, typer.Option("--require-verdict", help="Drop runs if no row or report says whether they succeeded.")
]
AllowEmptyReasoning = Annotated[
    bool,
    typer.Option(
        "--allow-empty-reasoning", help="Keep and count documents without reasoning; default: they are dropped."
    ),
]
Workers = Annotated[int, typer.Option(min=1, help="Number of processes. The output does not depend on it.")]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        help="Make only part I (from 0) of N, for a later 'merge'. N takes I from SLURM_ARRAY_TASK_ID or "
        "JOB_COMPLETION_INDEX; 'array' takes I and N from Slurm.",
    ),
]
Recipe = Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML recipe; 'acc-megatron config' lists its keys.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE...]", help="Settings to change, such as train.epochs=2.")
]


def print_counts(manifest: Mapping[str, Any], out: Path, as_json: bool) -> None:
    """Print the documents in, out and dropped, by reason."""
    keys = ("documents_in", "documents_out", "dropped", "tokens", "supervised_tokens")
    counts = {key: manifest[key] for key in keys}
    pass_rates = {agent: found["pass_rate"] for agent, found in manifest.get("by_agent", {}).items()}
    unjudged = {agent: found.get("unjudged", 0) for agent, found in manifest.get("by_agent", {}).items()}
    if as_json:
        by_agent = {"pass_rates": pass_rates, "unjudged": unjudged} if pass_rates else {}
        print(json.dumps(counts | {"out": str(out)} | by_agent))
        return
    num_dropped = sum(counts["dropped"].values())
    print(f"{counts['documents_in']:,} documents in = {counts['documents_out']:,} out + {num_dropped:,} dropped")
    for reason, number in counts["dropped"].items():
        num_tokens = manifest.get("dropped_tokens", {}).get(reason, 0)
        print(f"  dropped {number:>6,}  {reason}{f' ({num_tokens:,} tokens)' if num_tokens else ''}")
    for agent, rate in pass_rates.items():
        if rate is not None:
            print(f"  {agent}: {rate:.1%} of the judged answers match the ground truth")
    for agent, number in unjudged.items():
        if number:
            print(f"  {agent}: nobody judged {number:,} runs; --require-verdict drops such runs")
    for agent, found in manifest.get("by_agent", {}).items():
        if found.get("empty_reasoning"):
            print(f"  {agent}: {found['empty_reasoning']:,} documents have no reasoning; 'reason' can add a teacher's")
        if found.get("without_triple"):
            print(f"  {agent}: {found['without_triple']:,} documents have no triple, so the arm acc lacks them")
    share = counts["supervised_tokens"] / max(1, counts["tokens"])
    print(f"{counts['tokens']:,} tokens, {counts['supervised_tokens']:,} supervised ({share:.2%}), in {out}")


def is_replaced(out: Path) -> bool:
    """Whether `out` has contents, which a successful verb replaces."""
    return out.is_dir() and any(out.iterdir())


def say_next(*words: object, when: str = "", replaced: Path | None = None) -> None:
    """Tell on stderr what a successful verb replaced, and the command that comes next; `when` says in which case."""
    if replaced is not None:
        print(f"replaced the earlier output in {replaced}", file=sys.stderr)
    command = shlex.join(["acc-megatron", *map(str, words)])
    print(f"Next{', ' if when else ''}{when}: {command}", file=sys.stderr)


def need_documents(manifest: Mapping[str, Any], out: Path) -> None:
    """Raise DataError when every row was dropped: no later step can use the folder."""
    if not manifest["documents_out"]:
        raise DataError(
            f"all {manifest['documents_in']:,} documents were dropped; {out}/quarantine.jsonl has the reasons"
        )


def print_page(page: Path, as_json: bool) -> None:
    """Print the path of a page that was written."""
    print(json.dumps({"page": str(page)}) if as_json else page)


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """Print one JSON object, or one line for each key that has a value."""
    lines = (f"{key}: {value}" for key, value in result.items() if value is not None)
    print(json.dumps(result) if as_json else "\n".join(lines))
