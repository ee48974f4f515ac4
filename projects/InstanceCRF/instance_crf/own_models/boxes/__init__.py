"""Detections of all kinds of detectors as :class:`~instance_crf.own_models.inputs.Detections`."""

from .checks import check_detections
from .classes import select_classes
from .reading import read_detections
from .sources import DETECTOR_KINDS, load_detector

__all__ = [
    "DETECTOR_KINDS",
    "check_detections",
    "load_detector",
    "read_detections",
    "select_classes",
]
