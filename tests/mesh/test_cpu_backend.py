"""The redirection of CUDA calls does not change the rest of torch."""

import pytest
import torch

from acc_megatron.mesh import cpu_backend

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the CPU backend does nothing if CUDA is available")


@pytest.fixture(autouse=True)
def installed() -> None:
    assert cpu_backend.install()


def test_a_device_context_still_applies_to_factory_functions() -> None:
    with torch.device("meta"):
        assert torch.arange(3).is_meta and torch.zeros(2).is_meta


def test_a_cuda_device_becomes_the_cpu_and_other_devices_are_unchanged() -> None:
    assert torch.zeros(2, device="cuda").device.type == "cpu"
    assert torch.empty(2, device="meta").is_meta
    assert torch.ones(2, pin_memory=True).sum() == 2


def test_tensors_have_the_type_names_that_megatron_compares() -> None:
    assert torch.zeros(1).type() == "torch.cuda.FloatTensor"
    assert torch.zeros(1).type(torch.int64).dtype is torch.int64
