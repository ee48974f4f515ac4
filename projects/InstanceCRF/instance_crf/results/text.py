"""A result in a few lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..structures import PartInstances

__all__ = ["summarize"]

_MOST_OBJECTS = 12
_MOST_PARTS = 8


def summarize(result: PartInstances) -> str:
    """Who is there, how sure, how large, and of which parts; shares are of the whole picture.

    ``person(k)`` opens the line of the object that this call gives.
    """
    height, width = result.image_size
    head = f"PartInstances({height} x {width} pixels (H x W), {_count(result)}"
    left_out = len(result.left_out_scores)
    if left_out:
        head += f", {left_out} detection{'s' * (left_out > 1)} left out"
    nobodys = int(((result.part_map > 0) & (result.object_map == 0)).sum())
    pixels = max(1, height * width)
    if nobodys:
        head += f", parts of nobody {_percent(nobodys / pixels)}"
    lines = [head + ")"]
    scores = result.scores.tolist()
    for k in range(min(len(result), _MOST_OBJECTS)):
        lines.append(f"  person({k}): {_line(result, k, scores[k], pixels)}")
    if len(result) > _MOST_OBJECTS:
        lines.append(f"  and {len(result) - _MOST_OBJECTS} more")
    return "\n".join([*lines, *(f"  note: {note}" for note in result.notes)])


def _count(result: PartInstances) -> str:
    names = result.taxonomy.object_names if result.taxonomy is not None else ()
    one, more = ("person", "people") if names == ("person",) else ("object", "objects")
    return f"{len(result)} {one if len(result) == 1 else more}"


def _line(result: PartInstances, k: int, score: float, pixels: int) -> str:
    own = (result.segment_object == k + 1).cpu()
    areas, parts = result.segment_area.cpu()[own].tolist(), result.segment_part.cpu()[own].tolist()
    words = [f"score {score:.2f}", f"{_percent(sum(areas) / pixels)} of the picture"]
    taxonomy = result.taxonomy
    if taxonomy is not None and taxonomy.num_objects > 1:
        words.insert(0, taxonomy.object_names[int(result.classes[k])])
    rows = sorted(zip(areas, parts, strict=True), key=lambda row: -row[0])
    names = [
        f"{f'part {part}' if taxonomy is None else taxonomy.part_names[part - 1]} "
        f"{_percent(area / pixels)}"
        for area, part in rows[:_MOST_PARTS]
    ]
    names += ["..."] * (len(rows) > _MOST_PARTS)
    return f"{', '.join(words)}: {', '.join(names)}"


def _percent(share: float) -> str:
    """Two digits or so."""
    percent = 100 * share
    if percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.1f} %" if percent < 9.95 else f"{percent:.0f} %"
