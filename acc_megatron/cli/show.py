"""The commands that show and verify data: a document, a dataset folder, a report."""

import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from acc_megatron.cli.options import Json, TokenizerName, print_page, say_next
from acc_megatron.errors import DataError

verbs = typer.Typer()


@verbs.command(short_help="Show a document coloured by its loss mask.")
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset folder.")],
    doc: Annotated[int, typer.Option(help="Document number, from 0.")] = 0,
    show_all: Annotated[bool, typer.Option("--all", help="Show the complete context.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the complete document as a page.")] = None,
    tokenizer: TokenizerName = "qwen3",
    as_json: Json = False,
) -> None:
    """Show a document piece by piece, coloured by its loss mask; on a terminal, in a pager."""
    from rich.console import Console

    from acc_megatron.data_tools.convert.inspect import document_json
    from acc_megatron.data_tools.convert.inspect import inspect as run
    from acc_megatron.data_tools.tokenizer.qwen_bpe import load_tokenizer

    if html is not None:
        from acc_megatron.data_tools.convert.inspect_page import write_inspect_page

        write_inspect_page(folder, doc, load_tokenizer(tokenizer), html)
        print_page(html, as_json)
        return
    if as_json:
        print(json.dumps(document_json(folder, doc, load_tokenizer(tokenizer))))
        return
    console = Console()
    os.environ.setdefault("LESS", "RFX")  # keep colours, and exit at once if the document fits on the screen
    with console.pager(styles=True) if console.is_terminal else nullcontext():
        run(folder, doc, load_tokenizer(tokenizer), console, context_tokens=0 if show_all else 400)


@verbs.command(short_help="Show figures of triples or of a dataset folder.")
def stats(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An output of compile, reason or convert.")],
    agent: Annotated[str | None, typer.Option(help="Only documents of this agent.")] = None,
    min_tokens: Annotated[int | None, typer.Option(min=0, help="Only documents of at least this length.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=0, help="Only documents of at most this length.")] = None,
    min_evidence: Annotated[
        int | None, typer.Option(min=0, help="Only documents with at least this number of evidence pieces.")
    ] = None,
    max_evidence: Annotated[
        int | None, typer.Option(min=0, help="Only documents with at most this number of them.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Only rows that were dropped for this reason.")] = None,
    as_json: Json = False,
) -> None:
    """Show documents, lengths and evidence by agent, and dropped rows by reason."""
    from acc_megatron.data_tools.statistics import Filters, statistics, table_lines

    filters = Filters(
        agent=agent,
        min_tokens=min_tokens,
        max_tokens=max_tokens,
        min_evidence=min_evidence,
        max_evidence=max_evidence,
        reason=reason,
    )
    found = statistics(folder, filters)
    print(json.dumps(found) if as_json else "\n".join(table_lines(found)))


@verbs.command(short_help="Verify a dataset folder.")
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset folder.")], as_json: Json = False
) -> None:
    """Verify every byte and every count of a dataset folder; lists the problems and exits 1 if there are any."""
    from acc_megatron.data_tools.convert.verify import verify as run

    if not folder.is_dir():
        raise DataError(f"no dataset in {folder}: the folder does not exist")
    problems = run(folder)
    if as_json:
        print(json.dumps({"ok": not problems, "problems": problems}))
    else:
        print("\n".join(problems) or f"{folder}: OK")
    if not problems:
        say_next("train", "CONFIG", f"data.path={folder}")
    sys.exit(1 if problems else 0)


@verbs.command(short_help="Write an HTML report of data or a run, or compare runs.")
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...",
            help="A dataset folder, an output of compile, a training run, or a folder of all of them; or several "
            "runs to compare.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="HTML file. Default: report.html or comparison.html in the (first) run."),
    ] = None,
    compiled: Annotated[
        Path | None,
        typer.Option(help="The output folder of 'compile', for pass rates. Default: 'triples' next to DIR."),
    ] = None,
    as_text: Annotated[bool, typer.Option("--text", help="Print the report instead of writing a page.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep the report of a run up to date until Ctrl-C; the page reloads itself.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write one self-contained page: drops, lengths and shares of data, curves of a run, or several runs compared."""
    from acc_megatron.observe.report_command import ReportRequest, run_report

    run_report(ReportRequest(folders, out=out, compiled=compiled, as_text=as_text, as_json=as_json), watch=watch)
