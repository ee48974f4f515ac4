"""Part models as ONNX files, run by ONNX Runtime; what the file does not say, options do.

Letters: C channels, H, W size of the image, H', W' size of the model's input.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ...files import read_json
from ...taxonomies import PartTaxonomy, get_taxonomy
from ..inputs import BACKGROUNDS, KINDS, PartScores, Source
from ..resources import existing_file, open_onnx
from ..tensors import as_tensor
from .arrays import Given
from .onnx_padding import explain_padding, with_explicit_padding
from .read import checked_scores

__all__ = ["OnnxOptions", "OnnxParts"]

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_RANGES = {"0-1": (1 / 255, 0.0), "-1-1": (1 / 127.5, -1.0), "0-255": (1.0, 0.0)}


@dataclass(frozen=True)
class OnnxOptions:
    """What is to be known of an ONNX file; as keywords, or as the keys of ``FILE.json``.

    Attributes:
        range: of the input's numbers, before mean and std: "0-1", "-1-1" or "0-255". Needed.
        kind: of the output: "logits" (before the softmax), "prob" or "map". Needed.
        mean, std: one number, or one a channel in the order of ``channels``: what is subtracted,
            then divided by, in units of ``range``.
        channels: "RGB" or "BGR".
        layout: "NCHW" or "NHWC", of input and outputs; default: by the input's shape.
        size: [H', W'], or the longer side; default: by the input's shape. Photos are stretched to
            it; with a longer side, they keep their shape but for ``stride``.
        stride: H' and W' are multiples of it, ...
        plus_one: ... plus 1.
        output: name of the part output; may be left out if there is only one.
        person_output: name of the person's logit, of a model without a background channel.
        background, align_corners: see ``PartScores``. Corners are aligned by default where the
            sizes are a multiple of the stride plus 1.
        taxonomy: name of the parts, if known by name.
    """

    range: str | None = None
    kind: str | None = None
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    channels: str = "RGB"
    layout: str | None = None
    size: int | tuple[int, int] | None = None
    stride: int = 1
    plus_one: bool = False
    output: str | None = None
    person_output: str | None = None
    background: str | None = None
    align_corners: bool | None = None
    taxonomy: str | None = None


class OnnxParts(Source):
    """A part model in an ONNX file.

    Args:
        file: ``FILE.onnx``; ``FILE.json`` beside it may hold options.
        taxonomy: of the model's parts.
        options: fields of :class:`OnnxOptions`; they count more than the file's.

    Raises:
        ImportError: onnxruntime is not installed.
        FileNotFoundError: no such file.
        ValueError: an option that is missing, unknown, or does not fit the model; a model that
            ONNX Runtime refuses.
    """

    def __init__(self, file: str, *, taxonomy: PartTaxonomy | None = None, **options) -> None:
        path = Path(file).expanduser()
        if not path.is_file() and path.with_name(path.name + ".onnx").is_file():
            path = path.with_name(path.name + ".onnx")
        existing_file(path, "The ONNX model")
        self._path, self._options = path, _options(path, options)
        self._session = open_onnx(path, path)
        self._input = _input_of(self._session, self._options, path)
        self._layout = _layout(self._input, self._options, path)
        self._outputs = _outputs(self._session, self._options, path)
        self.taxonomy = taxonomy or (
            get_taxonomy(self._options.taxonomy) if self._options.taxonomy else None
        )

    @property
    def options(self) -> OnnxOptions:
        """What was said of the model."""
        return self._options

    def with_options(self, **changes) -> OnnxParts:
        """The same model with another input: ``range``, ``mean``, ``std``, ``channels``."""
        other = copy.copy(self)
        other._options = replace(self._options, **changes)
        return other

    def __call__(self, pixels: np.ndarray, path: Path | None = None) -> PartScores:
        feed = {self._input.name: self._prepared(pixels)}
        try:
            arrays = self._session.run(self._outputs, feed)
        except Exception as error:  # of classes that ONNX Runtime does not export
            if not explain_padding(error):
                raise ValueError(f"{self._path}: ONNX Runtime fails: {error}") from error
            self._session = open_onnx(with_explicit_padding(self._path, error), self._path)
            arrays = self._session.run(self._outputs, feed)
        arrays = [self._channels_first(array) for array in arrays]
        options = self._options
        aligned = options.plus_one if options.align_corners is None else options.align_corners
        given = Given(arrays[0], options.kind, person_logit=arrays[1] if arrays[1:] else None)
        return checked_scores(
            given,
            background=options.background,
            align_corners=aligned,
            taxonomy=self.taxonomy,
            source=f"onnx:{self._path}",
        )

    def _prepared(self, pixels: np.ndarray) -> np.ndarray:
        """(1, 3, H', W') or (1, H', W', 3) of the type that the model takes."""
        options = self._options
        height, width = _input_size(
            pixels.shape[:2], self._input, self._layout, options, self._path
        )
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        values = np.asarray(resized, dtype=np.float32)
        if options.channels == "BGR":
            values = values[..., ::-1]
        scale, shift = _RANGES[options.range]
        values = (values * scale + shift - np.float32(options.mean)) / np.float32(options.std)
        if self._layout == "NCHW":
            values = values.transpose(2, 0, 1)
        return np.ascontiguousarray(values[None], dtype=_TYPES[self._input.type])

    def _channels_first(self, array: np.ndarray) -> np.ndarray:
        if array.ndim == 4 and self._layout == "NHWC":
            return array.transpose(0, 3, 1, 2)
        return array


def _options(path: Path, said: dict) -> OnnxOptions:
    sidecar = path.with_suffix(".json")
    stored = {}
    if sidecar.is_file():
        stored = read_json(sidecar)
        if not isinstance(stored, dict):
            raise ValueError(f"{sidecar} holds a {type(stored).__name__}, not options by name.")
    known = [field.name for field in fields(OnnxOptions)]
    for source, names in ((str(sidecar), stored), (f"onnx:{path}", said)):
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ValueError(
                f"{source}: there is no option {', '.join(unknown)}; there are {', '.join(known)}."
            )
    options = OnnxOptions(**(stored | said))
    _check_options(options, path, sidecar)
    return options


def _check_options(options: OnnxOptions, path: Path, sidecar: Path) -> None:
    choices = {
        "range": tuple(_RANGES),
        "kind": KINDS,
        "channels": ("RGB", "BGR"),
        "layout": (None, "NCHW", "NHWC"),
        "background": (None, *BACKGROUNDS),
    }
    for name, allowed in choices.items():
        value = getattr(options, name)
        if value in allowed:
            continue
        shown = ", ".join(repr(choice) for choice in allowed if choice is not None)
        missing = value is None
        raise ValueError(
            f"onnx:{path}: {name} is {'not said' if missing else repr(value)}; one of {shown}. "
            f"Pass {name}=..., or write it into {sidecar}."
        )
    _check_numbers(options, path)


def _check_numbers(options: OnnxOptions, path: Path) -> None:
    for name in ("mean", "std"):
        value = as_tensor(getattr(options, name), name)
        if value.numel() not in (1, 3):
            raise ValueError(f"onnx:{path}: {name} has {value.numel()} numbers, not 1 or 3.")
    if not (as_tensor(options.std, "std") > 0).all():
        raise ValueError(f"onnx:{path}: std is {options.std}; it must be above 0.")
    size = options.size
    sides = size if isinstance(size, (list, tuple)) and len(size) == 2 else [size]
    if size is not None and not all(map(_is_count, sides)):
        raise ValueError(
            f"onnx:{path}: size is {size!r}; it must be a whole number of pixels, at least 1, or "
            "two, the height and the width."
        )
    if not _is_count(options.stride):
        raise ValueError(
            f"onnx:{path}: stride is {options.stride!r}; it must be a whole number, at least 1."
        )
    for name in ("plus_one", "align_corners"):
        if getattr(options, name) not in (None, True, False):
            raise ValueError(
                f"onnx:{path}: {name} is {getattr(options, name)!r}; it must be true or false."
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def _input_of(session, options: OnnxOptions, path: Path):
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        shown = ", ".join(f"{i.name} {i.shape}" for i in inputs)
        raise ValueError(
            f"onnx:{path} has the inputs {shown}; it must have one, of four dimensions."
        )
    if inputs[0].type not in _TYPES:
        raise ValueError(
            f"onnx:{path} takes {inputs[0].type}; it must be one of {', '.join(_TYPES)}."
        )
    plain = (
        options.range == "0-255"
        and not np.any(options.mean)
        and np.all(np.asarray(options.std) == 1)
    )
    if inputs[0].type == "tensor(uint8)" and not plain:
        raise ValueError(
            f"onnx:{path} takes whole numbers: range must be '0-255', without mean and std."
        )
    return inputs[0]


def _layout(model_input, options: OnnxOptions, path: Path) -> str:
    shape = model_input.shape
    found = [name for name, axis in (("NCHW", 1), ("NHWC", 3)) if shape[axis] == 3]
    if options.layout is None and len(found) != 1:
        raise ValueError(f"onnx:{path}: the input's shape is {shape}; say layout='NCHW' or 'NHWC'.")
    layout = options.layout or found[0]
    axis = 1 if layout == "NCHW" else 3
    if isinstance(shape[axis], int) and shape[axis] != 3:
        raise ValueError(f"onnx:{path}: layout={layout!r}, but the input's shape is {shape}.")
    return layout


def _outputs(session, options: OnnxOptions, path: Path) -> list[str]:
    names = [output.name for output in session.get_outputs()]
    part = options.output or (names[0] if len(names) == 1 else None)
    wanted = [part] + [options.person_output] * bool(options.person_output)
    if part is None or not set(wanted) <= set(names):
        said = ", ".join(map(repr, filter(None, wanted))) or "none"
        raise ValueError(
            f"onnx:{path} has the outputs {', '.join(names)}; said: {said}. Name them: output= "
            "and, of a model without a background channel, person_output=."
        )
    return wanted


def _input_size(image_size, model_input, layout: str, options: OnnxOptions, path: Path):
    """H', W'."""
    shape = model_input.shape[2:] if layout == "NCHW" else model_input.shape[1:3]
    fixed = [n if isinstance(n, int) else None for n in shape]
    if options.size is None and None in fixed:
        raise ValueError(
            f"onnx:{path} takes any size {list(shape)}: say size=(height, width), or one side."
        )
    size = fixed if options.size is None else options.size
    if not isinstance(size, int):
        wanted = tuple(int(n) for n in size)
    else:
        scale = size / max(image_size)
        wanted = tuple(_multiple(n * scale, options) for n in image_size)
    for axis, (n, own) in enumerate(zip(wanted, fixed, strict=True)):
        if own not in (None, n) or n < 1 or (n - options.plus_one) % options.stride:
            raise ValueError(
                f"onnx:{path}: an input of {wanted} does not fit: the model's is {list(shape)}, "
                f"multiples of {options.stride}{' plus 1' * options.plus_one} (axis {axis})."
            )
    return wanted


def _multiple(length: float, options: OnnxOptions) -> int:
    steps = max(1, round((length - options.plus_one) / options.stride))
    return steps * options.stride + options.plus_one
