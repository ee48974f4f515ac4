"""Part models by a line of text: of transformers, torchvision, ONNX, BodyPix, or a folder."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ...taxonomies import PartTaxonomy, get_taxonomy
from ..inputs import Source

__all__ = ["load_part_model"]

_LOADERS = {
    "hf": ("hf", "HfParts"),
    "torchvision": ("torchvision_models", "TorchvisionParts"),
    "onnx": ("onnx_model", "OnnxParts"),
    "bodypix": ("bodypix", "load_bodypix"),
}


def load_part_model(
    spec: str | os.PathLike, *, taxonomy: PartTaxonomy | str | None = None, **options
) -> Source:
    """A part model as a function of an image.

    Args:
        spec: one of

            - ``hf:NAME`` or ``hf:FOLDER``: a segmentation model of transformers;
            - ``torchvision:NAME`` or ``torchvision:NAME:WEIGHTS_FILE``: a segmentation model of
              torchvision, with its own or a saved state dict;
            - ``onnx:FILE``: see ``OnnxParts``; what it needs to know may be in FILE.json;
            - ``bodypix:FOLDER``: BodyPix 2.0 in TensorFlow.js' format;
            - a folder of ``.npy``, ``.npz`` or ``.png``, named by the photo's stem.
        taxonomy: of the model, its name or file; default: what the model says of its labels.
        options: of the kind: ``background``, ``align_corners``, ``kind``, ``device``, ...

    Raises:
        ValueError: an unknown option, a model that is no part model.
        FileNotFoundError: no such file or folder, or an unknown kind.
        ImportError: the library is not installed; the message says how to.
    """
    text = os.fspath(spec)
    kind, colon, name = text.partition(":")
    if Path(text).expanduser().is_dir():
        kind, name, place = "a folder", text, ("folder", "FolderOfParts")
    elif colon and kind in _LOADERS:
        place = _LOADERS[kind]
        if not name:
            raise ValueError(f"{text!r} names no model: it is {kind}:NAME.")
    else:
        kinds = ", ".join(f"{kind}:..." for kind in _LOADERS)
        raise FileNotFoundError(f"{text!r} is neither a folder of part scores nor one of {kinds}.")
    loader = getattr(import_module(f".{place[0]}", __package__), place[1])
    if taxonomy is not None:
        options["taxonomy"] = get_taxonomy(taxonomy)
    _check_options(loader, options, kind)
    return loader(name, **options)


def _check_options(loader: Callable, options: dict, what: str) -> None:
    parameters = inspect.signature(loader).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(
            f"{what}: there is no option {', '.join(unknown)}; there are {', '.join(known)}."
        )
