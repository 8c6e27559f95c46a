"""The masked long-sequence loss: a torch reference, Triton kernels and a public function for each operation.

`acc_megatron.kernels.masked_linear_cross_entropy(...)` calls the operation; importing this package loads no torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from acc_megatron.kernels.masked_linear_cross_entropy.op import (
        masked_linear_cross_entropy as masked_linear_cross_entropy,
    )

if __name__ == "kernels":
    # A checkout on sys.path. transformers probes this name for another project's package and treats a package without
    # __file__ as absent. The bare name provides nothing to anybody else.
    del __file__
    __path__ = []

    def __getattr__(name: str) -> object:
        kind = AttributeError if name.startswith("__") else ImportError
        raise kind("this folder is installed as acc_megatron.kernels: use 'import acc_megatron.kernels'")

else:

    def __getattr__(name: str) -> object:
        if name != "masked_linear_cross_entropy":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return import_module(f"{__name__}.{name}")
