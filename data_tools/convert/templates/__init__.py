"""Chat templates: how a model family writes a chat, one object per template."""
