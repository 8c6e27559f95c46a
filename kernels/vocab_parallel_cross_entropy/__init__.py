"""Cross entropy of given logits over supervised rows only, with the vocabulary sharded over ranks."""
