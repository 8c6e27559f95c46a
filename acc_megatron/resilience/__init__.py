"""Signals, hangs, invalid numbers, loss spikes and changed data in long runs."""
