"""Checkpoints that are published atomically and can be verified; import and export of Hugging Face folders."""
