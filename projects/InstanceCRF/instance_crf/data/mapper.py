"""From a record of a data set to the input of the model.

Legend: H, W size of the augmented image in pixels; D objects or given detections in it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog, MetadataCatalog, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances

from ..crf.potentials import box_masks
from ..entries import is_crowd
from ..taxonomies.schema import IGNORE_LABEL
from .augmentation import build_augmentations
from .detections import check_masks, decode_mask, read_detections
from .image_io import read_image
from .label_io import (
    IGNORED_OBJECT,
    object_ids,
    read_label_png,
    read_part_map,
)
from .transforms import is_mirrored

__all__ = ["PartInstanceMapper"]


class PartInstanceMapper:
    """A callable: record -> input of the model, every map under the same geometry.

    The result has ``file_name, image_id, height, width`` (of the original image) and

    * ``image``: (3, H, W) uint8, channels as in ``image_format``;
    * ``detections``, if the record has them: Instances with ``pred_boxes, scores, pred_classes``
      and, if one of them has a mask, ``pred_masks`` (D, H, W);
    * in training, or ``with_annotations``: ``part_seg`` (H, W) uint8, 255 ignored; ``object_seg``
      (H, W) int32, 0 none, -1 ignored; ``instances``: Instances with ``gt_boxes, gt_classes,
      gt_object_ids``, boxes taken from what is left of each object, and ``gt_masks`` with
      ``with_masks``. Objects that vanished are removed; none may be left. Where there are some,
      ``ignored`` (H, W) bool: pixels where an object may be or not, which teach a detector nothing.

    Args:
        is_train: whether the ground truth is needed.
        augmentations: Detectron2 augmentations.
        image_format: order of the photos' channels, ``"BGR"`` or ``"RGB"``.
        flip_lut: (256,) table of part ids under mirroring (``PartTaxonomy.flip_lut``).
        with_annotations: also give the ground truth at test time.
        with_masks: the objects' masks are needed.
        detections: file name of the image -> given detections, for records that have none of their
            own.
        need_detections: there must be some.

    Raises (when called):
        FileNotFoundError, ValueError: a file is missing or broken; a map or a given mask has not
            the size of its image; the object map holds an object that the record does not know;
            masks are needed of a record with boxes only; needed detections are not given.
    """

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: list[T.Augmentation],
        image_format: str,
        flip_lut: np.ndarray,
        with_annotations: bool = False,
        with_masks: bool = False,
        detections: Mapping[str, list[dict]] | None = None,
        need_detections: bool = False,
    ):
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.flip_lut = np.asarray(flip_lut, dtype=np.uint8)
        self.with_annotations = is_train or with_annotations
        self.with_masks = with_masks
        self.detections = detections
        self.need_detections = need_detections
        self._owner = -1  # process that this copy runs in

    @classmethod
    def from_config(
        cls, cfg: CfgNode, is_train: bool = True, dataset_name: str | None = None
    ) -> dict[str, Any]:
        """``dataset_name``: the only one of DATASETS.TEST whose records will come; None: all."""
        names = cfg.DATASETS.TRAIN if is_train else cfg.DATASETS.TEST
        crf = cfg.MODEL.get("INSTANCE_CRF", {})
        sources = [crf.get(node, {}).get("SOURCE") for node in ("DETECTIONS", "PARTS")]
        return {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "flip_lut": common_flip_lut(names),
            "with_annotations": "ground_truth" in sources,
            "with_masks": is_train and cfg.MODEL.MASK_ON,
            "detections": given_detections(cfg, is_train, dataset_name),
            "need_detections": crf.get("ENABLED", False) and sources[0] == "record",
        }

    def __call__(self, record: dict) -> dict:
        if self._owner != os.getpid():
            self._owner = os.getpid()
            if torch.utils.data.get_worker_info() is not None:
                cv2.setNumThreads(1)  # the workers are the threads
        image = read_image(record["file_name"], self.image_format)
        detection_utils.check_image_size(record, image)
        planes = _read_planes(record, image.shape[:2]) if self.with_annotations else [None]

        aug_input = T.AugInput(image, sem_seg=planes[0])
        transforms = self.augmentations(aug_input)
        image = np.require(aug_input.image.transpose(2, 0, 1), requirements=("C", "W"))
        result = {
            "file_name": record["file_name"],
            "image_id": record["image_id"],
            "height": record["height"],
            "width": record["width"],
            "image": torch.from_numpy(image),
        }
        detections = record.get("detections")
        if detections is None and self.detections is not None:
            detections = self.detections.get(record["file_name"], [])
        if detections is None and self.need_detections:
            key = f"DATASETS.DETECTIONS_{'TRAIN' if self.is_train else 'TEST'}"
            raise ValueError(
                f"{record['file_name']} comes without detections, which MODEL.INSTANCE_CRF."
                f"DETECTIONS.SOURCE 'record' needs: name a file of them in {key} "
                "(tools/write_detections.py makes one)."
            )
        if detections is not None:
            source = record["file_name"]
            check_masks(detections, (record["height"], record["width"]), source)
            result["detections"] = transform_detections(
                detections, transforms, image.shape[1:], source
            )
        if self.with_annotations:
            objects = [transforms.apply_segmentation(plane) for plane in planes[1:]]
            result |= self._targets(record, aug_input.sem_seg, objects, transforms)
        return result

    def _targets(
        self, record: dict, parts: np.ndarray, objects: list[np.ndarray], transforms: T.Transform
    ) -> dict:
        """``part_seg``, ``object_seg`` and ``instances`` from the augmented planes."""
        if is_mirrored(transforms):
            parts = cv2.LUT(parts, self.flip_lut)
        stored = _join_planes(objects)
        object_seg = object_ids(stored)
        _ignore_crowds(record, parts, object_seg)
        ignored = object_seg == IGNORED_OBJECT
        if "object_file_name" in record:
            found = _objects_of_map(record, stored)
            ignored |= (parts == IGNORE_LABEL) & (object_seg == 0)
        else:
            found = _objects_of_boxes(record, transforms, stored.shape)
            object_seg[:] = IGNORED_OBJECT
        boxes, classes, ids = zip(*found, strict=True) if found else ((), (), ())
        instances = Instances(stored.shape)
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        instances.gt_object_ids = torch.tensor(ids, dtype=torch.int64)
        if self.with_masks:
            if "object_file_name" not in record:
                raise ValueError(
                    f"MODEL.MASK_ON is True, but the record of {record['file_name']} has boxes "
                    "only: a mask head cannot learn from it."
                )
            masks = object_seg == np.array(ids, dtype=object_seg.dtype)[:, None, None]
            instances.gt_masks = BitMasks(torch.from_numpy(masks))
        result = {
            "instances": instances,
            # Narrow types: 8 times less to send from the workers than int64.
            "part_seg": torch.from_numpy(np.require(parts, requirements=("C", "W"))),
            "object_seg": torch.from_numpy(object_seg),
        }
        return result | ({"ignored": torch.from_numpy(ignored)} if ignored.any() else {})


def _read_planes(record: dict, size: tuple[int, int]) -> list[np.ndarray]:
    """(H, W) uint8 planes: the parts, the objects' low bytes and, if there are, high bytes.

    Transforms of Detectron2 take bytes only, all planes alike; and 255 means ignored in each, so
    that filling with 255 ignores. Of a record with boxes only, the parts are unknown everywhere,
    and the objects where there is a crowd.
    """
    if "annotations" not in record:
        raise ValueError(
            f"The record of {record['file_name']} has no annotations: an unlabelled image can "
            "neither be trained on nor give ground-truth boxes."
        )
    if "part_file_name" not in record:
        return [np.full(size, IGNORE_LABEL, dtype=np.uint8), _plane_of_crowds(record, size)]
    parts = read_part_map(record["part_file_name"])
    objects = read_label_png(record["object_file_name"])
    for key, array in (("part_file_name", parts), ("object_file_name", objects)):
        if array.shape != size:
            raise ValueError(
                f"{record[key]} is {array.shape[1]}x{array.shape[0]} pixels, but its image "
                f"{record['file_name']} is {size[1]}x{size[0]}."
            )
    if objects.dtype == np.uint8:
        return [parts, objects]
    return [parts, (objects & 255).astype(np.uint8), (objects >> 8).astype(np.uint8)]


def _plane_of_crowds(record: dict, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: 255 in the boxes of crowds, 0 elsewhere."""
    plane = np.zeros(size, dtype=np.uint8)
    for annotation in record["annotations"]:
        if is_crowd(annotation, record["file_name"]):
            box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
            left, top, right, bottom = np.rint(box).astype(int).clip(min=0).tolist()
            plane[top:bottom, left:right] = IGNORE_LABEL
    return plane


def _join_planes(planes: list[np.ndarray]) -> np.ndarray:
    """(H, W) object ids as stored on disk, uint8 or uint16, from their bytes."""
    if len(planes) == 1:
        return planes[0]
    return planes[0] | (planes[1].astype(np.uint16) << 8)


def _ignore_crowds(record: dict, parts: np.ndarray, objects: np.ndarray) -> None:
    """In place: what is not told apart into objects can neither be right nor wrong."""
    for annotation in record["annotations"]:
        if is_crowd(annotation, record["file_name"]):
            crowd = objects == annotation["object_id"]
            objects[crowd], parts[crowd] = IGNORED_OBJECT, IGNORE_LABEL


def _objects_of_map(record: dict, stored: np.ndarray) -> list[tuple]:
    """(box, class, id) of every object, but crowds, that is left in the augmented map."""
    ignored = np.iinfo(stored.dtype).max
    unexplained = cv2.countNonZero(stored) - cv2.countNonZero(cv2.inRange(stored, ignored, ignored))
    found = []
    for annotation in record["annotations"]:
        object_id = annotation["object_id"]
        mask = cv2.inRange(stored, object_id, object_id)
        left, top, width, height = cv2.boundingRect(mask)
        unexplained -= cv2.countNonZero(mask)
        if width and not is_crowd(annotation, record["file_name"]):
            box = (left, top, left + width, top + height)
            found.append((box, annotation["category_id"], object_id))
    if unexplained:
        known = sorted(a["object_id"] for a in record["annotations"])
        stranger = next(i for i in np.unique(stored).tolist() if i not in (0, ignored, *known))
        raise ValueError(
            f"{record['object_file_name']} has object {stranger}, which its record does not list "
            f"(it has {known}). Has the file changed since the start?"
        )
    return found


def _objects_of_boxes(record: dict, transforms: T.Transform, size: tuple[int, int]) -> list[tuple]:
    """(box, class, id) of a record without maps: its boxes, cut to the augmented image."""
    found = []
    for annotation in record["annotations"]:
        if is_crowd(annotation, record["file_name"]):
            continue
        box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
        box = transforms.apply_box(np.array([box], dtype=np.float64))[0]
        box = np.clip(box, 0, (size[1], size[0], size[1], size[0]))
        if box[2] > box[0] and box[3] > box[1]:
            found.append((tuple(box), annotation["category_id"], annotation["object_id"]))
    return found


def common_flip_lut(names: tuple[str, ...]) -> np.ndarray:
    """The mirror table of the data sets ``names``; they must agree.

    Raises:
        ValueError: two data sets of one config swap different parts.
    """
    tables = {}
    for name in names:
        taxonomy = MetadataCatalog.get(name).get("taxonomy")
        tables[name] = np.arange(256, dtype=np.uint8) if taxonomy is None else taxonomy.flip_lut()
    first = next(iter(tables), None)
    for name, table in tables.items():
        if not np.array_equal(table, tables[first]):
            raise ValueError(
                f"DATASETS mixes {first!r} and {name!r}, whose left/right parts differ: their "
                "part ids "
                "do not mean the same."
            )
    return tables[first] if tables else np.arange(256, dtype=np.uint8)


def given_detections(
    cfg: CfgNode, is_train: bool, dataset_name: str | None = None
) -> dict[str, list[dict]] | None:
    """The detections of the files that ``cfg`` names, by the images' file names; None without.

    Image ids say which image of its own data set a detection is of; others may have the same ids.

    Args:
        cfg: with one file for each data set of DATASETS.TRAIN or TEST, or none.
        is_train: which of the two.
        dataset_name: only this data set of them; None: all.

    Raises:
        FileNotFoundError, ValueError: a broken file; another number of files than data sets; a
            file without any image of its data set; masks of another size than their image; an
            image of two data sets whose files disagree.
    """
    key, names = ("TRAIN", cfg.DATASETS.TRAIN) if is_train else ("TEST", cfg.DATASETS.TEST)
    paths = cfg.DATASETS.get(f"DETECTIONS_{key}", ())
    if not paths:
        return None
    if len(paths) != len(names):
        raise ValueError(
            f"DATASETS.DETECTIONS_{key} has {len(paths)} files for the {len(names)} data sets of "
            f"DATASETS.{key}; give one each."
        )
    ids_of_names = [class_id + 1 for class_id in cfg.MODEL.DETECTOR.CLASS_IDS]
    category_ids = cfg.DATASETS.DETECTION_CATEGORY_IDS or ids_of_names
    found: dict[str, list[dict]] = {}
    for path, name in zip(paths, names, strict=True):
        if dataset_name not in (None, name):
            continue
        for file_name, detections in detections_of_file(path, name, category_ids).items():
            if found.setdefault(file_name, detections) != detections:
                raise ValueError(
                    f"DATASETS.DETECTIONS_{key}: {file_name} is in several data sets of "
                    f"DATASETS.{key}, and {path} has other detections of it than a file before."
                )
    return found


def detections_of_file(
    path: str | os.PathLike, dataset_name: str, category_ids: Sequence[int]
) -> dict[str, list[dict]]:
    """The detections of a file, by the file names of a data set's images; all are there.

    Raises:
        FileNotFoundError, ValueError: a broken file, one without any image of the data set, masks
            of another size than their image.
    """
    detections = read_detections(path, MetadataCatalog.get(dataset_name).taxonomy, category_ids)
    records = {str(record["image_id"]): record for record in DatasetCatalog.get(dataset_name)}
    # COCO's image ids are numbers: "0000006" is 6 there.
    padded = {str(int(i)): i for i in records if i.isdecimal()}
    found: dict[str, list[dict]] = {}
    for i, of_image in detections.items():
        i = i if i in records else padded.get(i)
        if i is not None:
            found.setdefault(i, []).extend(of_image)
    if not found:
        raise ValueError(
            f"{path} has no image of {dataset_name!r}: its ids are like "
            f"{next(iter(detections), None)!r}, those of the data set like "
            f"{next(iter(sorted(records)), None)!r}."
        )
    for i, record in records.items():
        check_masks(found.get(i, ()), (record["height"], record["width"]), f"{path}, image {i}")
    return {record["file_name"]: found.get(i, []) for i, record in records.items()}


def transform_detections(
    detections: list[dict], transforms: T.Transform, size: tuple[int, int], source: str
) -> Instances:
    """Given detections under the geometry of the image; those that leave it are removed.

    Args:
        detections: dicts with ``bbox, bbox_mode, category_id, score``, perhaps ``segmentation``.
        transforms: what was done to the image.
        size: (H, W) of the augmented image.
        source: where they come from, for messages.

    Returns:
        Instances with ``pred_boxes, scores, pred_classes`` and, if one of the detections has a
        mask, ``pred_masks`` (D, H, W) bool. The mask of a detection without one is its box.
    """
    boxes = np.array(
        [BoxMode.convert(d["bbox"], d["bbox_mode"], BoxMode.XYXY_ABS) for d in detections],
        dtype=np.float64,
    ).reshape(-1, 4)
    result = Instances(size)
    result.pred_boxes = Boxes(torch.as_tensor(transforms.apply_box(boxes), dtype=torch.float32))
    result.scores = torch.tensor([d["score"] for d in detections], dtype=torch.float32)
    result.pred_classes = torch.tensor([d["category_id"] for d in detections], dtype=torch.int64)
    result.pred_boxes.clip(size)
    if any("segmentation" in d for d in detections):
        masks = box_masks(result.pred_boxes.tensor, *size).permute(2, 0, 1).contiguous()
        for mask, detection in zip(masks, detections, strict=True):
            if "segmentation" in detection:
                plane = transforms.apply_segmentation(
                    decode_mask(detection["segmentation"], source)
                )
                mask.copy_(torch.from_numpy(plane == 1))  # 255 fills what the image lacks
        result.pred_masks = masks
    return result[result.pred_boxes.nonempty()]
