"""The environment variables of a job: settings of NCCL, torch and gloo on every node."""

from acc_megatron.launch.experiment import Experiment


def job_environment(experiment: Experiment) -> dict[str, str]:
    """Variables of every job, in a fixed order; those of the experiment file take precedence."""
    network = experiment.network
    variables = {
        "OMP_NUM_THREADS": "8",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        # one device queue keeps Megatron's communication ahead of the GEMM that it overlaps with (Hopper and older)
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        # on the node's own disk: by default it is in the home folder, which nodes often share
        "TRITON_CACHE_DIR": f"/tmp/{experiment.name}-triton",
        "NCCL_DEBUG": network.debug,
        "NCCL_IB_TIMEOUT": str(network.infiniband_timeout),
    }
    if network.infiniband_adapters is not None:
        variables["NCCL_IB_HCA"] = network.infiniband_adapters
    if network.socket_interface is not None:
        variables |= {"NCCL_SOCKET_IFNAME": network.socket_interface, "GLOO_SOCKET_IFNAME": network.socket_interface}
    return variables | experiment.environment
