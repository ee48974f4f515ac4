"""Adapters for the outputs of part models, a module each."""

from .crops import parts_from_crops
from .loading import load_part_model
from .q import to_q
from .read import read_part_scores
from .suspicion import suspicious

__all__ = ["load_part_model", "parts_from_crops", "read_part_scores", "suspicious", "to_q"]
