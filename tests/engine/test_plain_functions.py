"""Emulated functions one by one against torch: autograd in float64, or the definition written out in loops."""

from collections.abc import Callable

import pytest
import torch
from support.engine import attention, matrix_products, multi_tensor, norms, padding, permutation, rope
from support.engine.enumerations import ENUMERATIONS, DType

THD = ENUMERATIONS["NVTE_QKV_Format"]["NVTE_THD"]
LAYOUT = ENUMERATIONS["NVTE_QKV_Layout"]["NVTE_THD_THD_THD"]
CAUSAL = ENUMERATIONS["NVTE_Mask_Type"]["NVTE_PADDING_CAUSAL_MASK"]
PADDING = ENUMERATIONS["NVTE_Mask_Type"]["NVTE_PADDING_MASK"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance)


def test_rmsnorm_is_torchs_forward_and_backward() -> None:
    x = torch.randn(7, 24, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(24, dtype=torch.float64, requires_grad=True)
    gradient = torch.randn(7, 24, dtype=torch.float64)
    expected = torch.nn.functional.rms_norm(x, (24,), weight, 1e-6)
    expected.backward(gradient)
    inputs = x.detach().float(), weight.detach().float()
    y, _, reciprocal = norms.rmsnorm_fwd(*inputs, 1e-6, None, None, DType.kFloat32, 0, False)
    close(y, expected)
    x_gradient, weight_gradient = norms.rmsnorm_bwd(gradient.float(), inputs[0], reciprocal, inputs[1], 0, False)
    close(x_gradient, x.grad)
    close(weight_gradient, weight.grad)
    assert norms.rmsnorm_fwd(*inputs, 1e-6, None, None, DType.kBFloat16, 0, False)[0].dtype == torch.bfloat16


def gemm(a: torch.Tensor, b: torch.Tensor, layout: str, out: torch.Tensor | None = None, accumulate: bool = False):  # type: ignore[no-untyped-def]
    arguments = (out, None, None, None, None, False, None, False, torch.empty(0), 0, accumulate, False)
    return matrix_products.generic_gemm(a, layout[0] == "T", b, layout[1] == "T", *arguments)[0]


def test_gemm_multiplies_as_a_linear_layer_and_its_two_gradients_do() -> None:
    weight, x, gradient = torch.randn(6, 10), torch.randn(3, 5, 10), torch.randn(3, 5, 6)
    close(gemm(weight, x, "TN"), torch.einsum("btk,nk->btn", x, weight))
    close(gemm(weight, gradient, "NN"), torch.einsum("btn,nk->btk", gradient, weight))
    close(gemm(x, gradient, "NT"), torch.einsum("btn,btk->nk", gradient, x))


def test_gemm_accumulates_in_float32_and_rounds_once() -> None:
    weight, x = torch.randn(6, 10).bfloat16(), torch.randn(5, 10).bfloat16()
    out = torch.randn(5, 6).bfloat16()
    expected = (out.double() + x.double() @ weight.double().T).bfloat16()
    assert torch.equal(gemm(weight, x, "TN", out, accumulate=True), expected)
    assert gemm(weight, x, "TN").dtype == torch.bfloat16


@pytest.mark.parametrize("layout", ["TN", "NN", "NT"])
def test_grouped_gemm_is_one_product_for_each_expert_and_zero_without_tokens(layout: str) -> None:
    splits = [4, 0, 3]
    weights, rows = [torch.randn(6, 10) for _ in splits], torch.randn(7, 10 if layout == "TN" else 6)
    parts = list(rows.split(splits))
    if layout == "NT":
        activations = list(torch.randn(7, 10).split(splits))
        outputs = [torch.full((6, 10), torch.nan) for _ in splits]
        call_grouped(activations, parts, outputs, splits, layout, single_output=False)
        for number in range(3):
            close(outputs[number], parts[number].T @ activations[number])
        return
    width = 6 if layout == "TN" else 10
    output = torch.full((7, width), torch.nan)
    call_grouped(weights, parts, [output], splits, layout, single_output=True)
    expected = [part @ (weight.T if layout == "TN" else weight) for part, weight in zip(parts, weights, strict=True)]
    close(output, torch.cat(expected))


def call_grouped(
    a: list[torch.Tensor],
    b: list[torch.Tensor],
    d: list[torch.Tensor],
    splits: list[int],
    layout: str,
    single_output: bool,
) -> None:
    transposes = (layout[0] == "T", layout[1] == "T")
    rest = ([], None, single_output, [], False, [], 0, False, False, 132)
    matrix_products.te_general_grouped_gemm(a, transposes[0], b, transposes[1], d, None, splits, *rest)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_rope_rotates_every_rank_by_positions_inside_its_document(size: int) -> None:
    bounds, dim = [0, 16, 40], 8
    freqs = torch.rand(64, 1, 1, dim // 2).repeat(1, 1, 1, 2)
    x = torch.randn(40, 3, dim)
    position = torch.cat([torch.arange(16), torch.arange(24)])
    angle = freqs[position, 0]
    turned = (
        torch.complex(x[..., : dim // 2], x[..., dim // 2 :])
        * torch.polar(torch.ones_like(angle), angle)[..., : dim // 2]
    )
    expected = torch.cat((turned.real, turned.imag), -1)
    for rank in range(size):
        own = torch.cat([chunk for start, end in ((0, 16), (16, 40)) for chunk in zigzag(start, end, size, rank)])
        cu = torch.tensor(bounds, dtype=torch.int32)
        rotated = rope.fused_rope_forward(x[own], freqs, None, THD, False, cu, size, rank)
        close(rotated, expected[own])
        close(rope.fused_rope_backward(rotated, freqs, None, THD, False, cu, size, rank), x[own])


def zigzag(start: int, end: int, size: int, rank: int) -> tuple[torch.Tensor, ...]:
    """The two chunks of a document that a rank stores; the whole document for one rank."""
    if size == 1:
        return (torch.arange(start, end),)
    chunks = torch.arange(start, end).chunk(2 * size)
    return chunks[rank], chunks[2 * size - 1 - rank]


def dense_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bounds: list[int], is_causal: bool
) -> torch.Tensor:
    """Each document by itself through torch's own attention."""
    parts = []
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        heads = [x[start:end].transpose(0, 1)[None] for x in (q, k, v)]
        out = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=is_causal, enable_gqa=True, scale=0.3)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("mask", [CAUSAL, PADDING])
def test_fused_attention_is_torchs_on_each_document_with_its_gradients(mask: int) -> None:
    bounds = [0, 5, 6, 20]
    q, k, v = (torch.randn(20, heads, 8, dtype=torch.float64, requires_grad=True) for heads in (6, 2, 2))
    expected = dense_attention(q, k, v, bounds, mask == CAUSAL)
    gradient = torch.randn_like(expected)
    expected.backward(gradient)
    cu = torch.tensor(bounds, dtype=torch.int32)
    inputs = [x.detach().float() for x in (q, k, v)]
    start = (14, 14, True, 0.3, 0.0, False, LAYOUT, THD, THD, 0, mask, 0, (-1, 0), False, cu, cu)
    out, lse, _ = attention.fused_attn_fwd(*start, *inputs, torch.float32, None, None)
    close(out, expected)
    start = (14, 14, 0.3, 0.0, False, LAYOUT, THD, THD, LAYOUT, THD, THD, 0, mask, 0, (-1, 0), False, True, cu, cu)
    end = (out, gradient.float(), torch.float32, [lse], None, None)
    found = attention.fused_attn_bwd(*start, *inputs, *end)
    for actual, source in zip(found[:3], (q, k, v), strict=True):
        close(actual, source.grad)


def test_a_bottom_right_mask_aligns_the_last_query_with_the_last_key() -> None:
    q, k = torch.randn(4, 2, 8), torch.randn(10, 2, 8)
    cu_q, cu_k = torch.tensor([0, 4], dtype=torch.int32), torch.tensor([0, 10], dtype=torch.int32)
    mask = ENUMERATIONS["NVTE_Mask_Type"]["NVTE_PADDING_CAUSAL_BOTTOM_RIGHT_MASK"]
    start = (4, 10, True, 0.3, 0.0, False, LAYOUT, THD, THD, 0, mask, 0, (-1, 0), True, cu_q, cu_k)
    out = attention.fused_attn_fwd(*start, q, k, k, torch.float32, None, None)[0]
    longer = torch.cat((torch.zeros(6, 2, 8), q))
    close(out, dense_attention(longer, k, k, [0, 10], True)[6:])


def test_attention_reads_lengths_and_places_of_documents_apart() -> None:
    q = torch.randn(12, 2, 8)
    cu, padded = torch.tensor([0, 3, 7], dtype=torch.int32), torch.tensor([0, 5, 12], dtype=torch.int32)
    start = (4, 4, True, 0.3, 0.0, False, LAYOUT, THD, THD, 0, CAUSAL, 0, (-1, 0), False, cu, cu)
    out = attention.fused_attn_fwd(*start, q, q, q, torch.float32, padded, padded)[0]
    used = torch.tensor([0, 1, 2, 5, 6, 7, 8])
    close(out[used], dense_attention(q[used], q[used], q[used], [0, 3, 7], True))
    assert not out[3:5].any() and not out[9:].any(), "padding is zero"


def test_adam_is_torchs_adamw_with_and_without_master_weights() -> None:
    reference = [torch.nn.Parameter(torch.randn(5, 3)), torch.nn.Parameter(torch.randn(4))]
    plain, masters = ([p.detach().clone() for p in reference] for _ in range(2))
    halves = [p.bfloat16() for p in masters]
    moments = [[torch.zeros_like(p) for p in reference] for _ in range(4)]
    optimizer = torch.optim.AdamW(reference, lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step in (1, 2, 3):
        gradients = [torch.randn_like(p) for p in reference]
        for parameter, gradient in zip(reference, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        settings = (0.01, 0.9, 0.95, 1e-8, step, 1, 1, 0.1)
        flag = torch.zeros(1)
        multi_tensor.multi_tensor_adam(1, flag, [gradients, plain, moments[0], moments[1]], *settings)
        multi_tensor.multi_tensor_adam(1, flag, [gradients, halves, moments[2], moments[3], masters], *settings)
    for number, parameter in enumerate(reference):
        close(plain[number], parameter.detach(), 1e-6)
        close(masters[number], parameter.detach(), 1e-6)
        assert torch.equal(halves[number], masters[number].bfloat16())


def test_sgd_is_torchs_with_weight_decay() -> None:
    reference = torch.nn.Parameter(torch.randn(5, 3))
    plain, reference.grad = reference.detach().clone(), torch.randn(5, 3)
    torch.optim.SGD([reference], lr=0.3, weight_decay=0.1).step()
    lists = [[reference.grad * 4], [plain], [torch.zeros(5, 3)]]
    multi_tensor.multi_tensor_sgd(1, torch.zeros(1), lists, 0.1, 0.0, 0.0, 0.3, False, True, False, 0.25)
    close(plain, reference.detach(), 1e-6)


def test_norm_and_scale_of_lists_of_tensors() -> None:
    tensors = [torch.randn(5, 3).bfloat16(), torch.randn(7)]
    total, each = multi_tensor.multi_tensor_l2norm(1, torch.zeros(1), [tensors], True)
    norms_of_each = torch.stack([tensor.double().norm() for tensor in tensors])
    close(each, norms_of_each)
    close(total, norms_of_each.norm()[None])
    flag, targets = torch.zeros(1), [torch.empty(5, 3), torch.empty(7)]
    multi_tensor.multi_tensor_scale(1, flag, [tensors, targets], 0.5)
    for tensor, target in zip(tensors, targets, strict=True):
        close(target, tensor.double() * 0.5)
    assert not flag.any()
    multi_tensor.multi_tensor_scale(1, flag, [[torch.tensor([torch.inf])], [torch.empty(1)]], 0.5)
    assert flag.all()


def test_padding_keeps_rows_of_each_expert_and_unpadding_gives_them_back() -> None:
    rows, padded = [3, 0, 5], [16, 0, 16]
    source, output, back = torch.randn(8, 4), torch.full((32, 4), torch.nan), torch.empty(8, 4)
    padding.fused_multi_row_padding(source, output, rows, padded)
    assert torch.equal(output[:3], source[:3]) and torch.equal(output[16:21], source[3:])
    assert not output[3:16].any() and not output[21:].any()
    padding.fused_multi_row_unpadding(output, back, padded, rows)
    assert torch.equal(back, source)


def routed(num_tokens: int, num_experts: int) -> torch.Tensor:
    """Between none and all experts for each token."""
    return torch.rand(num_tokens, num_experts) < 0.4


def test_permutation_orders_copies_by_expert_then_token_and_sums_them_back() -> None:
    routing, x, probs = routed(9, 4), torch.randn(9, 5), torch.rand(9, 4)
    expected = [(token, expert) for expert in range(4) for token in range(9) if routing[token, expert]]
    row_id_map = permutation.make_row_id_map(routing, 9, 4)
    assert row_id_map.shape == (9, 9) and row_id_map.dtype == torch.int32
    copies, _, chosen = permutation.permute_with_mask_map(x, row_id_map, probs, None, None, 9, 4, len(expected), 5, 0)
    assert chosen is not None
    for row, (token, expert) in enumerate(expected):
        assert torch.equal(copies[row], x[token]) and chosen[row] == probs[token, expert]
    summed, back = permutation.unpermute_with_mask_map(copies, row_id_map, None, chosen, None, 9, 4, 5)
    close(summed, x * routing.sum(1, keepdim=True))
    assert back is not None and torch.equal(back, probs * routing)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_chunks_are_sorted_and_sorted_back(order: list[int]) -> None:
    sizes, x, probs = torch.tensor([2, 0, 4]), torch.randn(6, 3), torch.rand(6)
    moved = permutation.make_chunk_sort_map(sizes, torch.tensor(order), 6, 3)
    chunks = x.split(sizes.tolist())
    rows, sorted_probs = permutation.sort_chunks_by_map(x, moved, probs, 6, 3, True)
    assert torch.equal(rows, torch.cat([chunks[number] for number in order])) and sorted_probs is not None
    back = permutation.sort_chunks_by_map(rows, moved, sorted_probs, 6, 3, False)
    assert torch.equal(back[0], x) and back[1] is not None and torch.equal(back[1], probs)


def test_what_is_not_emulated_says_its_name() -> None:
    from support.engine.module import MODULE

    missing: Callable[[], None] = MODULE.layernorm_fwd
    with pytest.raises(NotImplementedError, match=r"transformer_engine_torch\.layernorm_fwd is not emulated"):
        missing()
