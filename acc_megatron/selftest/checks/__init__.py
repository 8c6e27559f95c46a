"""The checks of the selftest, each one object; `selftest/registry.py` lists them."""
