"""A resumed run must have the model and the data of the saved one; T12 of docs/promises.md in its smallest form."""

import pytest

from acc_megatron.errors import CheckpointError
from acc_megatron.resilience.resume_check import changes, packing_sha256, refuse_change

SAVED = {"model": {"num_experts": 4}, "dataset_fingerprint": "a", "tokenizer": {"sha256": "b"}, "packing": "c"}


def test_the_same_run_is_accepted() -> None:
    refuse_change(SAVED, SAVED, "step_1", allow_data_change=False)


@pytest.mark.parametrize(
    "changed, name",
    [
        ({"dataset_fingerprint": "x"}, "dataset_fingerprint = 'a', this run has 'x'"),
        ({"tokenizer": {"sha256": "x"}}, "tokenizer.sha256 = 'b', this run has 'x'"),
        ({"packing": "x"}, "packing = 'c', this run has 'x'"),
    ],
)
def test_changed_data_is_refused_by_name_and_accepted_with_a_warning_on_request(
    changed: dict[str, object], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match="step_1 was trained with " + name):
        refuse_change(SAVED, SAVED | changed, "step_1", allow_data_change=False)
    refuse_change(SAVED, SAVED | changed, "step_1", allow_data_change=True)
    assert name in capsys.readouterr().err


def test_a_changed_model_is_always_refused() -> None:
    with pytest.raises(CheckpointError, match=r"model\.num_experts = 4, this run has 8"):
        refuse_change(SAVED, SAVED | {"model": {"num_experts": 8}}, "step_1", allow_data_change=True)


def test_the_packing_hash_depends_on_rows_and_order() -> None:
    assert len({packing_sha256(rows) for rows in ([[0, 1], [2]], [[0], [1, 2]], [[2], [0, 1]], [[1, 0], [2]])}) == 4


def test_changed_settings_are_listed_with_both_values() -> None:
    assert changes({"a": {"b": 1}, "c": None}, {"a": {"b": 2}, "c": None}) == ["a.b = 2 (was 1)"]
