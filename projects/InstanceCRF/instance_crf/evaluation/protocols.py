"""The protocols under which the literature reports a region AP ("APr"), as data.

Every one of them ranks predicted regions by score, calls a region good when its IoU with a
ground truth of its class passes a threshold, and integrates precision over recall. They differ
in the few choices that :class:`Protocol` names, by up to several points of AP on the same files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["PROTOCOLS", "Protocol", "get_protocol"]

# Decimal literals, not 0.1 * k: an IoU is a rational that float64 rounds correctly, so with
# correctly rounded thresholds a tie (IoU exactly 3/10 at 0.3) is decided by ">" or ">=" alone.
VOLUME_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
COCO_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class Protocol:
    """What one reported "AP" means.

    Attributes:
        name: printed next to every number.
        description: whose protocol it is.
        thresholds: IoU thresholds; the mean over them is the "vol" of the table.
        inclusive: an IoU equal to the threshold is a match (``>=``); otherwise ``>``.
        matching: how a prediction gets its ground truth, predictions taken by descending score.
            ``"argmax"``: only the ground truth that it overlaps most; when an earlier prediction
            has that one, it is a false positive. ``"uncovered"``: the ground truth that it
            overlaps most among those not yet taken. ``"unlimited"``: any; a ground truth may
            be matched again and again, so duplicates are not penalised and AP can exceed 1.
        equal_ious: the ground truth taken of several that a prediction overlaps equally, in the
            order given: ``"first"``, or ``"last"`` (with ``"uncovered"`` alone).
        integral: ``"all_points"``: area under the precision envelope (VOC 2010 and later).
            ``"11_points"``: mean of the envelope at recall 0, 0.1 … 1 (VOC 2007).
            ``"101_points"``: the same at 0, 0.01 … 1 (COCO). ``"sum"``: no interpolation, the
            mean over ground truths of the precision at each match.
        ignore: pixels that the ground truth marks as ignored. ``"erase"``: taken out of the
            prediction before its IoU. ``"count"``: ordinary pixels that belong to no ground truth.
        absent: a class without ground truth. ``"skip"``: NaN, left out of means. ``"nan"``: NaN,
            and so is every mean over it. ``"zero"``: 0 without predictions and NaN with them,
            both in the mean.
        images: ``"all"``, or ``"predicted"``: an image without a prediction file is left out,
            with its ground truth.
        crowd: regions of ground truth flagged as crowd. ``"absorb"``: a prediction that matches
            nothing else and lies in one is not counted. ``"drop"``: they are no ground truth.
        max_detections: predictions of one class used per image, best first; None: all.
        warning: a defect of the published protocol that is reproduced here.
    """

    name: str
    description: str
    thresholds: tuple[float, ...] = VOLUME_THRESHOLDS
    inclusive: bool = False
    matching: Literal["argmax", "uncovered", "unlimited"] = "argmax"
    equal_ious: Literal["first", "last"] = "first"
    integral: Literal["all_points", "11_points", "101_points", "sum"] = "all_points"
    ignore: Literal["count", "erase"] = "count"
    absent: Literal["skip", "nan", "zero"] = "skip"
    images: Literal["all", "predicted"] = "all"
    crowd: Literal["absorb", "drop"] = "drop"
    max_detections: int | None = None
    warning: str | None = None

    def __post_init__(self) -> None:
        if not self.thresholds or not all(0 < t <= 1 for t in self.thresholds):
            raise ValueError(
                f"Protocol {self.name!r}: thresholds must be IoUs in (0, 1], got {self.thresholds}."
            )


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "sds",
            "Simultaneous Detection and Segmentation, the Python release: each prediction is "
            "bound to the ground truth it overlaps most, each ground truth matched once",
            inclusive=True,
        ),
        Protocol(
            "sds_matlab",
            "Simultaneous Detection and Segmentation, the original MATLAB release",
            matching="uncovered",
        ),
        Protocol(
            "voc07",
            "Multi-task Network Cascades: SDS matching with the 11-point integral of VOC 2007",
            inclusive=True,
            integral="11_points",
        ),
        Protocol(
            "tvg",
            "the evaluation of the paper's authors (dynamically instantiated network)",
            matching="unlimited",
            integral="sum",
            ignore="erase",
            absent="nan",
            warning="duplicates are not penalised, so AP can exceed 100, and one class without "
            "ground truth makes the mean NaN",
        ),
        Protocol(
            "cihp",
            "the LIP/CIHP challenge's instance-level part AP",
            matching="unlimited",
            absent="zero",
            images="predicted",
            warning="duplicates are not penalised, so AP can exceed 100; a class without ground "
            "truth counts as 0, or as NaN if it is predicted; images without a prediction file "
            "are left out",
        ),
        Protocol(
            "coco",
            "COCO's 101-point AP over IoU 0.5:0.05:0.95",
            thresholds=COCO_THRESHOLDS,
            inclusive=True,
            matching="uncovered",
            equal_ious="last",
            integral="101_points",
            crowd="absorb",
            max_detections=100,
        ),
        Protocol(
            "aph",
            "human AP of QANet and M2FP: IoU 0.5:0.05:0.95, all points",
            thresholds=COCO_THRESHOLDS,
            matching="unlimited",
            warning="duplicates are not penalised, so AP can exceed 100",
        ),
        Protocol(
            "app",
            "person AP of Multi-Human Parsing (MHP), over the mean part IoU of a person",
            matching="argmax",
        ),
    )
}
"""Named protocols. ``aph`` and ``app`` are those of the person metrics of the same names."""


def get_protocol(protocol: str | Protocol) -> Protocol:
    """The protocol of that name (or the one given).

    Raises:
        ValueError: no protocol has that name.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"Unknown protocol {protocol!r}; it is one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[protocol]
