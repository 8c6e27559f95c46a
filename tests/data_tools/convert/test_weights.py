"""Weights repeat or leave out rows of an input; the counts, `verify` and `merge` hold for them."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from acc_megatron.cli.convert import verbs
from acc_megatron.data_tools.convert.convert import ConvertSettings, convert, convert_part
from acc_megatron.data_tools.convert.dataset_folder import open_dataset
from acc_megatron.data_tools.convert.merge import merge
from acc_megatron.data_tools.convert.shards import num_copies
from acc_megatron.data_tools.convert.verify import verify
from acc_megatron.errors import ConfigError, TooManyBadRows

Rows = list[dict[str, Any]]
Writer = Callable[[Path, list[Any]], Path]
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def test_the_mean_number_of_copies_is_the_weight() -> None:
    for weight in (0.3, 1.0, 2.5):
        counts = Counter(num_copies(line, weight) for line in range(1, 10_001))
        assert set(counts) <= {int(weight), int(weight) + 1}
        mean = sum(copies * lines for copies, lines in counts.items()) / 10_000
        assert abs(mean - weight) < 0.02
    assert all(num_copies(line, 0.3) <= num_copies(line, 0.6) for line in range(1_000))


@pytest.mark.usefixtures("small_shards")
def test_inputs_with_weights_are_mixed_counted_and_verified(
    tmp_path: Path, triple_rows: Rows, write_rows: Writer
) -> None:
    triples = write_rows(tmp_path / "triples.jsonl", triple_rows[:20])
    chats = write_rows(tmp_path / "chats.jsonl", [CHAT | {"id": f"chat-{number}"} for number in range(40)])
    out, weights = tmp_path / "out", {triples: 2.5, chats: 0.25}
    manifest = convert([triples, chats], out, ConvertSettings(), weights=weights)
    assert verify(out) == []
    expected = Counter(
        {f"run-{line - 1}": num_copies(line, 2.5) for line in range(1, 21)}
        | {f"chat-{line - 1}": num_copies(line, 0.25) for line in range(1, 41)}
    )
    assert Counter(open_dataset(out).samples["id"].to_pylist()) == +expected
    num_left_out = sum(num_copies(line, 0.25) == 0 for line in range(1, 41))
    assert 20 < num_left_out < 40 and manifest["dropped"] == {"left_out_by_weight": num_left_out}
    assert manifest["documents_in"] == expected.total() + num_left_out
    assert [(entry["name"], entry["weight"]) for entry in manifest["inputs"]] == [
        ("triples.jsonl", 2.5),
        ("chats.jsonl", 0.25),
    ]
    refused = json.loads((out / "quarantine.jsonl").read_text().splitlines()[0])
    assert (refused["stage"], refused["detail"]) == ("weight", "the weight of its input is 0.25")
    for part in range(2):
        convert_part([triples, chats], tmp_path / "parts", ConvertSettings(), part=(part, 2), weights=weights)
    assert merge(tmp_path / "parts")["fingerprint"] == manifest["fingerprint"]
    plain = convert([triples, chats], tmp_path / "plain", ConvertSettings())
    assert plain["documents_out"] == 60 and "weight" not in plain["inputs"][0]


def test_rows_left_out_by_weight_are_not_bad_rows(tmp_path: Path, write_rows: Writer) -> None:
    source = write_rows(tmp_path / "chats.jsonl", [CHAT] * 50 + ["{broken"])
    with pytest.raises(TooManyBadRows, match="1 of 51 rows"):
        convert([source], tmp_path / "out", ConvertSettings(), weights={source: 0.5})


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf"), 101.0])
def test_impossible_weights_and_unknown_inputs_are_refused(weight: float, tmp_path: Path, write_rows: Writer) -> None:
    source = write_rows(tmp_path / "chats.jsonl", [CHAT])
    with pytest.raises(ConfigError, match="must be above 0 and at most 100"):
        convert([source], tmp_path / "out", ConvertSettings(), weights={source: weight})
    with pytest.raises(ConfigError, match=r"--weight names other\.jsonl, not an input; the inputs are .*chats"):
        convert([source], tmp_path / "out", ConvertSettings(), weights={Path("other.jsonl"): 1.0})


def test_the_command_line_takes_weights(tmp_path: Path, write_rows: Writer) -> None:
    source = write_rows(tmp_path / "chats.jsonl", [CHAT] * 3)
    made = CliRunner().invoke(
        verbs, ["convert", str(source), "--out", str(tmp_path / "out"), "--weight", f"{source}=2", "--json"]
    )
    assert made.exit_code == 0 and len(open_dataset(tmp_path / "out")) == 6
    refused = CliRunner().invoke(verbs, ["convert", str(source), "--out", str(tmp_path / "o"), "--weight", str(source)])
    assert "--weight must be INPUT=NUMBER" in str(refused.exception)
