"""Options and output that several verbs share."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from acc_megatron.errors import DataError

Inputs = Annotated[
    list[Path], typer.Argument(metavar="INPUT...", help="Files, globs, folders, or - for standard input.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
MaxBad = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of unreadable rows that is tolerated.")]
TokenizerName = Annotated[
    str, typer.Option("--tokenizer", help="qwen3, a qwen.tiktoken file, or a folder with tokenizer.json.")
]
Recipe = Annotated[Path, typer.Argument(metavar="CONFIG", help="A TOML recipe.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE...]")]


def print_counts(manifest: dict[str, Any], out: Path, as_json: bool) -> None:
    """What went in, what came out and what was dropped, by reason."""
    keys = ("documents_in", "documents_out", "dropped", "tokens", "supervised_tokens")
    counts = {key: manifest[key] for key in keys}
    pass_rates = {agent: found["pass_rate"] for agent, found in manifest.get("by_agent", {}).items()}
    if as_json:
        print(json.dumps(counts | {"out": str(out)} | ({"pass_rates": pass_rates} if pass_rates else {})))
        return
    num_dropped = sum(counts["dropped"].values())
    print(f"{counts['documents_in']:,} documents in = {counts['documents_out']:,} out + {num_dropped:,} dropped")
    for reason, number in counts["dropped"].items():
        num_tokens = manifest.get("dropped_tokens", {}).get(reason, 0)
        print(f"  dropped {number:>6,}  {reason}{f' ({num_tokens:,} tokens)' if num_tokens else ''}")
    for agent, rate in pass_rates.items():
        if rate is not None:
            print(f"  {agent}: {rate:.1%} of the judged answers reach the ground truth")
    share = counts["supervised_tokens"] / max(1, counts["tokens"])
    print(f"{counts['tokens']:,} tokens, {counts['supervised_tokens']:,} supervised ({share:.2%}), in {out}")


def need_documents(manifest: dict[str, Any], out: Path) -> None:
    """DataError where every row was dropped: nothing further on the road can use the folder."""
    if not manifest["documents_out"]:
        raise DataError(f"no document is left of {manifest['documents_in']:,}; {out}/quarantine.jsonl says why of each")


def print_result(result: dict[str, Any], as_json: bool) -> None:
    """One JSON object, or a line a key."""
    print(json.dumps(result) if as_json else "\n".join(f"{key}: {value}" for key, value in result.items()))
