"""What the frameworks share: the recipes."""

from . import recipe

__all__ = ["recipe"]
