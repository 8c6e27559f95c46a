"""Software-engineering agents."""
