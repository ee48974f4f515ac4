"""Evaluation of instance-level parsing, usable without a model and without Detectron2.

The paper's metrics are here, other people's metrics and file formats in :mod:`.toolkit`. What is
imported here needs NumPy, SciPy and Pillow only. :mod:`.evaluators` needs Detectron2; its names
are imported from it when first asked for.
"""

from __future__ import annotations

from .average_precision import APResult, AveragePrecision
from .parsing import Comparison, Parsing
from .protocols import PROTOCOLS, Protocol, get_protocol
from .semantic import MeanIoU
from .toolkit.part_parsing import METRICS, PartParsingMetrics

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "APResult",
    "AveragePrecision",
    "Comparison",
    "MeanIoU",
    "Parsing",
    "PartInstanceEvaluator",
    "PartParsingMetrics",
    "PredictionExporter",
    "Protocol",
    "export_predictions",
    "get_protocol",
]


def __getattr__(name: str):
    # These need Detectron2, which the rest does without.
    if name in ("PartInstanceEvaluator", "PredictionExporter"):
        from . import evaluators

        return getattr(evaluators, name)
    if name == "export_predictions":
        from .toolkit.export import export_predictions

        return export_predictions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
