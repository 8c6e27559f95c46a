"""Qwen's tokenizer: two engines that agree, and the Hugging Face files made from it."""
