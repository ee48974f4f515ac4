"""One image of `parse`: the inputs brought to one size, joined, read at the image's own size.

Letters: H, W size of the image; h, w working size; P parts; D detections.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..crf import FactoredInstanceCRF
from ..crf.guided_upsampling import guided_label_maps
from ..crf.instance_crf import InstanceCRFBase
from ..crf.labelling import Labelling
from ..crf.place import region_templates
from ..data.image_io import reduced_size
from ..structures import PartInstances
from ..taxonomies import TAXONOMY_NAMES, PartTaxonomy
from .boxes import read_detections, select_classes
from .evidence import keypoint_evidence, mask_evidence
from .images import has_shape_of, read_picture
from .inputs import Detections, PartScores, Source
from .parts import read_part_scores, suspicious, to_q
from .tensors import as_tensor

__all__ = ["LEAST_SCORE", "MIN_SHARE", "SMOOTHING", "WORKING_SIZE", "Join", "Problem"]

WORKING_SIZE = 512
"""Pixels of the longer side at which the CRF works. Its bandwidths follow it."""
LEAST_SCORE = 0.15
"""Boxes below are left out. Low: a false box wins few pixels, and its share ranks it last."""
MIN_SHARE = 0.05
"""Of an object in its box, as `MODEL.INSTANCE_CRF.MIN_SHARE`. Of less its pixels are nobody's."""
SMOOTHING = 0.1
"""What a hard map leaves to the other labels."""
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Problem:
    """One image, ready to be joined.

    Attributes:
        picture: (3, H, W) uint8 RGB.
        small: (3, h, w) float32, the picture at the working size, 0-255.
        q: (P + 1, h, w) Q, background first.
        boxes: (D, 4) in pixels of the working size.
        classes: (D,) int64 object class of each detection.
        detections: the D that are left, in pixels of the image.
        evidence: (D, h, w) whose a pixel looks like, or None.
        taxonomy: of the P parts.
        doubts: what is unlikely about the inputs, in sentences.
    """

    picture: Tensor
    small: Tensor
    q: Tensor
    boxes: Tensor
    classes: Tensor
    detections: Detections
    evidence: Tensor | None
    taxonomy: PartTaxonomy
    doubts: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return tuple(self.picture.shape[1:])

    @torch.no_grad()
    def label(self, crf: InstanceCRFBase | None = None) -> Labelling:
        """At the working size, by a CRF: the factored one with its initial weights if None."""
        device = self.q.device
        crf = (crf or _default_crf(self.taxonomy.part_regions)).to(device)
        takes_evidence = self.evidence is not None and isinstance(crf, FactoredInstanceCRF)
        return crf(
            self.q,
            self.boxes,
            self.detections.scores.to(device),
            self.small,
            object_classes=self.classes,
            part_owner=torch.tensor(self.taxonomy.part_owner, device=device),
            **({"evidence": self.evidence} if takes_evidence else {}),
        )

    def full_size(self, labelling: Labelling) -> tuple[Tensor, Tensor, Tensor]:
        """(H, W) whose, what and how sure, with the borders of the picture."""
        return guided_label_maps(labelling, self.small, self.picture)

    def solve(self, crf: InstanceCRFBase | None = None, *, min_share: float = 0.0) -> PartInstances:
        """The answer of a CRF."""
        return self.result(*self.full_size(self.label(crf)), min_share=min_share)

    def result(
        self,
        owner: Tensor,
        part: Tensor,
        confidence: Tensor | None = None,
        *,
        min_share: float = 0.0,
    ) -> PartInstances:
        """The result of a labelling: (H, W) integers, i + 1 for detection i, and part ids."""
        device = owner.device
        result = PartInstances.from_label_maps(
            owner,
            part,
            boxes=self.detections.boxes.to(device),
            scores=self.detections.scores.to(device),
            classes=self.classes.to(device),
            confidence=confidence,
            score_name="share",
            min_share=min_share,
        )
        return replace(
            result,
            taxonomy=self.taxonomy,
            image=self.picture.permute(1, 2, 0).cpu().numpy(),
            detection_index=self.detections.index[result.detection_index.cpu()],
            notes=(*self.detections.notes, *self.doubts),
        )


@dataclass(frozen=True)
class Join:
    """`parse` of one image, with what all images share; the attributes are its arguments."""

    kind: str
    parts: PartTaxonomy | None = None
    merge: Mapping[str, Sequence[str]] | None = None
    class_names: Sequence[str] | Mapping[int, str] | None = None
    background: str | None = None
    align_corners: bool | None = None
    smoothing: float = SMOOTHING
    least_score: float = LEAST_SCORE
    min_share: float = MIN_SHARE
    working_size: int = WORKING_SIZE
    crf: InstanceCRFBase | None = None

    def __post_init__(self) -> None:
        for name in ("smoothing", "least_score", "min_share"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 <= value <= 1):
                raise ValueError(f"{name} is {value!r}; it must be in 0..1.")
        if not (isinstance(self.working_size, Integral) and self.working_size >= 16):
            raise ValueError(
                f"working_size is {self.working_size!r}; it must be a whole number of pixels, at "
                "least 16."
            )
        if not (self.crf is None or isinstance(self.crf, InstanceCRFBase)):
            raise ValueError(
                f"crf is {self.crf!r:.80}; it must be a module of instance_crf.crf, such as "
                "FactoredInstanceCRF()."
            )

    def __call__(self, *inputs: Any) -> PartInstances:
        """The arguments of :meth:`prepare`."""
        problem = self.prepare(*inputs)
        for doubt in problem.doubts:
            warnings.warn(doubt, stacklevel=3)
        return problem.solve(self.crf, min_share=self.min_share)

    @torch.no_grad()
    def prepare(
        self,
        image: Any,
        scores: Any,
        detections: Any,
        identity: Any = None,
        person_logit: Any = None,
    ) -> Problem:
        """Read everything, bring it to the working size, look for what is unlikely."""
        if identity is not None and not isinstance(self.crf, FactoredInstanceCRF | None):
            raise ValueError(
                f"There is an identity, but {type(self.crf).__name__} takes none; a "
                "FactoredInstanceCRF does."
            )
        pixels, path = read_picture(image)
        size = pixels.shape[:2]
        known = getattr(scores, "taxonomy", None)
        scores = read_part_scores(
            _ask(scores, pixels, path),
            self.kind,
            background=self.background,
            align_corners=self.align_corners,
            person_logit=_ask(person_logit, pixels, path),
        )
        _check_shape(scores, size)
        taxonomy, num_parts, lut = self._taxonomy(scores.taxonomy or known)
        found, classes = self._detections(_ask(detections, pixels, path), size, taxonomy)

        small_size = reduced_size(size, self.working_size)
        device = scores.values.device
        picture = torch.from_numpy(np.require(pixels, requirements="CW")).permute(2, 0, 1)
        # On the CPU: elsewhere torch cannot do this to bytes.
        small = F.interpolate(picture[None], small_size, mode="bilinear", antialias=True)[0]
        q = to_q(scores, small_size, num_parts, smoothing=self.smoothing, lut=lut, image_size=size)
        boxes = (found.boxes * _scale(size, small_size)).to(device)
        doubts = (*found.doubts, *suspicious(q, boxes))
        return Problem(
            picture=picture.to(device),
            small=small.to(device).float(),
            q=q,
            boxes=boxes,
            classes=classes.to(device),
            detections=found,
            evidence=_evidence(found, scores, identity, size, small_size),
            taxonomy=taxonomy,
            doubts=tuple(f"{path or 'the image'}: {doubt}" for doubt in doubts),
        )

    def _taxonomy(
        self, of_model: PartTaxonomy | None
    ) -> tuple[PartTaxonomy, int, np.ndarray | None]:
        """The parts of the answer, how many the model has, and how these become those."""
        taxonomy = self.parts or of_model
        if taxonomy is None:
            raise ValueError(
                "parse does not know what the parts are: give parts=, a taxonomy or one of "
                f"{', '.join(TAXONOMY_NAMES)}."
            )
        if self.merge is None:
            return taxonomy, taxonomy.num_parts, None
        merged, lut = taxonomy.merge(self.merge, rest="background")
        return merged, taxonomy.num_parts, lut

    def _detections(
        self, value: Any, size: tuple[int, int], taxonomy: PartTaxonomy
    ) -> tuple[Detections, Tensor]:
        """Those that count, and the object class of each."""
        found = read_detections(value, size=size, class_names=self.class_names)
        found = found.take(found.scores >= self.least_score)
        return select_classes(found, taxonomy)


def _ask(value: Any, pixels: np.ndarray, path: Path | None) -> Any:
    """What a function says of the image; anything else as it is."""
    if isinstance(value, Source):
        return value(pixels, path)
    if isinstance(value, torch.nn.Module):
        raise ValueError(
            f"{type(value).__name__} is a network, which takes prepared tensors, not pictures: "
            "give its output, or a function of the (H, W, 3) uint8 picture that prepares it, runs "
            "the network and returns the output, as load_part_model and load_detector make them."
        )
    return value(pixels) if callable(value) else value


def _evidence(
    found: Detections,
    scores: PartScores,
    identity: Any,
    image_size: tuple[int, int],
    size: tuple[int, int],
) -> Tensor | None:
    """(D, h, w) the product of all that says whose a pixel looks like; None if nothing does."""
    known = []
    if found.masks is not None:
        known.append(mask_evidence(found.masks, size))
    if found.keypoints is not None:
        scale = _scale(image_size, size)
        keypoints = torch.cat([found.keypoints[..., :2] * scale[:2], found.keypoints[..., 2:]], 2)
        known.append(keypoint_evidence(keypoints, found.boxes * scale, size))
    if scores.votes is not None and len(found):
        votes = _one_a_detection(scores.votes(found.boxes), "votes", len(found))
        known.append(_resized(votes, size, scores.align_corners))
    if identity is not None and len(found):
        known.append(_resized(_rows_of(identity, found), size, False))
    return reduce(torch.mul, (each.to(scores.values.device) for each in known)) if known else None


def _scale(image_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(4,) from x1 y1 x2 y2 in pixels of the image to the working size's."""
    down, across = (less / length for less, length in zip(size, image_size, strict=True))
    return torch.tensor([across, down] * 2)


def _rows_of(identity: Any, found: Detections) -> Tensor:
    """(D, h, w) of the detections that are left."""
    if callable(identity):
        return _one_a_detection(identity(found.boxes), "identity", len(found))
    return _one_a_detection(identity, "identity", found.given)[found.index]


def _one_a_detection(maps: Any, name: str, count: int) -> Tensor:
    """(D, h, w) float32 in [0, 1], if that is what it is."""
    maps = as_tensor(maps, name).float()
    if maps.dim() != 3 or len(maps) != count or not maps.numel():
        raise ValueError(
            f"{name} is {tuple(maps.shape)}; it must be ({count}, h, w), a map for each of the "
            f"{count} detections."
        )
    low, high = (float(value) for value in maps.aminmax())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # NaN is refused, too
        raise ValueError(f"{name} goes from {low:.4g} to {high:.4g}; it must be in 0..1.")
    return maps.clamp(0, 1)


def _check_shape(scores: PartScores, size: tuple[int, int]) -> None:
    """Networks may squash a photo; a map of ids is the photo's, at its size or another."""
    height, width = scores.values.shape[-2:]
    if scores.kind == "map" and not has_shape_of((height, width), size):
        raise ValueError(
            f"The part map is {width}x{height}, the image {size[1]}x{size[0]}: it is not of this "
            "image, or the image is to be rotated as its EXIF tag says."
        )


def _resized(maps: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=align_corners)[0]


@lru_cache(maxsize=8)
def _default_crf(regions: tuple[str, ...]) -> FactoredInstanceCRF:
    return FactoredInstanceCRF(place_templates=region_templates(regions)).eval()
