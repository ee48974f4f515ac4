"""Pictures of person maps, a colour each, the same for the truth and the answers.

Letters: H, W size of the picture; D detections; G true people.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...taxonomies.schema import MAX_PARTS, PartTaxonomy
from .person_maps import match_boxes, tight_boxes

__all__ = ["draw_people", "number_truth"]


def number_truth(truth: NDArray, boxes: NDArray) -> NDArray[np.int64]:
    """(H, W) the true people numbered as the detections that found them: i + 1 for detection i.

    Args:
        truth: (H, W) 1..G, 0 nobody, negative: does not count.
        boxes: (D, 4) of the detections.

    Returns:
        (H, W); people whom no detection found have numbers above D; 0 for all else.
    """
    numbers = match_boxes(boxes, tight_boxes(truth)) + 1
    numbers = np.where(numbers, numbers, len(boxes) + 1 + np.arange(len(numbers)))
    return np.append(0, numbers)[np.maximum(truth, 0)]


def draw_people(pixels: NDArray, people: NDArray) -> NDArray:
    """The photograph with everybody in a colour of their own, by number.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        people: (H, W) 0 nobody, 1, 2, ...

    Returns:
        A picture of `visualization.draw_part_instances`.
    """
    from ...visualization import draw_part_instances, object_color

    count = min(max(int(people.max(initial=0)), 1), MAX_PARTS)
    colors = [object_color(i + 1) for i in range(count)]
    each = PartTaxonomy([str(i + 1) for i in range(count)], ["person"], part_colors=colors)
    people = np.where(people > 0, (people - 1) % MAX_PARTS + 1, 0)
    return draw_part_instances(pixels, people, people, each, alpha=0.5)
