"""COCO's masks, checked before pycocotools sees them.

pycocotools believes what it is given: runs that do not fill the image make it read beyond them, or
compare two masks for ever; a polygon with a NaN or a huge coordinate takes all memory. Here every
mask is a sound one, or an error.

Letters: H, W image size in pixels; M masks of one image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..entries import as_whole
from ..extras import require

__all__ = ["as_image_size", "check_mask_size", "decode_mask", "encode_masks"]

_MAX_SIDE = 65535
_MAX_PIXELS = 2**28
_MAX_OUTLINE = 2**24
"""Pixels along all of a mask's polygons; pycocotools needs 40 bytes for each."""
_LONGEST_NUMBER = 7
"""Characters of 5 bits each: numbers of more than 32 bits are no runs."""


def as_image_size(height: object, width: object, where: str) -> tuple[int, int]:
    """(H, W) as integers.

    Args:
        height, width: as a file has them.
        where: opens the message.

    Raises:
        ValueError: no whole numbers, or no size of an image.
    """
    size = tuple(
        as_whole(value, f"{where}: {key}", 1, _MAX_SIDE)
        for key, value in (("height", height), ("width", width))
    )
    if size[0] * size[1] > _MAX_PIXELS:
        raise ValueError(
            f"{where} is {width}x{height} pixels; more than {_MAX_PIXELS} are refused."
        )
    return size


def encode_masks(
    segmentations: Sequence, size: tuple[int, int], names: Sequence[str]
) -> list[dict]:
    """The masks of one image as pycocotools' compressed run lengths.

    Args:
        segmentations: M, each ``{"size": [H, W], "counts"}`` with the counts as numbers or as
            compressed text; or a list of polygons x, y, x, y, …
        size: (H, W) of the image.
        names: M, what opens the message about each.

    Raises:
        ValueError: no such masks, masks of another size, runs that do not fill the image, polygons
            far outside of it.
        ImportError: pycocotools is not installed.
    """
    coding = require("pycocotools.mask", "eval")
    masks, texts = list(segmentations), []
    for row, (segmentation, name) in enumerate(zip(segmentations, names, strict=True)):
        if isinstance(segmentation, list):
            _check_polygons(segmentation, size, name)
            masks[row] = coding.merge(coding.frPyObjects(segmentation, *size))
            continue
        check_mask_size(segmentation, size, name)
        counts = segmentation["counts"]
        if isinstance(counts, list):
            runs = _runs_of_numbers(counts, size[0] * size[1], name)
            masks[row] = coding.frPyObjects(_without_empty(runs, size), *size)
        elif isinstance(counts, (str, bytes)):
            texts.append(row)
        else:
            raise ValueError(f"{name}: counts must be a list or a text, got {counts!r:.60}.")
    found = _check_texts([masks[row]["counts"] for row in texts], size, [names[r] for r in texts])
    for k, runs in found:
        masks[texts[k]] = coding.frPyObjects(_without_empty(runs, size), *size)
    return masks


def decode_mask(segmentation: object, size: tuple[int, int], where: str) -> NDArray[np.uint8]:
    """(H, W) 0 or 1; arguments and errors as :func:`encode_masks`, of a single mask."""
    masks = encode_masks([segmentation], size, [where])
    return require("pycocotools.mask", "eval").decode(masks[0])


def check_mask_size(segmentation: object, size: tuple[int, int], where: str) -> None:
    """Whether run lengths are those of an image of ``size``; their runs are not looked at.

    Raises:
        ValueError: no run lengths, or of another size.
    """
    if not isinstance(segmentation, Mapping) or not {"counts", "size"} <= segmentation.keys():
        raise ValueError(f"{where} has no RLE or polygon, but {segmentation!r:.60}.")
    given = segmentation["size"]
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        raise ValueError(f"{where}: size must be [height, width], got {given!r:.60}.")
    if as_image_size(*given, f"{where}: size") != tuple(size):
        raise ValueError(
            f"{where} is {given[1]}x{given[0]} pixels, but the image is {size[1]}x{size[0]}. Masks "
            "must have the size of the original image."
        )


def _runs_of_numbers(counts: list, pixels: int, where: str) -> NDArray[np.int64]:
    try:
        runs = np.asarray(counts)
    except ValueError:  # lists of different lengths
        runs = np.asarray(None)
    if runs.ndim != 1 or runs.dtype.kind not in "iuf":
        raise ValueError(f"{where}: counts must be whole numbers, got {counts!r:.60}.")
    if not ((runs >= 0) & (runs <= pixels) & (runs == np.floor(runs))).all():
        raise ValueError(f"{where}: counts must be whole numbers in 0..{pixels}, got {runs}.")
    runs = runs.astype(np.int64)
    if runs.sum() != pixels:
        raise _not_filled(where, runs.sum(), pixels)
    return runs


def _check_texts(
    texts: Sequence[str | bytes], size: tuple[int, int], names: Sequence[str]
) -> list[tuple[int, NDArray[np.int64]]]:
    """Check compressed run lengths, all of an image at once.

    COCO's coding: a character is 48 + 5 bits of a number, the lowest first, + 32 if more follow;
    the fifth bit of the last is the sign. From the fourth number on, what is coded is the
    difference from the number two before.

    Returns:
        index and runs of the texts in which an empty run hides inside.
    """
    if not texts:
        return []
    pixels = size[0] * size[1]
    data = [t if isinstance(t, bytes) else t.encode("utf-8", "surrogatepass") for t in texts]
    lengths = np.array([len(text) for text in data])
    code = np.frombuffer(b"".join(data), dtype=np.uint8).astype(np.int64) - 48
    stops = np.cumsum(lengths)

    def refuse_if(wrong: NDArray, why: str) -> None:
        if wrong.any():
            k = int(np.argmax(wrong))
            raise ValueError(f"{names[k]}: counts {data[k][:40]!r} {why}.")

    refuse_if(lengths == 0, "are empty")
    starts = stops - lengths
    strange = np.logical_or.reduceat((code < 0) | (code > 63), starts)
    refuse_if(strange, "are not run lengths")
    refuse_if(code[stops - 1] >= 32, "are cut short")
    last = np.flatnonzero(code < 32)
    first = np.append(0, last[:-1] + 1)
    digits = last - first + 1
    too_long = np.zeros(len(data), dtype=bool)
    too_long[np.searchsorted(stops, first[digits > _LONGEST_NUMBER], side="right")] = True
    refuse_if(too_long, "are not run lengths")

    place = np.arange(len(code)) - np.repeat(first, digits)
    numbers = np.add.reduceat((code & 31) << (5 * place), first)
    numbers -= ((code[last] & 16) != 0) * (np.int64(1) << (5 * digits))
    begin = np.searchsorted(first, starts)  # the first number of each text
    count = np.diff(np.append(begin, len(numbers)))
    runs = _undo_differences(numbers, begin, count)

    refuse_if(np.minimum.reduceat(runs, begin) < 0, "have a negative run")
    totals = np.add.reduceat(runs, begin)
    for k in np.flatnonzero(totals != pixels):
        raise _not_filled(names[k], totals[k], pixels)
    empty = runs == 0
    empty[begin] = False
    texts_with = np.flatnonzero(np.logical_or.reduceat(empty, begin))
    return [(int(k), runs[begin[k] : begin[k] + count[k]]) for k in texts_with]


def _undo_differences(numbers: NDArray, begin: NDArray, count: NDArray) -> NDArray[np.int64]:
    """Runs of all texts; each run of a text is added to that two after it, but for its first."""
    sums = numbers.copy()
    sums[0::2] = np.cumsum(numbers[0::2])
    sums[1::2] = np.cumsum(numbers[1::2])
    local = np.arange(len(numbers)) - np.repeat(begin, count)
    before = np.where(begin > 0, sums[begin - 1], 0)
    runs = sums - np.where(local % 2 == 1, np.repeat(before, count), np.repeat(sums[begin], count))
    runs[begin] = numbers[begin]
    return runs


def _without_empty(runs: NDArray[np.int64], size: tuple[int, int]) -> dict:
    """The same mask without runs of no pixel inside, at which pycocotools stops to compare."""
    pixels = size[0] * size[1]
    changes, times = np.unique(np.cumsum(runs), return_counts=True)
    changes = changes[(times % 2 == 1) & (changes < pixels)]
    canonical = np.diff(np.concatenate([[0], changes, [pixels]]))
    return {"size": list(size), "counts": canonical.tolist()}


def _not_filled(where: str, total: int, pixels: int) -> ValueError:
    return ValueError(f"{where}: its runs are {total} pixels, but the image has {pixels}.")


def _check_polygons(rings: list, size: tuple[int, int], where: str) -> None:
    kinds = (list, tuple, np.ndarray)
    shaped = all(isinstance(r, kinds) and len(r) >= 6 and not len(r) % 2 for r in rings)
    if not rings or not shaped:
        raise ValueError(
            f"{where}: a polygon is not x, y, x, y, ... of at least three points: {rings!r:.60}."
        )
    try:
        points = np.asarray([value for ring in rings for value in ring])
    except ValueError:  # lists in the place of numbers
        points = np.asarray(None)
    if points.ndim != 1 or points.dtype.kind not in "iuf":
        raise ValueError(f"{where}: the coordinates of a polygon must be numbers: {rings!r:.60}.")
    points, (height, width) = points.reshape(-1, 2), size
    margin = max(size)  # annotators draw beyond the border
    sound = (points >= -margin) & (points <= (width + margin, height + margin))
    if not sound.all():  # NaN is never sound
        x, y = points[int(np.argmin(sound.all(1)))]
        raise ValueError(
            f"{where}: a polygon has the point {x:g}, {y:g}, but the image is {width}x{height}."
        )
    # The rings' joints count as edges, too: this is a bound.
    if len(points) * 3 * margin > _MAX_OUTLINE:
        outline = np.abs(np.diff(points, axis=0, append=points[:1])).max(1).sum()
        if outline + 3 * margin * len(rings) > _MAX_OUTLINE:
            raise ValueError(f"{where}: the polygons' outline is {outline:.3g} pixels long.")
