"""What is present, missing or wrong on this machine, the effect on a run, and how to fix it."""
