"""A result as the annotations of other libraries: supervision, COCO results, COCO panoptic."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..extras import require
from .names import taxonomy_of

if TYPE_CHECKING:
    from ..structures import PartInstances

__all__ = ["to_coco", "to_coco_panoptic", "to_supervision"]


def to_supervision(result: PartInstances, *, segments: bool = False) -> Any:
    """See :meth:`PartInstances.to_supervision`."""
    from ..evaluation.toolkit.person_maps import tight_boxes

    supervision = require("supervision", "models")
    result, taxonomy = result.to("cpu"), taxonomy_of(result)
    if segments:
        ids, masks = result.panoptic()[0], result.segment_masks()
        scores, classes = result.segment_scores[result.score_name], result.segment_part - 1
        names, persons = taxonomy.part_names, result.segment_object
        data = {"part_id": result.segment_part.numpy()}
    else:
        ids, masks = result.object_map, result.object_masks()
        scores, classes = result.scores, result.classes
        names, persons = taxonomy.object_names, torch.arange(1, len(result) + 1)
        data = {}
    data["person_id"] = persons.numpy()
    data["class_name"] = np.array([names[c] for c in classes.tolist()], dtype=str)
    return supervision.Detections(
        xyxy=tight_boxes(ids.numpy()).astype(np.float32),
        mask=masks.numpy(),
        confidence=scores.float().numpy(),
        class_id=classes.numpy(),
        data=data,
    )


def to_coco(result: PartInstances, image_id: int | str, *, segments: bool = False) -> list[dict]:
    """See :meth:`PartInstances.to_coco`."""
    from ..evaluation.parsing import parsing_of_result
    from ..evaluation.toolkit.formats.coco import object_regions, part_regions, result_of

    masks = require("pycocotools.mask", "eval")
    regions = (part_regions if segments else object_regions)(parsing_of_result(result))
    return [
        {**result_of(image_id, *region), "area": float(masks.area(region[0]))} for region in regions
    ]


def to_coco_panoptic(
    result: PartInstances, file_name: str, *, image_id: int | str | None = None
) -> tuple[np.ndarray, dict]:
    """See :meth:`PartInstances.to_coco_panoptic`."""
    from ..evaluation.parsing import parsing_of_result
    from ..evaluation.toolkit.formats.panoptic import id_to_color, panoptic_segments

    ids, segments = panoptic_segments(parsing_of_result(result), result.taxonomy)
    annotation = {
        "image_id": PurePath(file_name).stem if image_id is None else image_id,
        "file_name": str(file_name),
        "segments_info": segments,
    }
    return id_to_color(ids), annotation
