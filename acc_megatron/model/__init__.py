"""Models on megatron-core: families, layer specs, FP8 and FLOPs."""
