"""A stand-in for Transformer Engine in plain torch, for tests: the public names and arguments of 2.20.2, on CPU.

Files lie where the original's do, so that every name can be held to it. It is no fallback: slow, and without a kernel.
"""

from . import common, pytorch

__version__ = "2.20.2"
__all__ = ["__version__", "common", "pytorch"]
