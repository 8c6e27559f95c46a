"""Benchmarked implementations of the loss, one file each. Their source versions are stated where costs were read."""
