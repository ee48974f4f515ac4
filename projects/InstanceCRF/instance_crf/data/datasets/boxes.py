"""Data with boxes only: PASCAL VOC's XML annotations."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from ...files import read_text
from ...taxonomies.schema import PartTaxonomy
from ..parallel import parallel_map

__all__ = ["load_voc_boxes"]

_XYXY_ABS = 0  # detectron2.structures.BoxMode.XYXY_ABS


def load_voc_boxes(root: str | Path, list_file: str, taxonomy: PartTaxonomy) -> list[dict]:
    """Records without label maps from ``root/{JPEGImages,Annotations}``.

    Args:
        root: e.g. ``VOCdevkit/VOC2012``.
        list_file: one image id a line, relative to ``root``.
        taxonomy: whose ``object_names`` are VOC's class names.

    Raises:
        FileNotFoundError, ValueError: no list (run datasets/prepare_voc.py), a broken XML file, an
            unknown class; the message names the file.
    """
    root = Path(root).expanduser()
    path = root / list_file
    if not path.is_file():
        raise FileNotFoundError(
            f"The list {path} does not exist. datasets/prepare_voc.py writes it; the folder must "
            "be named by DETECTRON2_DATASETS."
        )
    classes = {name: c for c, name in enumerate(taxonomy.object_names)}
    ids = read_text(path).split()
    return parallel_map(
        lambda i: _record(root, i, classes), ids, description=f"Reading the boxes of {root}"
    )


def _record(root: Path, image_id: str, classes: dict[str, int]) -> dict:
    path = root / "Annotations" / f"{image_id}.xml"
    try:
        tree = ElementTree.parse(path)
        width, height = (int(tree.findtext(f"size/{key}", "")) for key in ("width", "height"))
        objects = [(o.findtext("name", ""), _box(o)) for o in tree.iter("object")]
    except FileNotFoundError:
        raise FileNotFoundError(f"Annotation not found: {path}") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"Cannot read the annotation {path}: {error}") from error
    unknown = [name for name, _ in objects if name not in classes]
    if unknown:
        raise ValueError(f"{path} has the class {unknown[0]!r}; known: {', '.join(classes)}.")
    return {
        "file_name": str(root / "JPEGImages" / f"{image_id}.jpg"),
        "height": height,
        "width": width,
        "image_id": image_id,
        "annotations": [
            {
                "bbox": box,
                "bbox_mode": _XYXY_ABS,
                "category_id": classes[name],
                "object_id": number,
                "iscrowd": 0,
            }
            for number, (name, box) in enumerate(objects, 1)
        ],
    }


def _box(element: ElementTree.Element) -> list[float]:
    """VOC counts pixels from 1 and includes the last one."""
    x1, y1, x2, y2 = (
        float(element.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")
    )
    return [x1 - 1, y1 - 1, x2, y2]
