"""Rows of each expert padded with zeros to a multiple that FP8 products need, and cut again."""

from collections.abc import Sequence

import torch

from support.engine.module import emulated


@emulated
def fused_multi_row_padding(
    input: torch.Tensor, output: torch.Tensor, input_row_list: Sequence[int], padded_input_row_list: Sequence[int]
) -> None:
    """Copy each expert's rows to the start of its padded rows, zeros behind them."""
    output.zero_()
    sources, targets = input.split(list(input_row_list)), output.split(list(padded_input_row_list))
    for source, target in zip(sources, targets, strict=True):
        target[: len(source)] = source


@emulated
def fused_multi_row_unpadding(
    input: torch.Tensor, output: torch.Tensor, input_row_list: Sequence[int], unpadded_input_row_list: Sequence[int]
) -> None:
    """Copy the first rows of each expert's padded rows."""
    sources, targets = input.split(list(input_row_list)), output.split(list(unpadded_input_row_list))
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source[: len(target)])
