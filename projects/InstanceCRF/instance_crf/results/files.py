"""A result as files: label maps, a picture, and a JSON that names what is in them."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..data.label_io import palette_image, write_object_map
from ..files import atomic_path, write_json
from .names import taxonomy_of
from .views import draw, image_of, part_ids

if TYPE_CHECKING:
    from ..structures import PartInstances

_PICTURE_SIZE = 1600  # pixels of its longer side: for people to look at

__all__ = ["describe", "save", "write_objects", "write_parts", "write_picture"]


def save(
    result: PartInstances,
    folder: str | os.PathLike,
    name: str,
    *,
    image: np.ndarray | None = None,
    picture: bool = True,
) -> list[Path]:
    """See :meth:`PartInstances.save`."""
    if not name or Path(name).name != name:
        raise ValueError(f"name is {name!r}; it is the files' name without a folder or a suffix.")
    ends = (".png", "_parts.png", "_picture.jpg", ".json")
    paths = [Path(folder).expanduser() / (name + end) for end in ends]
    objects, parts, drawn, table = paths
    content = {**describe(result), **_detections(result), "notes": list(result.notes)}
    sheet = _draw_if_possible(result, image) if picture else None
    table.unlink(missing_ok=True)  # of another result: it would vouch for the new maps
    write_objects(objects, result)
    write_parts(parts, result)
    if sheet is not None:
        write_picture(drawn, sheet)
    write_json(table, content)
    return [path for path in paths if sheet is not None or path != drawn]


def describe(result: PartInstances) -> dict[str, Any]:
    """What is in the maps, in plain numbers and names; boxes are x1, y1, x2, y2 in pixels."""
    taxonomy = taxonomy_of(result)
    height, width = result.image_size
    rows = zip(result.classes.tolist(), result.scores.tolist(), result.boxes.tolist(), strict=True)
    objects = [
        {
            "id": index,
            "category": taxonomy.object_names[category],
            "score": round(score, 6),
            "bbox": [round(v, 2) for v in box],
        }
        for index, (category, score, box) in enumerate(rows, start=1)
    ]
    segments = [
        {
            "part_id": segment["category_id"] + 1,
            "part": taxonomy.part_names[segment["category_id"]],
            **segment,
        }
        for segment in result.panoptic()[1]
    ]
    return {"height": height, "width": width, "objects": objects, "segments": segments}


def _detections(result: PartInstances) -> dict[str, list]:
    """All detections that were given, first the n objects', then those left out."""
    left_out = result.left_out_scores.tolist()
    return {
        "boxes": result.boxes.tolist() + result.left_out_boxes.tolist(),
        "scores": result.object_scores["detection"].tolist() + left_out,
        "person_scores": result.scores.tolist() + [0.0] * len(left_out),
    }


def write_objects(path: Path, result: PartInstances) -> None:
    """The object map as a PNG of 8 bits, or 16 where there are more than 254 objects."""
    write_object_map(path, result.object_map.cpu().numpy())


def write_parts(path: Path, result: PartInstances) -> None:
    """The part map as a palette PNG in the taxonomy's colours."""
    with atomic_path(path) as temporary:
        palette_image(part_ids(result.part_map), taxonomy_of(result)).save(temporary)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """(H, W, 3) uint8 RGB, as a PNG or, if the suffix says so, a JPEG."""
    kind = "JPEG" if Path(path).suffix.lower() in (".jpg", ".jpeg") else "PNG"
    # As JPEG without subsampling: outlines are thin and colourful. As PNG three times as fast as
    # by default, and a sixth larger.
    content = io.BytesIO()  # on a full disk Pillow's JPEGs would be cut off without an error
    Image.fromarray(picture).save(content, kind, quality=92, subsampling=0, compress_level=3)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def _draw_if_possible(result: PartInstances, image: np.ndarray | None) -> np.ndarray | None:
    """None without a picture to draw on, or without OpenCV."""
    if image is None and result.image is None:
        return None
    image_of(result, image)  # a wrong one is an error also without OpenCV
    try:
        return draw(result, image, max_size=_PICTURE_SIZE)
    except ImportError:
        return None
