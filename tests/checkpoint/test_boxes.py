"""A range of a flattened tensor as boxes."""

import math

import pytest
import torch

from acc_megatron.checkpoint.boxes import boxes


@pytest.mark.parametrize("shape", [(7,), (1, 5), (5, 1), (4, 3), (2, 3, 4), (3, 1, 2, 2)], ids=str)
def test_the_boxes_of_every_range_are_its_elements_in_order(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(math.prod(shape)).view(shape)
    for start in range(tensor.numel() + 1):
        for stop in range(start, tensor.numel() + 1):
            found = list(boxes(shape, start, stop))
            parts = []
            for offset, size in found:
                part = tensor
                for dim, (first, length) in enumerate(zip(offset, size, strict=True)):
                    part = part.narrow(dim, first, length)
                assert part.is_contiguous() and part.numel()
                parts.append(part.flatten())
            assert torch.equal(torch.cat([*parts, tensor.new_empty(0)]), torch.arange(start, stop))
            assert len(found) <= 2 * len(shape) - 1
