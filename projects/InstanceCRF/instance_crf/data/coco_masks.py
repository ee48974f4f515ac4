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


def encode_masks(segmentations: Sequence, size: tuple[int, int], where: str) -> list[dict]:
    """The masks of one image as pycocotools' compressed run lengths.

    Args:
        segmentations: M, each ``{"size": [H, W], "counts"}`` with the counts as numbers or as
            compressed text; or a list of polygons x, y, x, y, …
        size: (H, W) of the image.
        where: opens the message, followed by the number of the mask, from 0.

    Raises:
        ValueError: no such masks, masks of another size, runs that do not fill the image, polygons
            far outside of it.
        ImportError: pycocotools is not installed.
    """
    usual = [_is_usual(segmentation, list(size)) for segmentation in segmentations]
    pixels = size[0] * size[1]
    sound = _are_sound(
        [s["counts"] for s, u in zip(segmentations, usual, strict=True) if u], pixels
    )
    return [
        segmentation
        if sound and usual[row]
        else _encode(segmentation, size, f"{where}, mask {row}")
        for row, segmentation in enumerate(segmentations)
    ]


def decode_mask(segmentation: object, size: tuple[int, int], where: str) -> NDArray[np.uint8]:
    """(H, W) 0 or 1; arguments and errors as :func:`encode_masks`, of a single mask."""
    known = _is_usual(segmentation, list(size))
    if not known or not _are_sound([segmentation["counts"]], size[0] * size[1]):
        segmentation = _encode(segmentation, size, where)
    return require("pycocotools.mask", "eval").decode(segmentation)


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


def _encode(segmentation: object, size: tuple[int, int], where: str) -> dict:
    coding = require("pycocotools.mask", "eval")
    if isinstance(segmentation, list):
        _check_polygons(segmentation, size, where)
        return coding.merge(coding.frPyObjects(segmentation, *size))
    check_mask_size(segmentation, size, where)
    counts, pixels = segmentation["counts"], size[0] * size[1]
    if isinstance(counts, list):
        runs = _as_runs(counts, where)
    elif isinstance(counts, (str, bytes)):
        runs = _runs_of_text(counts, where)
    else:
        raise ValueError(f"{where}: counts must be a list or a text, got {counts!r:.60}.")
    if runs.size and runs.min() < 0:
        raise ValueError(f"{where}: its runs go down to {runs.min()}; none can be below 0.")
    if runs.sum() != pixels:
        raise ValueError(f"{where}: its runs are {runs.sum()} pixels, but the image has {pixels}.")
    return coding.frPyObjects({"size": list(size), "counts": _without_empty(runs)}, *size)


def _as_runs(counts: list, where: str) -> NDArray[np.int64]:
    try:
        runs = np.asarray(counts)
    except ValueError:  # lists of different lengths
        runs = np.asarray(None)
    known = runs.ndim == 1 and (runs.dtype.kind in "iuf" or not runs.size)
    if not known or not (np.abs(runs) <= _MAX_PIXELS).all() or (runs != np.floor(runs)).any():
        raise ValueError(f"{where}: counts must be whole numbers, got {counts!r:.60}.")
    return runs.astype(np.int64)


def _as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def _runs_of_text(text: str | bytes, where: str) -> NDArray[np.int64]:
    """Decode COCO's compressed run lengths.

    A character is 48 + 5 bits of a number, the lowest first, + 32 if more follow; the fifth bit of
    the last is the sign. From the fourth number on, what is coded is the difference from the number
    two before.
    """
    numbers, value, bits = [], 0, 0
    for character in _as_bytes(text):
        code = character - 48
        if not 0 <= code < 64 or bits == 5 * _LONGEST_NUMBER:
            raise ValueError(f"{where}: counts {text[:40]!r} are no run lengths.")
        value |= (code & 31) << bits
        bits += 5
        if code < 32:
            value -= (code >> 4) << bits
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value, bits = 0, 0
    if bits:
        raise ValueError(f"{where}: counts {text[-40:]!r} are cut short.")
    return np.array(numbers, dtype=np.int64)


def _is_usual(segmentation: object, size: list[int]) -> bool:
    """Whether it is a compressed text of this size, and likely of three numbers or more."""
    if type(segmentation) is not dict or segmentation.get("size") != size:
        return False
    counts = segmentation.get("counts")
    return isinstance(counts, (str, bytes)) and len(counts) > _LONGEST_NUMBER


def _are_sound(texts: Sequence[str | bytes], pixels: int) -> bool:
    """Whether all :func:`_is_usual` masks of an image are surely sound; quick, for they come by the
    thousand. If they are not, :func:`_encode` knows better and says why."""
    if not texts:
        return True
    data = [_as_bytes(text) for text in texts]
    lengths = np.fromiter(map(len, data), dtype=np.int64, count=len(data))
    code = np.frombuffer(b"".join(data), dtype=np.uint8) - np.uint8(48)
    starts = np.cumsum(lengths) - lengths
    if code.max() > 63 or code[starts + lengths - 1].max() > 31:
        return False
    follows = np.append(False, code[:-1] > 31)
    first = np.flatnonzero(~follows)
    numbers = _numbers(code, follows, first)
    if numbers is None:
        return False
    begin = np.searchsorted(first, starts)
    end = np.append(begin[1:], len(numbers))
    if (end - begin).min() < 3:  # what follows takes every second number
        return False
    totals, sound = numbers[begin], numbers[begin] >= 0
    for odd in (0, 1):
        # Each number is added to that two after it, so here is every second one. The sums go on
        # from text to text: what the last before has left is taken off.
        sums = np.cumsum(numbers[odd::2])
        low, high = (begin + 2 - odd) // 2, (end + 1 - odd) // 2
        left = np.append(0, sums)[low]
        edges = np.stack([low, high], axis=1).reshape(-1)[:-1]
        totals += np.add.reduceat(sums, edges)[::2] - left * (high - low)
        sound &= np.minimum.reduceat(sums, edges)[::2] > left
    return bool((sound & (totals == pixels)).all())


def _numbers(code: NDArray, follows: NDArray, first: NDArray) -> NDArray[np.int64] | None:
    """The numbers that characters code, or None if one has too many of them.

    Args:
        code: characters - 48, uint8.
        follows: of each character, whether it goes on with the number before.
        first: rows of the characters that begin a number.
    """
    bits = (code & 31).astype(np.int8)
    bits = np.where(code > 31, bits, (bits ^ 16) - 16)  # the last one has the sign
    numbers = bits[first].astype(np.int64)
    rows = np.flatnonzero(follows)
    owners = rows - np.arange(1, len(rows) + 1)
    place = np.ones(len(rows), dtype=np.int64)
    late = np.flatnonzero(follows[rows - 1])
    while len(late):
        place[late] += 1
        if place[late[0]] >= _LONGEST_NUMBER:
            return None
        late = late[follows[rows[late] - place[late]]]
    np.add.at(numbers, owners, bits[rows].astype(np.int64) << 5 * place)
    return numbers


def _without_empty(runs: NDArray[np.int64]) -> list[int]:
    """The same mask without runs of no pixel inside, at which pycocotools stops to compare."""
    changes, times = np.unique(np.cumsum(runs), return_counts=True)
    changes = changes[(times % 2 == 1) & (changes < runs.sum())]
    return np.diff(np.concatenate([[0], changes, [runs.sum()]])).tolist()


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
