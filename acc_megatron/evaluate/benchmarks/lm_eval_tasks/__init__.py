"""Generative tasks of lm-eval, such as GPQA, MMLU-Pro, AIME and IFEval, asked through our own models and cache."""
