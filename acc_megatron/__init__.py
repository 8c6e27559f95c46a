"""From agent trajectories to a long-context model: the ACC road on megatron-core."""

__version__ = "0.1.0"
