"""Cross entropy of given logits over supervised rows only, the vocabulary sharded over ranks."""
