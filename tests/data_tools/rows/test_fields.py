"""A field of an untrusted row has the expected type, or the row is dropped with the name of the field."""

import pytest

from acc_megatron.data_tools.rows import fields
from acc_megatron.errors import Dropped


def test_an_error_names_the_field_and_the_type_found() -> None:
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
def test_tagged_text_is_between_a_tag_and_the_next_closing_tag(text: str, expected: list[str]) -> None:
    assert fields.tagged(text, "a") == expected


def test_an_embedded_object_can_be_json_text_and_anything_else_is_empty() -> None:
    assert fields.embedded_object(' {"a": 1}\n') == fields.embedded_object({"a": 1}) == {"a": 1}
    for odd in ("{", "[1]", "", None, 3, "[" * 5000):
        assert fields.embedded_object(odd) == {}
