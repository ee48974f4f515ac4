"""One's own models: somebody's parts and somebody's boxes, joined without training.

`parse` is the function; `load_part_model` and `load_detector` bring public models to it. No
library is imported before something of it is used.
"""

from .boxes import load_detector
from .inputs import Detections, PartScores, Source
from .parse import parse
from .parts import load_part_model, parts_from_crops

__all__ = [
    "Detections",
    "PartScores",
    "Source",
    "load_detector",
    "load_part_model",
    "parse",
    "parts_from_crops",
]
