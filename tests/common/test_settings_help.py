"""Every setting is listed with type, default and meaning, and is found by the words of other trainers."""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import pytest

from acc_megatron.common.settings_help import describe, find
from acc_megatron.config import SYNONYMS, Config


@dataclass(frozen=True, kw_only=True)
class Inner:
    """Where the colour comes from."""

    # the comment stands
    # in two lines
    colour: Literal["red", "blue"] = "red"
    names: list[str] = field(default_factory=lambda: ["a"])
    share: float | None = None  # of all: 0 to 1


@dataclass(frozen=True, kw_only=True)
class Outer:
    """All settings."""

    count: int  # how many
    inner: Inner


def test_type_default_and_comment_of_each_setting_are_those_of_the_source() -> None:
    rows = [(one.key, one.type, one.default, one.meaning, one.section_meaning) for one in describe(Outer)]
    section = "Where the colour comes from."
    assert rows == [
        ("count", "whole number", "required", "how many", "All settings."),
        ("inner.colour", '"red" | "blue"', '"red"', "the comment stands in two lines", section),
        ("inner.names", "list of string", '["a"]', "", section),
        ("inner.share", "number | unset", "unset", "of all: 0 to 1", section),
    ]


def test_every_setting_of_a_recipe_is_listed() -> None:
    keys = [one.key for one in describe(Config)]
    num_sections = sum(dataclasses.is_dataclass(field.type) for field in dataclasses.fields(Config))
    sections = [field.type for field in dataclasses.fields(Config) if dataclasses.is_dataclass(field.type)]
    num_fields = sum(len(dataclasses.fields(section)) for section in sections)
    assert len(keys) == len(set(keys)) == num_fields + len(dataclasses.fields(Config)) - num_sections


def test_every_synonym_names_a_setting() -> None:
    assert set(SYNONYMS.values()) <= {one.key for one in describe(Config)}


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("optimizer.learning_rate", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("LR", "optimizer.learning_rate"),
        ("batch size", "train.global_batch_rows"),
        ("max_grad_norm", "optimizer.clip_grad_norm"),
        ("train.output_dir", "train.run_dir"),
        ("bf16", "train.precision"),
        ("learning_rat", "optimizer.learning_rate"),
        ("clip", "optimizer.clip_grad_norm"),
    ],
)
def test_a_setting_is_found_by_the_words_of_other_trainers(words: str, key: str) -> None:
    assert key in [one.key for one in find(describe(Config), words, SYNONYMS)]


def test_a_section_lists_its_settings_and_nonsense_finds_nothing() -> None:
    settings = describe(Config)
    found = find(settings, "data", SYNONYMS)
    assert found and all(one.key.startswith("data.") for one in found)
    assert find(settings, "xyzzy", SYNONYMS) == []
