"""What of a machine is present, missing or wrong, what that means for a run, and how to mend it."""
