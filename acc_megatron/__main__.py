"""`python -m acc_megatron` is the command `acc-megatron`."""

from acc_megatron.cli import main

if __name__ == "__main__":
    main()
