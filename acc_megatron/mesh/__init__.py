"""Devices and ranks of a run: layout, process groups and the CPU backend."""
