"""Checkpoints: atomic and verifiable on disk, and Hugging Face folders in and out."""
