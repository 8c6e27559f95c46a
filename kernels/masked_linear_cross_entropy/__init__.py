"""Cross entropy of a linear head over supervised rows only."""
