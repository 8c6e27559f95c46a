"""Helpers that tests share: inputs, servers, process groups and reference programs."""
