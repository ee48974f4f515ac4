"""Given detections: boxes, and perhaps masks, of another detector in a COCO results file.

Legend: C object classes of the data set, D detections, H, W size of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..entries import as_finite, as_name, as_whole, require_keys
from ..extras import require
from ..files import read_json
from ..taxonomies.schema import PartTaxonomy
from . import coco_masks

__all__ = ["as_box", "check_masks", "decode_mask", "read_detections", "results_of"]

_XYWH_ABS = 1  # detectron2.structures.BoxMode.XYWH_ABS


def read_detections(
    path: str | Path, taxonomy: PartTaxonomy, category_ids: Sequence[int] = ()
) -> dict[str, list[dict]]:
    """Detections by image id, as a record's ``detections`` holds them.

    Args:
        path: JSON list of ``{"image_id", "category_id", "bbox": [x, y, w, h] in pixels, "score"}``
            and, perhaps, ``"segmentation"``, a mask of the image's size: COCO's run lengths
            ``{"size": [H, W], "counts"}``, compressed or not.
        taxonomy: of the data set.
        category_ids: the file's id of each of the C object classes; default 1..C. Detections of
            other categories are left out (e.g. all but people).

    Returns:
        image id (as a string) -> list of ``{bbox, bbox_mode, category_id (0..C-1), score}``, with
        ``segmentation`` where there is one.

    Raises:
        FileNotFoundError, ValueError: no such file; not a list of detections; a mask that is not
            in run lengths; wrong category_ids.
    """
    category_ids = list(category_ids) or list(range(1, taxonomy.num_objects + 1))
    if len(category_ids) != taxonomy.num_objects:
        raise ValueError(
            f"DATASETS.DETECTION_CATEGORY_IDS has {len(category_ids)} entries {category_ids}, but "
            f"there are {taxonomy.num_objects} object classes: {', '.join(taxonomy.object_names)}."
        )
    classes = {category: c for c, category in enumerate(category_ids)}
    result: dict[str, list[dict]] = {}
    for number, entry in enumerate(_read_list(path)):
        where = f"{path}: entry {number}"
        require_keys(entry, ("image_id", "category_id", "bbox", "score"), where)
        image_id = as_name(entry["image_id"], f"{where}: image_id")
        category = as_whole(entry["category_id"], f"{where}: category_id", 0)
        box = as_box(entry["bbox"], f"{where}: bbox")
        score = as_finite(entry["score"], f"{where}: score")
        found = result.setdefault(image_id, [])
        if category in classes and box[2] > 0 and box[3] > 0:
            found.append(
                {
                    "bbox": box,
                    "bbox_mode": _XYWH_ABS,
                    "category_id": classes[category],
                    "score": score,
                    **_masks_of(entry, where),
                }
            )
    return result


def results_of(
    image_id: str | int,
    boxes: np.ndarray,
    scores: np.ndarray,
    category_ids: Sequence[int],
    masks: np.ndarray | None = None,
) -> list[dict]:
    """The detections of an image as :func:`read_detections` has them from a file.

    Args:
        image_id: of the data set.
        boxes: (D, 4) x1 y1 x2 y2 in pixels of the original image.
        scores: (D,).
        category_ids: D, as the file is to have them.
        masks: (D, H, W) bool, of the original image's size.

    Raises:
        ImportError: there are masks, but pycocotools is not installed.
    """
    boxes = boxes.astype(np.float64)  # so that x + width is x2 again, to the last bit but one
    boxes[:, 2:] -= boxes[:, :2]
    results = [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for box, score, category in zip(boxes.tolist(), scores.tolist(), category_ids, strict=True)
    ]
    for result, mask in zip(results, () if masks is None else masks, strict=masks is not None):
        encoded = require("pycocotools.mask", "eval").encode(
            np.asfortranarray(mask, dtype=np.uint8)
        )
        result["segmentation"] = {**encoded, "counts": encoded["counts"].decode("ascii")}
    return results


def as_box(value: object, where: str) -> list[float]:
    """x, y, width, height of a file, finite.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        raise ValueError(f"{where} must be [x, y, width, height], got {value!r:.60}.")
    return [as_finite(number, where) for number in value]


def check_masks(detections: Sequence[dict], size: tuple[int, int], source: str) -> None:
    """Whether the masks of an image's detections are of its size.

    Args:
        detections: dicts, of which some may have a ``segmentation``.
        size: (H, W) of the image.
        source: where they come from, for the message.

    Raises:
        ValueError: names the source and both sizes.
    """
    for detection in detections:
        if "segmentation" in detection:
            coco_masks.check_mask_size(
                detection["segmentation"], size, f"{source}: a detection's mask"
            )


def decode_mask(segmentation: dict, source: str) -> np.ndarray:
    """COCO's run lengths ``{"size": [H, W], "counts"}`` -> (H, W) uint8, 0 or 1.

    Raises:
        ValueError: the runs are broken; names the source.
    """
    where = f"{source}: a detection's mask"
    return coco_masks.decode_mask(segmentation, tuple(segmentation["size"]), where)


def _masks_of(entry: dict, source: str) -> dict:
    """``{"segmentation": run lengths}``, or nothing if the entry has none."""
    segmentation = entry.get("segmentation")
    if segmentation is None or segmentation == []:  # as data sets of boxes have it
        return {}
    size = segmentation.get("size") if isinstance(segmentation, dict) else None
    if not isinstance(size, list) or len(size) != 2 or "counts" not in segmentation:
        raise ValueError(
            f'{source}: its segmentation is not {{"size": [height, width], "counts"}}; polygons '
            "must be encoded first, with pycocotools.mask."
        )
    coco_masks.as_image_size(*size, f"{source}: size of its segmentation")
    return {"segmentation": segmentation}


def _read_list(path: str | Path) -> list:
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"The file of given detections {path} does not exist.")
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(
            f"{path} holds a {type(content).__name__}; a COCO results file is a list of detections "
            "(the file with 'images' and 'annotations' is ground truth)."
        )
    return content
