"""LoRA adapters and frozen parts of a model: what is trained, how it is computed, and what a checkpoint has of it."""
