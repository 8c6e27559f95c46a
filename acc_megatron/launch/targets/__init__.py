"""The launch targets: this machine, SLURM and Kubernetes."""
