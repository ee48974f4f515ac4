"""Evaluation of instance-level parsing, usable without a model and without Detectron2.

The names below import NumPy, SciPy and pycocotools only. :mod:`.evaluators` is the one module
that needs Detectron2; ``PartInstanceEvaluator`` is imported from it when first asked for.
"""

from __future__ import annotations

from .average_precision import APResult, AveragePrecision
from .parsing import Comparison, Parsing
from .part_parsing import METRICS, PartParsingMetrics
from .protocols import PROTOCOLS, Protocol, get_protocol
from .semantic import MeanIoU

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
    "Protocol",
    "get_protocol",
]


def __getattr__(name: str):
    if name == "PartInstanceEvaluator":
        from .evaluators import PartInstanceEvaluator

        return PartInstanceEvaluator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
