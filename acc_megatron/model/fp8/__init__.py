"""FP8 recipes: what Megatron and Transformer Engine need on GPU, and the same arithmetic emulated on CPU."""
