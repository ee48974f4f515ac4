"""Given detections: boxes that another detector has left in a COCO results file.

Legend: C object classes of the data set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .schema import PartTaxonomy

__all__ = ["read_detections"]

_XYWH_ABS = 1  # detectron2.structures.BoxMode.XYWH_ABS


def read_detections(
    path: str | Path, taxonomy: PartTaxonomy, category_ids: Sequence[int] = ()
) -> dict[str, list[dict]]:
    """Detections by image id, as a record's ``detections`` holds them.

    Args:
        path: JSON list of ``{"image_id", "category_id", "bbox": [x, y, w, h] in pixels, "score"}``.
        taxonomy: of the data set.
        category_ids: the file's id of each of the C object classes; default 1..C. Detections of
            other categories are left out (e.g. all but people).

    Returns:
        image id (as a string) -> list of ``{bbox, bbox_mode, category_id (0..C-1), score}``.

    Raises:
        FileNotFoundError, ValueError: no such file; not a list of detections; wrong category_ids.
    """
    category_ids = list(category_ids) or list(range(1, taxonomy.num_objects + 1))
    if len(category_ids) != taxonomy.num_objects:
        raise ValueError(
            f"DATASETS.DETECTION_CATEGORY_IDS has {len(category_ids)} entries {category_ids}, but "
            f"there are {taxonomy.num_objects} object classes: {', '.join(taxonomy.object_names)}."
        )
    classes = {category: c for c, category in enumerate(category_ids)}
    result: dict[str, list[dict]] = {}
    for number, entry in enumerate(_read_json(path)):
        try:
            box = [float(v) for v in entry["bbox"]]
            category, score = int(entry["category_id"]), float(entry["score"])
            image_id = str(entry["image_id"])
            x, y, width, height = box
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: entry {number} is no detection ({type(error).__name__}: {error}); "
                "expected image_id, category_id, bbox [x, y, width, height] and score."
            ) from None
        found = result.setdefault(image_id, [])
        if category in classes and width > 0 and height > 0:
            found.append(
                {
                    "bbox": box,
                    "bbox_mode": _XYWH_ABS,
                    "category_id": classes[category],
                    "score": score,
                }
            )
    return result


def _read_json(path: str | Path) -> list:
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"The file of given detections {path} does not exist.")
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, list):
        raise ValueError(
            f"{path} holds a {type(content).__name__}; a COCO results file is a list of detections "
            "(the file with 'images' and 'annotations' is ground truth)."
        )
    return content
