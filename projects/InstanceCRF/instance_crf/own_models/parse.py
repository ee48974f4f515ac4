"""Somebody's parts and somebody's boxes -> whose part every pixel is. Nothing is trained.

Letters: H, W size of the image; h, w working size; P parts; D detections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from ..crf.instance_crf import InstanceCRFBase
from ..structures import PartInstances
from ..taxonomies import PartTaxonomy, get_taxonomy
from .images import is_image
from .join import LEAST_SCORE, MIN_SHARE, SMOOTHING, WORKING_SIZE, Join

__all__ = ["parse"]


def parse(
    image: Any,
    *,
    part_prob: Any = None,
    part_logits: Any = None,
    part_map: Any = None,
    detections: Any,
    parts: PartTaxonomy | str | None = None,
    merge: Mapping[str, Sequence[str]] | None = None,
    identity: Any = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    background: str | None = None,
    person_logit: Any = None,
    align_corners: bool | None = None,
    smoothing: float = SMOOTHING,
    least_score: float = LEAST_SCORE,
    min_share: float = MIN_SHARE,
    working_size: int = WORKING_SIZE,
    crf: InstanceCRFBase | None = None,
) -> PartInstances | Iterator[PartInstances]:
    """Join parts without identities and boxes without pixels.

    Args:
        image: a path, a Pillow image, a NumPy array (H, W, 3) uint8 RGB, or a tensor (3, H, W),
            uint8 or in 0-1 (`own_models.images`).
        part_prob, part_logits, part_map: one of them. Probabilities or logits (C, h, w) of any
            size, or ids (h, w), 0 background; or the output of a library, a file, or a function of
            the pixels (`own_models.parts`).
        detections: boxes, scores and classes; arrays, the output of a library, a file, or a
            function of the pixels (`own_models.boxes`).
        parts: a taxonomy, its name (`taxonomies.TAXONOMY_NAMES`) or file. None: the model's own.
        merge: new part -> names of the parts that it is made of; their probabilities are summed.
        identity: whose a pixel looks like: (D, h, w) in [0, 1], one row a detection given, or a
            function of (D, 4) boxes that gives it; beside masks, keypoints and votes where the
            models give them.
        class_names: the detector's own table, id -> name, where its output does not bring one.
        background: the channel of the background: "first" (the default), "last", or "none", with
            a ``person_logit``.
        person_logit: (1, h, w), for part logits without background: Q_0 = 1 - sigmoid(person),
            Q_j = sigmoid(person) softmax(parts)_j.
        align_corners: of the maps: their outer samples lie at the centres of the image's outer
            pixels. The default, False: half a sample inside, as convolutions and resizing do it.
        smoothing: what hard maps leave to the other labels, 0..1.
        least_score: detections below are left out.
        min_share: objects with less of their box's pixels are left out, and these are nobody's
            (`PartInstances.from_label_maps`).
        working_size: pixels of the longer side at which the CRF works; the answer has the image's
            own size, with borders that follow the picture.
        crf: another CRF than ``FactoredInstanceCRF`` with its initial weights.

    Of several images, given as a list or any other iterable, all of the above that belong to an
    image (``part_*``, ``detections``, ``identity``, ``person_logit``) are iterables as long, or
    functions. An iterator is returned, which works one image at a time.

    Returns:
        The objects in the order of the detections, ranked by score times share. ``notes`` say what
        was left out.

    Raises:
        FileNotFoundError, ImportError, ValueError: what is wrong with which input, and what to do.

    Warns:
        UserWarning: the input is possible but unlikely, as from a wrongly normalised image.
    """
    given = {"prob": part_prob, "logits": part_logits, "map": part_map}
    given = {kind: value for kind, value in given.items() if value is not None}
    if len(given) != 1:
        names = " and ".join(f"part_{kind}" for kind in given) or "none of them"
        raise ValueError(f"parse takes one of part_prob, part_logits and part_map; it got {names}.")
    [(kind, scores)] = given.items()
    join = Join(
        kind=kind,
        parts=None if parts is None else get_taxonomy(parts),
        merge=merge,
        class_names=class_names,
        background=background,
        align_corners=align_corners,
        smoothing=smoothing,
        least_score=least_score,
        min_share=min_share,
        working_size=working_size,
        crf=crf,
    )
    inputs = {
        f"part_{kind}": scores,
        "detections": detections,
        "identity": identity,
        "person_logit": person_logit,
    }
    if is_image(image) or isinstance(image, (bytes, Mapping)) or not isinstance(image, Iterable):
        return join(image, *inputs.values())
    columns = {name: _per_image(name, value) for name, value in inputs.items()}
    return _one_by_one(join, iter(image), columns)


def _one_by_one(
    join: Join, images: Iterator[Any], columns: Mapping[str, Iterator[Any]]
) -> Iterator[PartInstances]:
    """The answers for several images; of each argument all images' values."""
    number = -1
    for number, image in enumerate(images):
        row = {name: next(column, _MISSING) for name, column in columns.items()}
        for name, value in row.items():
            if value is _MISSING:
                raise ValueError(f"There are more than {number} images, but {name} has {number}.")
        try:
            result = join(image, *row.values())
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"Image {number} of the list: {error}") from error
        yield result
    for name, column in columns.items():
        if not isinstance(column, repeat) and next(column, _MISSING) is not _MISSING:
            raise ValueError(f"There are {number + 1} images, but {name} has more.")


_MISSING = object()


def _per_image(name: str, value: Any) -> Iterator[Any]:
    """A value for each image."""
    if value is None or callable(value):
        return repeat(value)
    # What several libraries call their result for one image may be gone through, too.
    single = isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable)
    if single or hasattr(value, "xyxy") or hasattr(value, "get_fields"):
        raise ValueError(
            f"Several images are given, but one {name} ({type(value).__name__}): it must be a list "
            "with one for each image, or a function."
        )
    return iter(value)
