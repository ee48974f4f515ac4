"""Files of predictions and of ground truth, one module a format, writer and readers together."""

from __future__ import annotations

from .base import ParsingReader, PredictionWriter
from .cihp import CIHPPredictions, CIHPTruth, CIHPWriter
from .coco import COCOPredictions, COCOTruth, COCOWriter
from .mhp import MHPPredictions, MHPTruth, MHPWriter
from .panoptic import PanopticPredictions, PanopticTruth, PanopticWriter
from .partpq import PartPQPredictions, PartPQWriter
from .tvg import TVGPredictions, TVGTruth, TVGWriter

__all__ = [
    "PREDICTION_READERS",
    "TRUTH_READERS",
    "WRITERS",
    "COCOPredictions",
    "COCOTruth",
    "ParsingReader",
    "PredictionWriter",
]

WRITERS: dict[str, type[PredictionWriter]] = {
    "cihp": CIHPWriter,
    "mhp": MHPWriter,
    "tvg": TVGWriter,
    "panoptic": PanopticWriter,
    "coco": COCOWriter,
    "partpq": PartPQWriter,
}
"""Every format that predictions can be exported to."""

PREDICTION_READERS: dict[str, type[ParsingReader]] = {
    "cihp": CIHPPredictions,
    "mhp": MHPPredictions,
    "tvg": TVGPredictions,
    "panoptic": PanopticPredictions,
    "partpq": PartPQPredictions,
}
"""Formats of disjoint label maps. COCO instance results may overlap: :mod:`.coco` reads those."""

TRUTH_READERS: dict[str, type[ParsingReader]] = {
    "cihp": CIHPTruth,
    "mhp": MHPTruth,
    "tvg": TVGTruth,
    "panoptic": PanopticTruth,
}
"""Formats of ground truth; ``cihp`` is the canonical layout of this project."""
