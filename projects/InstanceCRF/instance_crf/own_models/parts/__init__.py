"""Adapters for the outputs of part models, a module each."""

from .q import to_q

__all__ = ["to_q"]
