"""Qwen3-MoE on megatron-core: configuration, layer specs and the masked head."""
