"""The table of GPUs: a GPU is found by its driver's name for it."""

from acc_megatron.mesh.gpu_specs import gpu_peak_flops_per_second


def test_the_peak_of_a_gpu_is_found_by_the_name_its_driver_reports() -> None:
    # dense bfloat16, from NVIDIA's data sheets
    assert gpu_peak_flops_per_second("NVIDIA A100-SXM4-80GB") == 312e12
    assert gpu_peak_flops_per_second("NVIDIA H100 80GB HBM3") == 989e12
    assert gpu_peak_flops_per_second("NVIDIA H200") == 989e12
    assert gpu_peak_flops_per_second("NVIDIA B200") == 2.25e15
    assert gpu_peak_flops_per_second("Tesla T4") is None
