"""The machine table: a GPU is found by its driver's name for it."""

from acc_megatron.machines import gpu_peak_flops_per_second


def test_a_gpus_peak_is_found_by_its_drivers_name_for_it() -> None:
    # dense bfloat16, from NVIDIA's data sheets
    assert gpu_peak_flops_per_second("NVIDIA A100-SXM4-80GB") == 312e12
    assert gpu_peak_flops_per_second("NVIDIA H100 80GB HBM3") == 989e12
    assert gpu_peak_flops_per_second("NVIDIA H200") == 989e12
    assert gpu_peak_flops_per_second("NVIDIA B200") == 2.25e15
    assert gpu_peak_flops_per_second("Tesla T4") is None
