"""Whatever a part model gives, as `PartScores`.

Letters: C channels, h, w size of the model's output.
"""

from __future__ import annotations

import os

import numpy as np
from PIL import Image
from torch import Tensor

from ...data.label_io import check_kept
from ...taxonomies import PartTaxonomy
from ..inputs import KINDS, PartScores
from ..tensors import as_tensor
from .arrays import ARGUMENTS, Given, check_values, one_image
from .files import read_file
from .outputs import UNSAID, read_output

__all__ = ["checked_scores", "read_part_scores"]

_ID_MODES = ("L", "P", "I", "I;16")


def read_part_scores(
    value,
    kind: str,
    *,
    align_corners: bool | None = None,
    background: str | None = None,
    person_logit=None,
) -> PartScores:
    """What a part model says of one image, from an array, a library's output or a file.

    Args:
        value: a tensor or an array, (C, h, w) or (1, C, h, w) (any floating point), of a map (h, w)
            integers; an output of transformers, torchvision or ultralytics (see ``outputs``); a
            path (see ``files``); a PIL picture of ids; a ``PartScores``, which is returned as it
            is; or a list of one of these.
        kind: "prob", "logits" or "map". The output of a mask classifier becomes "prob", whether it
            is passed as "prob" or "logits".
        align_corners, background: see ``PartScores``. Default: what the source says; else corners
            not aligned, background first. In a map, "last" says that id P is the background and
            0..P-1 are the parts.
        person_logit: (1, h, w) or (h, w), of a model without a background channel.

    Raises:
        ValueError: several images; a shape that does not fit the kind; numbers that are not what
            they are said to be (probabilities that do not sum to 1, logits that do, ...); a
            background that has to be said.
        FileNotFoundError: no such file.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it is one of {', '.join(KINDS)}.")
    said = {
        "align_corners": align_corners,
        "background": background,
        "person_logit": person_logit,
    }
    value = _single(value, kind)
    if isinstance(value, PartScores):
        return _as_it_is(value, said)
    source = str(value) if isinstance(value, str | os.PathLike) else ""
    return checked_scores(_given(value, kind), **said, source=source)


def checked_scores(
    given: Given,
    *,
    align_corners: bool | None = None,
    background: str | None = None,
    person_logit=None,
    taxonomy: PartTaxonomy | None = None,
    source: str = "",
) -> PartScores:
    """``PartScores`` of what an adapter found.

    Args:
        given: what it found, and what it knows of it.
        align_corners, background, person_logit: as said by the user, which counts more.
        taxonomy: of the model, where it is known.
        source: what messages begin with, e.g. the file.

    Raises:
        ValueError: as :func:`read_part_scores`.
    """
    try:
        values = one_image(as_tensor(given.values, ARGUMENTS[given.kind]), given.kind)
        check_values(values, given.kind, sums=given.sums)
        person = given.person_logit if person_logit is None else person_logit
        if person is not None:
            person = _checked_person(person).to(values.device)
        return PartScores(
            values,
            given.kind,
            _background(given, background, person is not None),
            bool(given.align_corners) if align_corners is None else align_corners,
            person_logit=person,
            taxonomy=taxonomy,
        )
    except ValueError as error:
        raise ValueError(f"{source}: {error}" if source else str(error)) from None


def _single(value, kind: str):
    """What is in a list of one; a list of numbers is an array."""
    if not isinstance(value, list | tuple) or not value:
        return value
    if isinstance(value[0], list | tuple | int | float):
        return as_tensor(value, ARGUMENTS[kind])
    if len(value) != 1:
        raise ValueError(
            f"{ARGUMENTS[kind]} is a list of {len(value)} {type(value[0]).__name__}: give one "
            "image at a time."
        )
    return value[0]


def _given(value, kind: str) -> Given:
    if isinstance(value, str | os.PathLike):
        return read_file(value, kind)
    if isinstance(value, Image.Image):
        return _of_picture(value, kind)
    if isinstance(value, Tensor | np.ndarray):
        return Given(value, kind)
    output = read_output(value, kind)
    if output is not None:
        return output
    if hasattr(value, "__array__"):
        return Given(value, kind)
    hint = " Call it with the image." if callable(value) else ""
    raise ValueError(
        f"{ARGUMENTS[kind]} is a {type(value).__name__}: it must be an array, a tensor, a path, or "
        f"an output of transformers, torchvision or ultralytics.{hint}"
    )


def _of_picture(picture: Image.Image, kind: str) -> Given:
    if kind != "map":
        raise ValueError(f"A picture of ids is part_map, not {ARGUMENTS[kind]}.")
    if picture.mode not in _ID_MODES:
        raise ValueError(
            f"part_map is a picture of mode {picture.mode}; pictures of ids are single-channel or "
            "palette pictures (L, P, I or I;16), not colours."
        )
    check_kept(picture, "part_map")
    return Given(np.array(picture), "map")


def _as_it_is(scores: PartScores, said: dict) -> PartScores:
    for name, value in said.items():
        own = getattr(scores, name)
        if value is not None and value is not own and (name == "person_logit" or value != own):
            shown = "" if name == "person_logit" else f" ({own!r} and {value!r})"
            raise ValueError(
                f"{name} is given twice{shown}, by the PartScores and beside it: say it once, or "
                "use dataclasses.replace."
            )
    check_values(scores.values, scores.kind, sums=True)
    if scores.person_logit is not None:
        _range_of_person(scores.person_logit)
    return scores


def _background(given: Given, said: str | None, has_person: bool) -> str:
    if has_person and said not in (None, "none"):
        raise ValueError(
            f"background={said!r} and a person_logit: with a channel for the background, leave "
            "person_logit out; without, pass background='none'."
        )
    if said is None and given.background == UNSAID:
        raise ValueError(
            "Results.semantic_mask: the model's names have no background. Say background='first' "
            "(id 0) or 'last' (the last id, as in models trained on polygons)."
        )
    return said or ("none" if has_person else given.background or "first")


def _checked_person(person) -> Tensor:
    """(1, h, w)."""
    person = as_tensor(person, "person_logit")
    while person.dim() > 2 and person.shape[0] == 1:
        person = person[0]
    least, most = _range_of_person(person)
    if 0 <= least and most <= 1:
        raise ValueError(
            f"person_logit lies in {least:.4g}..{most:.4g}: it seems to be a probability. Pass "
            "what the sigmoid was taken of."
        )
    return person[None]


def _range_of_person(person: Tensor) -> tuple[float, float]:
    if not person.numel():
        raise ValueError(f"person_logit is {tuple(person.shape)}: it is empty.")
    least, most = (float(v) for v in person.aminmax())
    if not (np.isfinite(least) and np.isfinite(most)):
        raise ValueError("person_logit has numbers that are not finite (NaN or infinite).")
    return least, most
