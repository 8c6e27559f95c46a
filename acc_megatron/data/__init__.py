"""Packed, context-parallel batches from a dataset folder."""
