"""The loss of Sec. 3.3: ground truth matched to the prediction, and the hardest pixels of it."""

from .matching import match_ground_truth
from .ohem import check_top_k, hardest_pixels_loss

__all__ = ["check_top_k", "hardest_pixels_loss", "match_ground_truth"]
