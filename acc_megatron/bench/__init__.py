"""Benchmarks: figures of the tools, measured on complete programs or steps and appended to CSV files."""
