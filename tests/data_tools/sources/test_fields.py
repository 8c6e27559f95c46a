"""Fields of untrusted rows have the type asked for, or drop the row by name."""

import pytest

from acc_megatron.data_tools.schema import Dropped
from acc_megatron.data_tools.sources import fields


def test_a_field_of_another_type_is_named_with_what_was_found() -> None:
    with pytest.raises(Dropped, match="malformed: 'a' must be a string, got int"):
        fields.text_of({"a": 1}, "a")
    with pytest.raises(Dropped, match="malformed: 'b' must be a list, got nothing"):
        fields.texts_of({"a": 1}, "b")
    with pytest.raises(Dropped, match=r"malformed: a\[1\] must be an object, got NoneType"):
        fields.objects_of({"a": [{}, None]}, "a")
    assert fields.texts_of({"a": ["x"]}, "a") == ["x"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a>x</a> <a>y</a>", ["x", "y"]),
        ("</a><a>x</a>", ["x"]),
        ("<a>x<a>y</a>", ["x<a>y"]),
        ("<a>x", []),
        ("", []),
    ],
)
def test_tagged_text_is_what_stands_between_a_tag_and_the_next_closing_one(text: str, expected: list[str]) -> None:
    assert fields.tagged(text, "a") == expected


def test_an_embedded_object_is_read_from_text_too_and_anything_else_is_empty() -> None:
    assert fields.embedded_object(' {"a": 1}\n') == fields.embedded_object({"a": 1}) == {"a": 1}
    for odd in ("{", "[1]", "", None, 3, "[" * 5000):
        assert fields.embedded_object(odd) == {}
