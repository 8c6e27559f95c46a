"""`acc-megatron selftest`: proves on the GPUs at hand what the tests prove on CPU, one check a file."""
