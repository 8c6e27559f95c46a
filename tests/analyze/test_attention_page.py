"""The attention page of results written by hand: changes, controls and missing values."""

import json
from pathlib import Path
from typing import Any

import pytest

from acc_megatron.analyze.attention_page import publish_attention


def layer(*distances: float, far: bool = True) -> dict[str, Any]:
    """One layer of two heads with all attention in the first bin."""
    histogram = [[1.0] + [0.0] * 31] * len(distances)
    mass, entropy = ([0.25] * 2, [1.5] * 2) if far else (None, None)
    return {
        "distance_tokens": list(distances),
        "histogram": histogram,
        "long_range_mass": mass,
        "long_range_entropy_nats": entropy,
    }


def result(*, control_tokens: int | None, far: bool = True) -> Any:
    found = {name: {"a": [layer(10.0, 20.0, far=far)]} for name in ("before", "after", "control")}
    found["after"]["a"] = [layer(13.0, 15.0, far=far)]
    tokens = {"before": None, "after": 4096, "control": control_tokens}
    task = {"documents": [0], "num_documents": 7, "left_out_for_length": 2}
    return {
        "checkpoints": {name: {"path": name, "trained_tokens": number} for name, number in tokens.items()},
        "tasks": {"a": task | {"span_tokens": 64, "long_range_tokens": 16}},
        "attention": found,
        "changes": {
            "after": {"a": {"by_layer_tokens": [4.0], "most_changed_layers": [0]}},
            "control": {"a": {"by_layer_tokens": [0.3], "most_changed_layers": [0]}},
        },
    }


def page_of(result: Any, out: Path) -> str:
    page = publish_attention(out, result).read_text()
    assert json.loads((out / "attention.json").read_text()) == result
    return page


def test_the_change_of_a_layer_is_next_to_that_of_the_control(tmp_path: Path) -> None:
    page = page_of(result(control_tokens=4096), tmp_path)
    assert "change of after, tokens" in page and "change of control, tokens" in page
    assert page.index(">4.0<") < page.index(">0.3<")
    assert ">14.0<" in page and ">15.0<" in page  # the mean of 13 and 15 after, of 10 and 20 before


def test_a_control_of_another_or_unknown_length_is_reported_on_the_page_and_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, unknown = "different numbers of tokens, 4,096 and 2,048", "It is unknown whether after and"
    page = page_of(result(control_tokens=4096), tmp_path)
    assert other not in page and "number of tokens" not in page and not capsys.readouterr().err
    page = page_of(result(control_tokens=2048), tmp_path)
    assert other in page and ">4,096<" in page and ">2,048<" in page and ">unknown<" in page
    assert other in capsys.readouterr().err
    assert unknown in page_of(result(control_tokens=None), tmp_path) and unknown in capsys.readouterr().err


def test_a_task_without_a_long_range_pair_says_so_instead_of_showing_zero(tmp_path: Path) -> None:
    page = page_of(result(control_tokens=None, far=False), tmp_path)
    assert page.count("no pair at this distance") == 6  # share and entropy of three checkpoints
    assert ">0.000<" not in page
