"""Models that an evaluation can ask: endpoints, local folders and vLLM servers."""
