"""Measures what a plan otherwise assumes about the machine: `acc-megatron calibrate`."""
