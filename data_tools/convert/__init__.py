"""Triples to a dataset folder: templates, rendering, shards, merge and verification."""
