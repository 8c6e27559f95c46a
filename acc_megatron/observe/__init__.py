"""The log of a run in JSON lines, TensorBoard and trackers, and a self-contained report page."""
