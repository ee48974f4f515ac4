"""Adapters for the outputs of part models, a module each."""

from .q import to_q
from .read import read_part_scores

__all__ = ["read_part_scores", "to_q"]
