"""The verb config: every setting of a training recipe."""

import dataclasses
import json
from typing import Annotated

import typer

from acc_megatron.cli.options import Json
from acc_megatron.errors import ConfigError

verbs = typer.Typer()


@verbs.command(short_help="List the settings of a recipe, or explain one.")
def config(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY...]", help="A key, a section, or other words for it: lr, bf16, batch size."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List every setting of a training recipe with its type, default and meaning."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from acc_megatron.common.settings_help import describe, find
    from acc_megatron.config import SYNONYMS, Config

    settings, text = describe(Config), " ".join(words or [])
    if text:
        settings = find(settings, text, SYNONYMS)
    if not settings:
        raise ConfigError(f"no setting matches {text!r}: 'acc-megatron config' lists all of them")
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in settings]))
        return
    console = Console(highlight=False)
    section = None
    for one in settings:
        head, _, name = one.key.rpartition(".")
        if head != section:
            console.print(Text(f"[{head}]" if head else "at the top of the file", style="bold"))
            console.print(Text(one.section_meaning, style="italic"))
            section = head
        console.print(Text(f"  {name} = {one.default}   ({one.type})"), soft_wrap=True)
        if one.meaning:
            console.print(Padding(Text(one.meaning), (0, 0, 0, 6), expand=False))
