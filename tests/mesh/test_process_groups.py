"""Starting the process groups of a run."""

import os

import pytest
import torch

from acc_megatron.config import ParallelConfig
from acc_megatron.mesh.process_groups import process_groups


@pytest.mark.skipif(torch.cuda.is_available(), reason="reads the options of gloo")
def test_the_configured_timeout_applies_to_every_group_of_megatron() -> None:
    from megatron.core import parallel_state

    groups = [
        parallel_state.get_tensor_model_parallel_group,
        parallel_state.get_context_parallel_group,
        parallel_state.get_pipeline_model_parallel_group,
        parallel_state.get_data_parallel_group,
        parallel_state.get_expert_model_parallel_group,
        parallel_state.get_expert_data_parallel_group,
        parallel_state.get_model_parallel_group,
    ]
    with process_groups(ParallelConfig(), timeout_seconds=77):
        for group in groups:
            options = group()._get_backend(torch.device("cpu")).options
            assert options._timeout.total_seconds() == 77, group.__name__


def test_communication_has_one_device_queue_also_without_the_launcher() -> None:
    assert os.environ["CUDA_DEVICE_MAX_CONNECTIONS"] == "1"
