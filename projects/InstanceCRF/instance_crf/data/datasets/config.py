"""Config keys about data sets."""

from __future__ import annotations

from detectron2.config import CfgNode

__all__ = ["add_dataset_config"]


def add_dataset_config(cfg: CfgNode) -> None:
    """Add keys to ``cfg.DATASETS``."""
    # Python modules that register data sets (docs/DATASETS.md). They are imported, so they run:
    # name none that you do not trust.
    cfg.DATASETS.MODULES = []
    # Your own data: the YAML that describes it (docs/DATASETS.md). When given, DATASETS.TRAIN and
    # TEST follow from it, but for those that are given beside or after it.
    cfg.DATASETS.PART_YAML = ""
    # Given detections: one COCO results file per data set of TRAIN / TEST, for
    # MODEL.INSTANCE_CRF.DETECTIONS.SOURCE "record".
    cfg.DATASETS.DETECTIONS_TRAIN = ()
    cfg.DATASETS.DETECTIONS_TEST = ()
    # The files' category id of each object class; [] = 1, 2, ... in the order of the classes, which
    # is that of MODEL.DETECTOR.CLASSES if given.
    cfg.DATASETS.DETECTION_CATEGORY_IDS = []
