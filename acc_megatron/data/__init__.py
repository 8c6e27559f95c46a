"""A dataset folder to packed, context-parallel batches."""
