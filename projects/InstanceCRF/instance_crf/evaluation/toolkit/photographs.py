"""Photographs with the outputs of somebody's part model and detector, and the truth of people.

The files of such a folder are described by ``tools/evaluate_photographs.py --help``.

Letters: H, W size of the photograph, h, w working size, D detections, P parts.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...crf.labelling import resize_maps
from ...data.datasets.canonical import IMAGE_SUFFIXES, files_by_stem
from ...data.image_io import read_image
from ...data.label_io import read_object_map
from ...entries import as_finite, as_kind, require_keys
from ...files import read_json, read_text
from ...taxonomies.bodypix import BODYPIX_TAXONOMY
from .person_maps import tight_boxes, without_gaps

__all__ = [
    "REGIONS",
    "REGION_OF_PART",
    "Inputs",
    "Photograph",
    "find_photographs",
    "partly_annotated",
    "read_photograph",
]

REGIONS = ("head", "torso", "upper_arms", "lower_arms", "upper_legs", "lower_legs")
"""The P parts that the 24 are merged into, names of `crf.place.REGIONS`."""
# Hands and feet are lower arms and lower legs.
REGION_OF_PART = [REGIONS.index(region) for region in BODYPIX_TAXONOMY.part_regions]
# What Q is told where the true foreground stands in the place of the part model's.
_SURE = 0.96


@dataclass(frozen=True)
class Inputs:
    """What is handed to a method: boxes above a score, or the true ones; whose foreground."""

    least_score: float = 0.3
    true_boxes: bool = False
    true_foreground: bool = False


@dataclass(frozen=True)
class Photograph:
    """One photograph with everything known of it; ``boxes`` are in its own pixels.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        image: (3, h, w) float, at the working size.
        part_prob: (P + 1, h, w) Q, at the working size.
        boxes, scores: (D, 4), (D,).
        truth: (H, W) int32, 0 nobody, -1 does not count.
        truth_complete: whether everybody is annotated.
    """

    name: str
    pixels: np.ndarray
    image: Tensor
    part_prob: Tensor
    boxes: np.ndarray
    scores: np.ndarray
    truth: np.ndarray
    truth_complete: bool

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.truth.shape

    def with_inputs(self, inputs: Inputs) -> Photograph:
        """The same, as a method is to see it."""
        boxes, scores, part_prob = self.boxes, self.scores, self.part_prob
        if inputs.true_boxes:
            boxes = tight_boxes(self.truth)
            scores = np.ones(len(boxes))
        else:
            kept = scores > inputs.least_score
            boxes, scores = boxes[kept], scores[kept]
        if inputs.true_foreground:
            foreground = torch.from_numpy(self.truth > 0).float()[None, None]
            foreground = F.interpolate(foreground, part_prob.shape[1:], mode="nearest")[0, 0]
            someone = torch.where(foreground > 0, _SURE, 1 - _SURE)
            parts = part_prob[1:] / part_prob[1:].sum(0).clamp(min=1e-6)
            part_prob = torch.cat([1 - someone[None], someone * parts])
        return replace(self, boxes=boxes, scores=scores, part_prob=part_prob)

    def foreground(self) -> Tensor:
        """(H, W) bool: where Q has someone."""
        return resize_maps(self.part_prob[:1], self.size)[0] < 0.5

    def crf_inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Q, boxes, scores and image, all at the working size."""
        scale = [
            small / large for small, large in zip(self.image.shape[1:], self.size, strict=True)
        ]
        boxes = torch.from_numpy(self.boxes * np.array(scale[::-1] * 2)).float()
        return self.part_prob, boxes, torch.from_numpy(self.scores).float(), self.image


def find_photographs(folder: Path) -> list[dict]:
    """Name, files, boxes and completeness of each photograph that has a truth.

    Raises:
        FileNotFoundError, ValueError: what is missing, by its name.
    """
    truths = sorted(folder.glob("truth/*_persons.png"))
    if not truths:
        raise FileNotFoundError(f"{folder / 'truth'} has no NAME_persons.png.")
    boxes = sorted(folder.glob("boxes/*.json"))
    if len(boxes) != 1:
        raise FileNotFoundError(
            f"{folder / 'boxes'} has {len(boxes)} JSON files; it must have one."
        )
    detections = read_json(boxes[0], dict)
    partial = partly_annotated(folder)
    photos = files_by_stem(folder / "photos", IMAGE_SUFFIXES)
    photographs = []
    for truth in truths:
        name = truth.name.removesuffix("_persons.png")
        if name not in photos:
            raise FileNotFoundError(f"{folder / 'photos' / name}.jpg does not exist.")
        q = folder / "q" / f"{name}.npz"
        if not q.is_file():
            raise FileNotFoundError(f"{q} does not exist.")
        if name not in detections:
            raise ValueError(f"{boxes[0]} has no entry {name!r}.")
        given = _detections(detections[name], f"{boxes[0]}: {name!r}")
        found = {"photo": Path(photos[name]), "q": q, "truth": truth, "detections": given}
        photographs.append({"name": name, "truth_complete": name not in partial, **found})
    return photographs


def _detections(entry: object, where: str) -> dict[str, np.ndarray]:
    """``boxes`` (D, 4) and ``scores`` (D,)."""
    require_keys(entry, ("boxes", "scores"), where)
    boxes, scores = (as_kind(entry[key], list, f"{where}: {key}") for key in ("boxes", "scores"))
    if len(boxes) != len(scores):
        raise ValueError(f"{where} has {len(boxes)} boxes and {len(scores)} scores.")
    for box in boxes:
        if len(as_kind(box, list, f"{where}: a box")) != 4:
            raise ValueError(f"{where}: a box must be x1, y1, x2, y2, got {box!r:.60}.")
    corners = [[as_finite(v, f"{where}: boxes") for v in box] for box in boxes]
    return {
        "boxes": np.array(corners, float).reshape(-1, 4),
        "scores": np.array([as_finite(v, f"{where}: scores") for v in scores], float),
    }


def partly_annotated(folder: Path) -> set[str]:
    """The photographs in which some people are not annotated, by ``photos.csv`` if there is one.

    Raises:
        ValueError: a table without the columns name and truth_partial.
    """
    table = folder / "photos.csv"
    if not table.exists():
        return set()
    rows = csv.DictReader(read_text(table).splitlines())
    try:
        if not {"name", "truth_partial"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{table} must have the columns name and truth_partial.")
        partial: dict[str, bool] = {}
        for row in rows:
            name, value = row["name"], row["truth_partial"]
            if value not in ("", "0", "1", None):
                raise ValueError(f"{table}: truth_partial of {name!r} is {value!r}, not 0 or 1.")
            if partial.setdefault(name, value == "1") != (value == "1"):
                raise ValueError(f"{table} has {name!r} twice, with both truth_partial 0 and 1.")
    except csv.Error as error:
        raise ValueError(f"{table} is no table of comma-separated values: {error}.") from None
    return {name for name, is_partial in partial.items() if is_partial}


def read_photograph(found: dict, side: int) -> Photograph:
    """Read what `find_photographs` found, with Q and the image at the working size."""
    pixels, truth = read_image(found["photo"]), without_gaps(read_object_map(found["truth"]))
    if truth.shape != pixels.shape[:2]:
        raise ValueError(f"{found['truth']} is {truth.shape}, its photo {pixels.shape[:2]} (H, W).")
    size = [max(1, round(length * side / max(truth.shape))) for length in truth.shape]
    small = F.interpolate(
        torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float(),
        size,
        mode="bilinear",
        antialias=True,
    )[0]
    person, parts = (
        F.interpolate(torch.from_numpy(values)[None], size, mode="bilinear", align_corners=True)[0]
        for values in _read_q(found["q"])
    )
    person, parts = person.sigmoid(), parts.softmax(0)
    merged = torch.zeros(len(REGIONS), *size).index_add_(0, torch.tensor(REGION_OF_PART), parts)
    return Photograph(
        name=found["name"],
        pixels=pixels,
        image=small.clamp(0, 255),
        part_prob=torch.cat([1 - person, person * merged]),
        boxes=found["detections"]["boxes"],
        scores=found["detections"]["scores"],
        truth=truth,
        truth_complete=found["truth_complete"],
    )


def _read_q(path: Path) -> list[np.ndarray]:
    """``person_logit`` (1, h, w) and ``part_logits`` (24, h, w) of a .npz, float32."""
    shapes = {"person_logit": 1, "part_logits": len(REGION_OF_PART)}
    try:
        with np.load(path) as output:
            arrays = [output[name].astype(np.float32) for name in shapes]
    except Exception as error:  # a broken archive raises errors of all kinds
        raise ValueError(f"{path} has no arrays {' and '.join(shapes)}: {error}") from error
    for (name, channels), values in zip(shapes.items(), arrays, strict=True):
        if values.ndim != 3 or len(values) != channels or not values.size:
            raise ValueError(f"{path}: {name} is {values.shape}; expected ({channels}, h, w).")
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: {name} has NaN or infinity.")
    return arrays
