import json
from typing import Any

import pytest

from acc_megatron.common.json_bytes import content_bytes, json_bytes


@pytest.mark.parametrize(
    "value",
    [
        {"b": [1, 2.5, None, True, {}], "a": 'é\u2028\x00"\\/<|im_end|>'},
        [10**30, -(2**64), 2**63, {"x": 10**30}],
        {2: "the key is an integer"},
        [[]] * 60,
    ],
)
def test_the_bytes_read_back_as_the_value(value: Any) -> None:
    assert json_bytes(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    assert json.loads(json_bytes(value, sort_keys=True)) == json.loads(json.dumps(value))


def test_keys_are_sorted_also_where_orjson_refuses_the_value() -> None:
    assert json_bytes({"b": 1, "a": 2}, sort_keys=True) == b'{"a":2,"b":1}'
    assert json_bytes({"b": 10**20, "a": 2}, sort_keys=True) == b'{"a":2,"b":100000000000000000000}'


def test_an_unpaired_surrogate_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        json_bytes(["\ud800"])


def test_the_digest_of_the_content_is_that_of_any_spelling_of_the_row() -> None:
    value = {"b": [1.0, {"x": None, "y": "null .0"}], "a": None, "c": 2.5}
    assert content_bytes(value) == content_bytes({"c": 2.5, "b": [1, {"y": "null .0"}]})
    for other in (
        {"b": [1.0, {"y": "null"}], "c": 2.5},
        {"b": [1, {"y": "null .0"}]},
        {"b": ["1", {"y": "null .0"}], "c": 2.5},
    ):
        assert content_bytes(other) != content_bytes(value)
