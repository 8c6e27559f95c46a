"""The enumerations of `transformer_engine_torch`: names and values of Transformer Engine 2.20's C++ headers.

`tests/engine/test_enumerations.py` compares the names with those that the wheel's Python uses.
"""

import enum


def _numbered(*names: str) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


_LAYOUTS = (
    "SB3HD", "SBH3D", "SBHD_SB2HD", "SBHD_SBH2D", "SBHD_SBHD_SBHD",
    "BS3HD", "BSH3D", "BSHD_BS2HD", "BSHD_BSH2D", "BSHD_BSHD_BSHD",
    "T3HD", "TH3D", "THD_T2HD", "THD_TH2D", "THD_THD_THD",
    "SBHD_BSHD_BSHD", "BSHD_SBHD_SBHD", "THD_BSHD_BSHD", "THD_SBHD_SBHD",
    "Paged_KV_BSHD_BSHD_BSHD", "Paged_KV_BSHD_SBHD_SBHD", "Paged_KV_SBHD_BSHD_BSHD", "Paged_KV_SBHD_SBHD_SBHD",
    "Paged_KV_THD_BSHD_BSHD", "Paged_KV_THD_SBHD_SBHD", "BHSD_BHSD_BHSD", "QKV_Layout_NOT_SET",
)  # fmt: skip
_FORMATS = ("SBHD", "BSHD", "THD", "BSHD_2SBHD", "SBHD_2BSHD", "THD_2BSHD", "THD_2SBHD", "BHSD", "QKV_Format_NOT_SET")
_MASKS = ("NO", "PADDING", "CAUSAL", "PADDING_CAUSAL", "CAUSAL_BOTTOM_RIGHT", "PADDING_CAUSAL_BOTTOM_RIGHT")

MEMBERS: dict[str, dict[str, int]] = {
    "DType": {
        "kByte": 0,
        "kInt32": 2,
        "kFloat32": 4,
        "kFloat16": 5,
        "kBFloat16": 6,
        "kFloat8E4M3": 7,
        "kFloat8E5M2": 8,
        "kFloat4E2M1": 10,
    },
    "FP8FwdTensors": _numbered(*(f"GEMM{n}_{part}" for n in (1, 2, 3) for part in ("INPUT", "WEIGHT", "OUTPUT"))),
    "FP8BwdTensors": _numbered(*(f"GRAD_{part}{n}" for n in (1, 2, 3) for part in ("OUTPUT", "INPUT"))),
    "NVTEScalingMode": _numbered(
        "NVTE_DELAYED_TENSOR_SCALING",
        "NVTE_MXFP8_1D_SCALING",
        "NVTE_BLOCK_SCALING_1D",
        "NVTE_BLOCK_SCALING_2D",
        "NVTE_NVFP4_1D_SCALING",
    )
    | {"NVTE_INVALID_SCALING": 100},
    "NVTE_QKV_Layout": _numbered(*(f"NVTE_{name}" for name in _LAYOUTS)),
    "NVTE_QKV_Format": _numbered(*(f"NVTE_{name}" for name in _FORMATS)),
    "NVTE_Mask_Type": _numbered(*(f"NVTE_{name}_MASK" for name in _MASKS)),
    "NVTE_Bias_Type": _numbered("NVTE_NO_BIAS", "NVTE_PRE_SCALE_BIAS", "NVTE_POST_SCALE_BIAS", "NVTE_ALIBI"),
    "NVTE_Softmax_Type": _numbered("NVTE_VANILLA_SOFTMAX", "NVTE_OFF_BY_ONE_SOFTMAX", "NVTE_LEARNABLE_SOFTMAX"),
    "NVTE_Fused_Attn_Backend": {"NVTE_No_Backend": -1, "NVTE_F16_arbitrary_seqlen": 1, "NVTE_FP8": 2},
    "CommOverlapType": _numbered("RS", "AG"),
    "NVTERoutingMapFormat": _numbered("BYTEMAP", "BITMAP_U8"),
    "NVTEQBHistogramMode": _numbered("TWO_KERNEL", "FUSED_ATOMIC"),
}
ENUMERATIONS: dict[str, type[enum.IntEnum]] = {
    name: enum.IntEnum(name, members)  # type: ignore[misc]
    for name, members in MEMBERS.items()
}
DType = ENUMERATIONS["DType"]
