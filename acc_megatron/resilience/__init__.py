"""Runs that survive: signals, hangs, bad numbers, changed data."""
