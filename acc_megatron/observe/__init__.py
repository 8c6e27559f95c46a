"""What a run shows: one JSON line a step, TensorBoard, and a self-contained report page."""
