"""Benchmarks: figures for the tools, measured as whole programs and appended to CSV files."""
