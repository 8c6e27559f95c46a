"""From one experiment file to a laptop, SLURM or Kubernetes."""
