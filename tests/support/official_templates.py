"""The official chat templates of Qwen3 models, rendered as transformers renders them."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = Path(__file__).parents[1] / "data_tools" / "convert" / "templates" / "official"
# what the current template of Qwen3-Coder changes in the first published one
CODER_CHANGES = (
    (r"\n\nYou have access", r"\n\n# Tools\n\nYou have access"),
    (
        "json_dict[json_key] is mapping %}",
        "json_dict[json_key] is mapping or (json_dict[json_key] is sequence and json_dict[json_key] is not string) %}",
    ),
    (
        "if args_value is mapping else",
        "if args_value is mapping or (args_value is sequence and args_value is not string) else",
    ),
)


def official_template(name: str) -> str:
    """The Jinja text of a template."""
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    for old, new in CODER_CHANGES if name == "qwen3-coder" else ():
        assert old in source
        source = source.replace(old, new)
    return source


def official_text(
    name: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None = None, *, prompt: bool = False
) -> str:
    """The text of OpenAI messages; with `prompt`, up to the start of the next reply."""
    given = {"tools": tools} if tools else {}
    return _compiled(name).render(messages=messages, add_generation_prompt=prompt, **given)


@lru_cache
def _compiled(name: str) -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(official_template(name))
