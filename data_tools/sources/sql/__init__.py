"""SQL agents."""
