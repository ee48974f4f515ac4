"""What training does beside iterating.

Shape letters: P parts, G grid of a template.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import torch
from detectron2.data import get_detection_dataset_dicts
from detectron2.engine import HookBase
from detectron2.structures import BoxMode
from torch import Tensor
from tqdm import tqdm

from .crf import FactoredInstanceCRF
from .crf.place import GRID, count_places, templates_from_counts
from .data.label_io import read_object_map, read_part_map
from .data.mapper import common_flip_lut
from .data.order import seed_step
from .entries import is_crowd

__all__ = ["CountPlaces", "SeedSteps", "count_places_of_records"]

logger = logging.getLogger(__name__)

MAX_RECORDS = 2000
"""So many pictures, evenly over the data set, say where parts are found; they take seconds."""


class CountPlaces(HookBase):
    """Before training, counts where in their boxes the training set's parts are found.

    The templates of the place cue are kept in the checkpoint: a run that starts from one, or
    resumes, counts nothing.

    Args:
        dataset_names: the data sets for training.
    """

    def __init__(self, dataset_names: Sequence[str]) -> None:
        self.dataset_names = list(dataset_names)

    def before_train(self) -> None:
        """See the class."""
        model = getattr(self.trainer.model, "module", self.trainer.model)
        crf = getattr(getattr(model, "crf_head", None), "crf", None)
        if not isinstance(crf, FactoredInstanceCRF) or crf.place_templates is None:
            return
        if "place" not in crf.cues or bool(crf.places_counted):
            return
        records = get_detection_dataset_dicts(self.dataset_names, filter_empty=False)
        lut = torch.from_numpy(common_flip_lut(self.dataset_names)).long()
        counts = count_places_of_records(records, len(crf.place_templates), lut)
        crf.set_place_templates(templates_from_counts(counts).to(crf.place_templates))
        logger.info("Counted the places of parts in %d pictures.", min(len(records), MAX_RECORDS))


class SeedSteps(HookBase):
    """Every iteration draws the random numbers of its place, whatever was drawn before.

    Args:
        seed: cfg.SEED; nothing is done if it is negative.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_step(self) -> None:
        """See the class."""
        if self.seed >= 0:
            seed_step(self.seed, self.trainer.iter)


def count_places_of_records(
    records: Sequence[Mapping], num_parts: int, flip_lut: Tensor, grid: int = GRID
) -> Tensor:
    """The counts of `crf.place.count_places` over at most MAX_RECORDS pictures and their mirror
    images.

    Args:
        records: of a data set; those without maps are passed over.
        num_parts: P.
        flip_lut: (256,) table of part ids under mirroring.
        grid: G.

    Returns:
        (P, G, G) float64.
    """
    counts = torch.zeros(num_parts, grid, grid, dtype=torch.float64)
    step = max(1, -(-len(records) // MAX_RECORDS))
    for record in tqdm(records[::step], desc="places of parts", unit="image", leave=False):
        annotations = record.get("annotations", ())
        known = [a for a in annotations if not is_crowd(a, record.get("file_name"))]
        if "part_file_name" not in record or "object_file_name" not in record or not known:
            continue
        boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in known]
        counts += count_places(
            torch.from_numpy(read_part_map(record["part_file_name"])),
            torch.from_numpy(read_object_map(record["object_file_name"])),
            torch.tensor([a["object_id"] for a in known]),
            torch.tensor(boxes, dtype=torch.float64),
            num_parts,
            grid,
        )
    mirrored = flip_lut[1 : num_parts + 1] - 1
    return counts + counts[mirrored].flip(2)
