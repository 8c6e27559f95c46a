"""Makes the reference pages at build time: every setting from its dataclass, every command from its `--help`."""

import dataclasses
import sys
import typing
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parents[2]))

from acc_megatron.cli.app import app
from acc_megatron.common.settings_help import Setting, describe
from acc_megatron.config import SYNONYMS, Config
from acc_megatron.launch.experiment import Experiment
from acc_megatron.launch.targets.registry import TARGETS

HELP_COLUMNS = 88


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add settings.md, experiment_settings.md and commands.md."""
    pages = {"settings.md": recipe_page(), "experiment_settings.md": experiment_page(), "commands.md": command_page()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def recipe_page() -> str:
    """The settings of a recipe, a table for each section, and the names that other trainers use."""
    names: dict[str, list[str]] = {}
    for synonym, key in SYNONYMS.items():
        names.setdefault(key, []).append(synonym)
    lines = [
        "# Settings of a recipe",
        "",
        "A recipe is one TOML file. `section.key=value` after a command overrides a key. This page is made from the "
        "code when the manual is built; `acc-megatron config` prints it, `acc-megatron config WORDS` searches it.",
        "",
        *_sections(all_settings(Config)),
        "## Names in other trainers",
        "",
        "| elsewhere | here |",
        "|---|---|",
        *(f"| {', '.join(words)} | `{key}` |" for key, words in names.items()),
    ]
    return "\n".join(lines) + "\n"


def experiment_page() -> str:
    """The settings of an experiment file: its jobs, and a section for each launch target."""
    lines = [
        "# Settings of an experiment",
        "",
        "An experiment is one TOML file of jobs for `acc-megatron launch`. A job without a section does not run. "
        "[examples/experiment.toml](../examples/experiment.toml) is an example. This page is made from the code.",
        "",
        *_sections(all_settings(Experiment)),
    ]
    for target in TARGETS.values():
        lines += _sections(describe(target.settings, f"{target.name}.")) if target.settings else []
    return "\n".join(lines) + "\n"


def command_page() -> str:
    """The help of every command, in the order of the pipeline."""
    lines = [
        "# Commands",
        "",
        "Results go to stdout and progress to stderr. This page is the help of every command.",
        "",
    ]
    for level, name, text in _helps(typer.main.get_command(app), "acc-megatron", 2):
        lines += [f"{'#' * level} {name}", "", "```text", text.rstrip(), "```", ""]
    return "\n".join(lines)


def _helps(command: Any, name: str, level: int) -> Iterator[tuple[int, str, str]]:
    context = command.make_context(name, [], resilient_parsing=True, terminal_width=HELP_COLUMNS)
    yield level, name, command.get_help(context)
    for word, child in getattr(command, "commands", {}).items():
        yield from _helps(child, f"{name} {word}", level + (level > 2))


def all_settings(cls: type, prefix: str = "") -> list[Setting]:
    """The settings of a dataclass, with those of its optional sections, such as [model.rope_scaling]."""
    optional = dict(_optional_sections(cls, prefix))
    found = [one for one in describe(cls, prefix) if one.key not in optional]
    for key, section in optional.items():
        found += describe(section, f"{key}.")
    return found


def _optional_sections(cls: type, prefix: str) -> Iterator[tuple[str, type]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        key = f"{prefix}{field.name}"
        for kind in (hints[field.name], *typing.get_args(hints[field.name])):
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                if kind is not hints[field.name]:
                    yield key, kind
                yield from _optional_sections(kind, f"{key}.")


def _sections(settings: list[Setting]) -> list[str]:
    """A heading and a table for each section."""
    lines = []
    for section, group in groupby(settings, key=lambda one: one.key.rpartition(".")[0]):
        rows = list(group)
        lines += [f"## [{section}]" if section else "## Top level", "", rows[0].section_meaning, ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for one in rows:
            cells = (f"`{one.key.rpartition('.')[2]}`", _cell(one.type), f"`{one.default}`", _cell(one.meaning))
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
