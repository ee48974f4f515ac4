"""PASCAL VOC 2012: what the paper trains on before the parts, and its evaluation of whole people.

* ``voc2012_{train,val}``: the 21-class segmentation and its objects. Each class is its own single
  part, so the part head learns semantic segmentation, and the detector the objects' boxes.
* ``voc2012_boxes_train``: boxes of all classes in the pictures without masks too; their pixels are
  ignored. Without the pictures of the test sets (VOC 2012 val, Pascal-Person-Part val).
* ``voc2012_person_val``: the people of all val pictures (Table 2); the parts are unknown, ignored.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...taxonomies.pascal_person_part import PERSON_PART_TAXONOMY
from ...taxonomies.voc import VOC_TAXONOMY
from .boxes import load_voc_boxes
from .register import register_canonical, register_parts

__all__ = ["BOXES_LIST", "VOC_TAXONOMY", "register_voc"]

#: Written by `datasets/prepare_voc.py`, relative to the folder of VOC 2012.
BOXES_LIST = "ImageSets/Main/trainval_without_tests.txt"


def register_voc(root: str | Path) -> None:
    """Register ``voc2012_{train,val}``, ``voc2012_boxes_train`` and ``voc2012_person_val``."""
    root = Path(root)
    for split in ("train", "val"):
        register_canonical(f"voc2012_{split}", root / "voc2012", split, VOC_TAXONOMY)
    register_canonical("voc2012_person_val", root / "voc2012_person", "val", PERSON_PART_TAXONOMY)
    voc = root / "VOC2012"
    loader = partial(load_voc_boxes, voc, BOXES_LIST, VOC_TAXONOMY)
    register_parts("voc2012_boxes_train", loader, VOC_TAXONOMY, root=str(voc), split="train")
