"""The masked long-sequence loss: for each operation a reference, a kernel and an op."""

if __name__ == "kernels":
    raise ImportError("this folder is installed as acc_megatron.kernels: use 'import acc_megatron.kernels'")
