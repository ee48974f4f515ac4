"""Detectors by a short text, as the command line takes them."""

from __future__ import annotations

from importlib import import_module
from numbers import Real

from ...inputs import Source

__all__ = ["DETECTOR_KINDS", "load_detector"]

DETECTOR_KINDS = {
    "torchvision": "torchvision:NAME[:WEIGHTS_FILE], a detector of torchvision.models.detection",
    "hf": "hf:NAME_OR_FOLDER, an object detector of transformers, e.g. hf:facebook/detr-resnet-50",
    "onnx": "onnx:FILE, a YOLOX network",
    "coco": "coco:FILE.json, detections of many images: COCO results, or {NAME: {boxes, scores}}",
}
_MODULES = {
    "torchvision": "torchvision_models",
    "hf": "transformers_models",
    "onnx": "yolox",
    "coco": "coco_file",
}


def load_detector(spec: str, *, least_score: float = 0.05, **options) -> Source:
    """A detector as a function of an image.

    Args:
        spec: ``KIND:NAME``, one of :data:`DETECTOR_KINDS`.
        least_score: detections below it are left out.
        **options: ``class_names``, the model's own table, of all kinds; ``device`` of
            torchvision's and transformers'. The others are told by the kind's module: what it
            does not know, it gives to the library's loader.

    Returns:
        A :class:`Source` that gives checked :class:`Detections` with ``class_names``.

    Raises:
        ValueError: an unknown kind or name, wrong options, weights of another model.
        FileNotFoundError: no such file or folder, or weights that cannot be downloaded.
        ImportError: the library is not installed; says what to install.
    """
    kind, _, name = str(spec).partition(":")
    if kind not in _MODULES or not name:
        kinds = "\n  ".join(DETECTOR_KINDS.values())
        raise ValueError(f"There is no detector {spec!r}; it may be\n  {kinds}")
    if not (isinstance(least_score, Real) and 0 <= least_score <= 1):
        raise ValueError(f"least_score is {least_score!r}; scores are 0..1.")
    module = import_module(f".{_MODULES[kind]}", __package__)
    try:
        return module.load(name, least_score=least_score, **options)
    except TypeError as error:
        raise ValueError(f"{spec}: wrong options {sorted(options)}: {error}") from error
