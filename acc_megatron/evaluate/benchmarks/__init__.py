"""Benchmarks: how each asks its questions and grades the answers."""
