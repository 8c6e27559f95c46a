"""Verified reasoning from a teacher model."""
