"""Where the methods of `compare` differ: the photographs, side by side.

Letters: H, W size of the image; h, w as it is drawn.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from numpy.typing import NDArray
from torch import Tensor

from ..data.image_io import at_most, reduced_size, sample_labels
from ..evaluation.toolkit.person_pictures import draw_people, number_truth
from ..extras import require
from ..results.files import write_picture
from ..rules import NEAREST
from ..taxonomies import PartTaxonomy
from .join import Problem
from .methods import FACTORED, JOINT
from .truth import Truth

__all__ = ["SketchBook"]

SIDE = 480
"""The longer side of each picture, at most."""


@dataclass(frozen=True)
class _Sketch:
    """A photograph, small, with the answers of some methods; (h, w) maps."""

    name: str
    difference: float
    pixels: NDArray
    boxes: NDArray
    scores: list[float]
    parts: NDArray
    people: dict[str, NDArray]
    truth: NDArray
    taxonomy: PartTaxonomy


class SketchBook:
    """Keeps the photographs on which the factored CRF and the nearest centre differ most, by the
    share of the pixels.

    Args:
        count: how many.

    Raises:
        ImportError: there is nothing to draw with.
    """

    def __init__(self, count: int) -> None:
        require("cv2", "viz")
        self.count = count
        self._heap: list[tuple[float, int, _Sketch]] = []
        self._offered = 0

    def offer(
        self,
        name: str,
        problem: Problem,
        part_map: Tensor,
        people: Mapping[str, NDArray],
        truth: Truth,
    ) -> None:
        """A photograph, with Q's parts and the (H, W) person maps of the methods."""
        self._offered += 1
        difference = float((people[FACTORED] != people[NEAREST]).mean())
        if not difference or (len(self._heap) >= self.count and difference <= self._heap[0][0]):
            return
        size = reduced_size(problem.size, SIDE)
        pixels = problem.picture.permute(1, 2, 0).cpu().numpy()
        boxes = problem.detections.boxes.double().numpy()
        sketch = _Sketch(
            name=name,
            difference=difference,
            pixels=at_most(SIDE, pixels)[0],
            boxes=boxes * min(1.0, SIDE / max(problem.size)),
            scores=problem.detections.scores.tolist(),
            parts=sample_labels(part_map.cpu().numpy(), size),
            people={key: sample_labels(each, size) for key, each in people.items()},
            truth=sample_labels(number_truth(truth.people, boxes), size),
            taxonomy=problem.taxonomy,
        )
        # Of equals, the first stays.
        heapq.heappush(self._heap, (difference, -self._offered, sketch))
        if len(self._heap) > self.count:
            heapq.heappop(self._heap)

    def draw(self, path: Path, rule: str) -> bool:
        """A row a photograph: boxes, Q's parts, a simple rule, both CRFs and the truth.

        A person has one colour in all, that of the detection's box.

        Args:
            path: of the picture.
            rule: name of the simple rule to show.

        Returns:
            Whether there was anything to draw.
        """
        from ..visualization import draw_detections, draw_part_segmentation, make_sheet

        columns = list(dict.fromkeys([rule, JOINT, FACTORED]))
        lines, names = [], []
        for difference, _, sketch in sorted(self._heap, reverse=True):
            line = [
                draw_detections(sketch.pixels, sketch.boxes, sketch.scores),
                draw_part_segmentation(sketch.pixels, sketch.parts, sketch.taxonomy),
            ]
            maps = [*(sketch.people[column] for column in columns), sketch.truth]
            lines.append([*line, *(draw_people(sketch.pixels, each) for each in maps)])
            names.append(f"{sketch.name}: {difference:.1%} of the pixels are not the {NEAREST}'s")
        if not lines:
            return False
        titles = ["boxes", "Q's parts", *columns, "truth"]
        sheet = make_sheet(lines, titles, row_titles=names, legend=self._heap[0][2].taxonomy)
        write_picture(path, sheet)
        return True
