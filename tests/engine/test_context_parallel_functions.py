"""The `thd_*` functions against their definitions: halves of documents, and attention merged from parts of the keys."""

import pytest
import torch
from support.engine import context_parallel as cp

BOUNDS = (0, 4, 10, 18)
CU = torch.tensor(BOUNDS, dtype=torch.int32)
DOCUMENTS = tuple(zip(BOUNDS[:-1], BOUNDS[1:], strict=True))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def halves(x: torch.Tensor, number: int) -> torch.Tensor:
    return torch.cat([x[start:end].chunk(2)[number] for start, end in DOCUMENTS])


@pytest.mark.parametrize("number", [0, 1])
def test_a_half_is_read_from_every_document(number: int) -> None:
    x = torch.randn(18, 2, 8)
    assert torch.equal(cp.thd_read_half_tensor(x, CU, number), halves(x, number))
    both = torch.stack((x, -x))
    assert torch.equal(cp.thd_read_half_tensor(both, CU, number)[1], -halves(x, number))


def test_a_second_half_of_log_sum_exps_is_read_and_padded() -> None:
    lse = torch.randn(3, 18)
    read = cp.thd_read_second_half_lse(lse, CU, True, 11)
    assert torch.equal(read[:, :9].T, halves(lse.T, 1)) and read.shape == (3, 11) and not read[:, 9:].any()


@pytest.mark.parametrize("only_second_half", [False, True])
def test_outputs_of_two_key_ranges_merge_into_attention_over_both(only_second_half: bool) -> None:
    scores, values = torch.randn(3, 18, 7, dtype=torch.float64), torch.randn(3, 7, 8, dtype=torch.float64)

    def attend(keys: slice) -> tuple[torch.Tensor, torch.Tensor]:
        part = scores[:, :, keys]
        return torch.einsum("hqk,hkd->qhd", part.softmax(-1), values[:, keys]).float(), part.logsumexp(-1).float()

    out, lse = attend(slice(0, 4))
    step_out, step_lse = attend(slice(4, 7))
    whole_out, whole_lse = attend(slice(0, 7))
    if only_second_half:
        step_out, step_lse = halves(step_out, 1), halves(step_lse.T, 1).T.contiguous()
        first = torch.cat([torch.arange(s, e).chunk(2)[0] for s, e in DOCUMENTS])
        whole_out[first], whole_lse[:, first] = out[first], lse[:, first]
    old = lse.clone()
    if only_second_half:
        cp.thd_second_half_lse_correction(lse, step_lse, CU, True)
    else:
        lse = torch.logaddexp(lse, step_lse)
    torch.testing.assert_close(lse, whole_lse)
    cp.thd_out_correction(out, step_out, old, lse, step_lse, CU, only_second_half, True)
    torch.testing.assert_close(out, whole_out)


@pytest.mark.parametrize(
    "actions", [("copy", "add"), ("none", "add"), ("add", "copy"), ("copy", "zero"), ("zero", "copy")]
)
def test_gradients_are_corrected_in_each_half_as_named(actions: tuple[str, str]) -> None:
    grad, step = torch.randn(18, 2, 8), torch.randn(18, 2, 8)
    one_sided = {"none", "zero"} & set(actions)
    only = next((n for n in (0, 1) if actions[n] in ("add", "copy")), 0) if one_sided else None
    expected = grad.clone()
    for start, end in DOCUMENTS:
        middle = (start + end) // 2
        for action, part in zip(actions, (slice(start, middle), slice(middle, end)), strict=True):
            if action == "add":
                expected[part] = grad[part] + step[part]
            elif action == "copy":
                expected[part] = step[part]
            elif action == "zero":
                expected[part] = 0
    given = step if only is None else halves(step, only)
    cp.thd_grad_correction(grad, given, CU, *actions)
    assert torch.equal(grad, expected)


@pytest.mark.parametrize("size", [2, 3])
def test_a_row_is_put_into_the_order_of_the_ranks_and_back(size: int) -> None:
    cu = torch.tensor([0, 2 * size, 8 * size], dtype=torch.int32)
    row = torch.randn(8 * size, 4)
    ranks = cp.thd_sequence_order_to_cp_rank_order(row, cu, size, len(row))
    chunks = [*row[: 2 * size].split(1)], [*row[2 * size :].split(3)]
    expected = [part for rank in range(size) for own in chunks for part in (own[rank], own[2 * size - 1 - rank])]
    assert torch.equal(ranks, torch.cat(expected))
    assert torch.equal(cp.thd_cp_rank_order_to_sequence_order(ranks, cu, size, len(row)), row)


def test_valid_tokens_of_each_document_are_copied_and_others_kept() -> None:
    out, part = torch.zeros(18), torch.arange(1.0, 19.0)
    cp.thd_copy_valid_tokens_from_per_split_to_rank_local(out, part, CU, torch.tensor([0, 1, 1, 5], dtype=torch.int32))
    expected = torch.zeros(18)
    expected[0], expected[10:14] = part[0], part[10:14]
    assert torch.equal(out, expected)
