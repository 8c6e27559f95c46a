"""Base64 images leave the texts of a row, in any spelling, and are counted; other text stays as it is."""

from typing import Any

import pytest

from acc_megatron.common.json_bytes import content_bytes
from acc_megatron.data_tools.rows.embedded_images import may_have_images, without_images

PIXELS = "iVBORw0KGgoAAAANSUhEUg" * 20
WRAPPED = "\n".join([PIXELS[i : i + 76] for i in range(0, len(PIXELS) - 76, 76)])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"a ![x](data:image/png;base64,{PIXELS}) b", "a ![x]() b"),
        (f'a <img src="data:image/svg+xml;charset=utf-8;base64,{PIXELS}=="> b', 'a <img src=""> b'),
        (f"a data:;base64,{PIXELS} b", "a  b"),
        (f"a data:image/jpeg;base64,{WRAPPED}\n\nb", "a \n\nb"),
        (f"a {PIXELS}= b", "a  b"),
    ],
)
def test_an_image_in_a_text_leaves_it(text: str, left: str) -> None:
    assert without_images(text) == (left, 1)
    row = {"messages": [{"content": [{"type": "text", "text": text}]}, {"content": text}]}
    assert may_have_images(content_bytes(row))
    found, number = without_images(row)
    assert number == 2 and found["messages"][1]["content"] == left


def test_the_data_of_an_image_part_leaves_the_row() -> None:
    part = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    assert may_have_images(content_bytes([part]))
    found, number = without_images([part])
    assert number == 1 and found[0]["source"]["data"] == ""


@pytest.mark.parametrize(
    "value", ["see data:image/png and base64", "iVBORw0KGgo is how a PNG begins", {"a": [1, None]}]
)
def test_other_values_stay_the_same_object(value: Any) -> None:
    found, number = without_images(value)
    assert found is value and number == 0
