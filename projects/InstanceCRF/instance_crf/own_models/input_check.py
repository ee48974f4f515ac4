"""Whether a part model gets the input that it was trained with.

A wrong range or order of the channels gives parts that look plausible, only fewer and worse. But
the detector says where people are, too, and independently. So the model is also given what it might
have been trained with in place of what is stated, and the input whose foreground agrees best with
the boxes is probably the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..crf.potentials import box_masks
from .inputs import Source
from .join import Join, Problem
from .parts.onnx_model import OnnxParts

__all__ = ["InputCheck", "alternatives", "check_input"]

LEAST_SCORE = 0.5
"""Of boxes that say where people are."""
LEAST_IMAGES = 5
"""Of fewer, nothing is said."""
CLEARLY = 0.75
"""Share of the images on which another input must agree better."""
_WORKING_SIZE = 256
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class InputCheck:
    """What each input gives, the stated one first.

    Attributes:
        agreement: input, in words -> IoU of the foreground and the boxes, one an image.
    """

    agreement: dict[str, np.ndarray]

    @property
    def stated(self) -> np.ndarray:
        """Of the input that the model gets now."""
        return next(iter(self.agreement.values()))

    def better(self, name: str) -> float:
        """The share of the images on which this input agrees better than the stated one."""
        return float((self.agreement[name] > self.stated).mean())

    def verdict(self) -> str | None:
        """What the input probably should be; None if nothing is better than what is stated."""
        if len(self.stated) < LEAST_IMAGES:
            return None
        others = [name for name in list(self.agreement)[1:] if self.better(name) >= CLEARLY]
        return max(others, key=lambda name: self.agreement[name].mean(), default=None)

    def __str__(self) -> str:
        lines = ["| input | agrees with the boxes | better than stated |", "|---|---|---|"]
        counted = self.agreement if len(self.stated) else {}
        for number, (name, values) in enumerate(counted.items()):
            share = f"on {100 * self.better(name):.0f} % of the photos" if number else ""
            lines.append(f"| {name} | {100 * values.mean():.0f} % | {share} |")
        found, count = self.verdict(), len(self.stated)
        if count < LEAST_IMAGES:
            end = f"{count} photos with people are too few for a verdict; give {LEAST_IMAGES}."
        elif found is None:
            end = f"On {count} photos no other input agrees clearly better: it seems right."
        else:
            end = f"The input is probably wrong: on {count} photos {found} agrees clearly better."
        return "\n".join([*lines, "", end])


def check_input(
    model: Source,
    detector: Source,
    images: Iterable[Any],
    *,
    on_error: Callable[[Any, Exception], object] | None = None,
    **options: Any,
) -> InputCheck:
    """Try a part model with other inputs than the one that it gets.

    Args:
        model: of an ONNX file, all of its input is tried; of others, the order of the channels.
        detector: says where people are.
        images: whatever `parse` takes; those without a box of a score of 0.5 do not count.
        on_error: called with an image that cannot be parsed, which is left out, and why; without
            it, the error is raised.
        options: of `Join`: ``parts``, the taxonomy, if the model does not know it, ...

    Raises:
        ValueError: what `parse` raises.
    """
    join = Join(
        kind="prob", **{"working_size": _WORKING_SIZE, "least_score": LEAST_SCORE, **options}
    )
    sources = dict(alternatives(model))
    agreement: dict[str, list[float]] = {name: [] for name in sources}
    for image in images:
        try:
            values = _agreements(join, image, sources, detector)
        except ImportError:
            raise  # would be the same for all images
        except Exception as error:  # models of others raise what they like
            if on_error is None:
                raise
            on_error(image, error)
            continue
        for name, value in values.items():
            agreement[name].append(value)
    return InputCheck({name: np.array(values) for name, values in agreement.items()})


def alternatives(parts: Source) -> Iterator[tuple[str, Callable]]:
    """The model as it is, and with other inputs, by what these are."""
    yield "as stated", parts
    if not isinstance(parts, OnnxParts):
        yield "channels the other way round", _Swapped(parts)
        return
    said = parts.options
    other = {"RGB": "BGR", "BGR": "RGB"}[said.channels]
    yield f"channels {other}", parts.with_options(channels=other)
    plain = {"mean": 0.0, "std": 1.0}
    for choice in ("0-1", "-1-1", "0-255"):
        changes = {"range": choice, **plain}
        if any(not np.array_equal(getattr(said, key), value) for key, value in changes.items()):
            yield f"range {choice}", parts.with_options(**changes)
    mean, std = (values[:: 1 if said.channels == "RGB" else -1] for values in _IMAGENET)
    if not (np.allclose(said.mean, mean) and np.allclose(said.std, std)):
        changes = {"range": "0-1", "mean": mean, "std": std}
        yield "range 0-1, mean and std of ImageNet", parts.with_options(**changes)


class _Swapped(Source):
    """A part model that is given the channels the other way round."""

    def __init__(self, parts: Source) -> None:
        self.parts, self.taxonomy = parts, parts.taxonomy

    def __call__(self, pixels: np.ndarray, path=None):
        return self.parts(np.ascontiguousarray(pixels[..., ::-1]), path)


def _agreements(
    join: Join, image: Any, sources: Mapping[str, Callable], detector: Source
) -> dict[str, float]:
    """Of each source; empty without a box."""
    values = {}
    for name, source in sources.items():
        problem = join.prepare(image, source, detector)
        if not len(problem.boxes):
            return {}
        values[name] = _agreement(problem)
    return values


def _agreement(problem: Problem) -> float:
    """IoU of Q's foreground and what is in any box."""
    foreground = problem.q[0] < 0.5
    boxes = box_masks(problem.boxes, *foreground.shape).any(2)
    return float((foreground & boxes).sum() / (foreground | boxes).sum().clamp(min=1))
