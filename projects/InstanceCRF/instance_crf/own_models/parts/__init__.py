"""Adapters for the outputs of part models, a module each."""

from .loading import load_part_model
from .q import to_q
from .read import read_part_scores

__all__ = ["load_part_model", "read_part_scores", "to_q"]
