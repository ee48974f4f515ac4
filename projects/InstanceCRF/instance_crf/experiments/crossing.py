"""The pictures of a data set in which people cross: where it matters whose a pixel is.

Whole pictures, with all of their people. To leave single people out, as crowds, would not do: under
the protocols of APr whatever is found of them is a false positive (a perfect labelling of
``synthetic_crowd_val`` would have a part APr50 of 36).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ..entries import is_crowd

__all__ = ["MIN_IOU", "crossing_images", "crossing_people", "register_crossing"]

MIN_IOU = 0.4
"""Two people cross from this IoU of their boxes on: in 63 of the 150 pictures of
``synthetic_crowd_val``, with 155 of its 509 people, and in 53 and 114 of 381 of
``synthetic_people_val``."""


def crossing_people(record: Mapping, min_iou: float = MIN_IOU) -> list[int]:
    """``object_id`` of those that cross another one of their class.

    Args:
        record: of a data set, with ``annotations``; boxes are around visible pixels. Crowds cross
            nobody.
        min_iou: of two boxes.
    """
    # Here, so that results can be reported without Detectron2.
    from detectron2.structures import Boxes, BoxMode, pairwise_iou

    people = [a for a in record["annotations"] if not is_crowd(a, record.get("file_name"))]
    corners = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in people]
    boxes = Boxes(corners)
    iou = pairwise_iou(boxes, boxes).numpy()
    classes = np.array([a["category_id"] for a in people])
    cross = (iou >= min_iou) & (classes[:, None] == classes[None])
    np.fill_diagonal(cross, False)
    return [a["object_id"] for a, crosses in zip(people, cross.any(axis=1), strict=True) if crosses]


def crossing_images(records: Iterable[Mapping], min_iou: float = MIN_IOU) -> list:
    """``image_id`` of the records in which at least two people cross."""
    return [record["image_id"] for record in records if crossing_people(record, min_iou)]


def register_crossing(name: str, min_iou: float = MIN_IOU) -> str:
    """Register the pictures of the data set ``name`` in which people cross, with its metadata.

    No file is touched yet. Registering again replaces it.

    Returns:
        The new data set's name, ``<name>_crossing``.

    Raises:
        KeyError: there is no data set ``name``.
        ValueError, when it is used: nobody crosses in it.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    def load() -> Sequence[dict]:
        records = DatasetCatalog.get(name)
        chosen = set(crossing_images(records, min_iou))
        if not chosen:
            raise ValueError(
                f"In none of the {len(records)} pictures of {name} do boxes of two people have an "
                f"IoU of {min_iou} or more; give a lower one."
            )
        return [record for record in records if record["image_id"] in chosen]

    new = f"{name}_crossing"
    if name not in DatasetCatalog:
        raise KeyError(f"There is no data set {name!r} to take crossing people from.")
    for catalog in (DatasetCatalog, MetadataCatalog):
        if new in catalog:
            catalog.remove(new)
    DatasetCatalog.register(new, load)
    metadata = MetadataCatalog.get(name).as_dict()
    MetadataCatalog.get(new).set(**{k: v for k, v in metadata.items() if k != "name"})
    return new
