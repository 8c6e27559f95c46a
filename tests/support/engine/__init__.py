"""Transformer Engine's published Python on CPU: its C++ module `transformer_engine_torch` emulated in torch.

`make test-engine` unpacks the pinned wheel into `build/engine`. `install.install()` imports it in a child process over
the emulation; the other files contain the emulated functions, one subject a file, under the names and arguments of the
original.
"""
