"""The masked long-sequence loss: for each operation a reference, a kernel and an op."""

if __name__ == "kernels":
    # A checkout on sys.path. transformers imports this name to probe another project's package, and takes a package
    # without __file__ for absent; for everybody else nothing lives under the bare name.
    del __file__
    __path__ = []

    def __getattr__(name: str) -> object:
        kind = AttributeError if name.startswith("__") else ImportError
        raise kind("this folder is installed as acc_megatron.kernels: use 'import acc_megatron.kernels'")
