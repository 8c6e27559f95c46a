"""The environment of a training job: what NCCL, torch and gloo are told on every node."""

from acc_megatron.launch.experiment import Experiment


def job_environment(experiment: Experiment) -> dict[str, str]:
    """Variables of every stage, in a fixed order; the experiment's own win."""
    network = experiment.network
    variables = {
        "OMP_NUM_THREADS": "8",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # one queue to the device keeps Megatron's communication ahead of the GEMM it overlaps with (Hopper and older)
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "NCCL_DEBUG": network.debug,
        "NCCL_IB_TIMEOUT": str(network.infiniband_timeout),
    }
    if network.infiniband_adapters is not None:
        variables["NCCL_IB_HCA"] = network.infiniband_adapters
    if network.socket_interface is not None:
        variables |= {"NCCL_SOCKET_IFNAME": network.socket_interface, "GLOO_SOCKET_IFNAME": network.socket_interface}
    return variables | experiment.environment
