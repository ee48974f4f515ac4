"""What is trained and what is evaluated for the tables, as data.

A *stage* is a network that is trained, a *row* a line of a table: a stage, and what differs from it
at inference. A *condition* is what is done to the boxes before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..crf.potentials import CUES
from .results import AS_FOUND

__all__ = [
    "BASELINES",
    "CONDITIONS",
    "CURVES",
    "DETECTION_FILES",
    "FALSE",
    "Recipe",
    "Row",
    "SHRUNK",
    "Stage",
    "TABLE_1",
    "THE_PAPERS",
    "is_file",
    "make_rows",
    "make_stages",
    "recipe_of",
    "rows_of",
]

_CRF = "MODEL.INSTANCE_CRF"

SHRUNK = "boxes x 0.75"
FALSE = "50 % false boxes"
CONDITIONS: dict[str, dict[str, float]] = {
    AS_FOUND: {},
    SHRUNK: {"scale": 0.75},
    FALSE: {"false_boxes": 0.5},
}
"""What happens to the boxes (Figure 4's claims): arguments of
:func:`instance_crf.modeling.disturbance.disturb`."""

DETECTION_FILES = {
    AS_FOUND: "{split}.json",
    SHRUNK: "{split}_shrunk.json",
    FALSE: "{split}_false.json",
}

THE_PAPERS = "pascal_person_part"
"""The data set of the paper's tables, whose protocol was another."""
FINE_TUNING = 0.2
"""Share of the budget by which all that builds on the base network trains on."""


@dataclass(frozen=True)
class Recipe:
    """How the networks of a data set are put together.

    Attributes:
        pretrain: files of `configs/` of a first stage on parts alone; () for none.
        base: of parts and boxes.
        tune: of what trains on from the base network.
        train: the data sets that are learned from.
        splits: what is evaluated.
        tune_opts: keys and values of ``tune``.
        baselines: how the names of the trained baselines' files begin.
        protocol: of the APs.
    """

    pretrain: tuple[str, ...]
    base: tuple[str, ...]
    tune: tuple[str, ...]
    train: tuple[str, ...]
    splits: tuple[str, ...]
    tune_opts: tuple[object, ...] = ()
    baselines: str = ""
    protocol: str = "sds"


def is_file(dataset: str) -> bool:
    """Whether a data set is named by the path of its file, not by its name in `configs/`."""
    return dataset.endswith((".yaml", ".yml"))


def recipe_of(dataset: str, model: str, train: Sequence[str], splits: Sequence[str]) -> Recipe:
    """The recipe of a data set.

    Args:
        dataset: a name of `configs/datasets/`, or the path of another such file.
        model: a name of `configs/models/`; the synthetic people have their own.
        train, splits: DATASETS.TRAIN and TEST of the data set's file.
    """
    if dataset == "synthetic_people":
        return Recipe(
            pretrain=("SyntheticPeople/pretrain",),
            base=("SyntheticPeople/parts",),
            tune=("SyntheticPeople/instance_crf",),
            # 0.0003, with which the demo's 50 iterations end, is too slow for some hundred.
            tune_opts=("SOLVER.BASE_LR", 0.001),
            train=tuple(train),
            splits=("synthetic_people_val", "synthetic_crowd_val"),
            baselines="tiny_",
        )
    own = str(Path(dataset).resolve()) if is_file(dataset) else f"datasets/{dataset}"
    files = (f"models/{model}", own)
    return Recipe(
        pretrain=(),
        base=(*files, "schedules/parts"),
        tune=(*files, "schedules/instance_crf"),
        train=tuple(train),
        splits=tuple(splits),
        baselines="tiny_" if model == "tiny_fpn" else "",
        protocol="tvg" if Path(dataset).stem == THE_PAPERS else "sds",
    )


@dataclass(frozen=True)
class Stage:
    """A network that is trained.

    Attributes:
        name: of its folder.
        files: of `configs/`, without ``.yaml``.
        start: the stage whose weights it starts from; "": as its files say.
        share: of the budget.
        opts: keys and values.
        given_boxes: it trains on the base network's detections as given ones.
    """

    name: str
    files: tuple[str, ...]
    start: str
    share: float
    opts: tuple[object, ...] = ()
    given_boxes: bool = False


def make_stages(recipe: Recipe) -> list[Stage]:
    """All of them; each comes after the one that it starts from."""
    masks = ("MODEL.MASK_ON", True)
    parts_only = (f"{_CRF}.ENABLED", False, "MODEL.DETECTOR.ENABLED", False)
    parts_only += ("MODEL.IDENTITY_HEAD.ENABLED", False)
    pretrained = "pretrain" if recipe.pretrain else ""
    pretraining = 0.25 if recipe.pretrain else 0.0

    def tune(name: str, layer: str, *opts: object, start="base", share=1.0, given=True) -> Stage:
        files = recipe.tune + ((f"tables/{layer}",) if layer else ())
        return Stage(name, files, start, share * FINE_TUNING, (*recipe.tune_opts, *opts), given)

    def piecewise(name: str) -> Stage:
        return tune(name, name, start="parts", share=0.25)

    def baseline(name: str) -> Stage:
        files = (*recipe.base, f"baselines/{recipe.baselines}{name}")
        share = 1 - pretraining + FINE_TUNING
        return Stage(name, files, pretrained, share)

    first = [Stage("pretrain", recipe.pretrain, "", pretraining)] if recipe.pretrain else []
    return [
        *first,
        Stage("base", recipe.base, pretrained, 1 - pretraining, masks),
        # The same minutes without a CRF: what rules read, and where piecewise training begins.
        tune("control", "", f"{_CRF}.ENABLED", False, *masks, given=False),
        tune("full", "full", *masks, given=False),
        baseline("part_mask_rcnn"),
        baseline("top_down"),
        tune("parts", "", *parts_only, share=0.75, given=False),
        piecewise("piecewise_box"),
        piecewise("piecewise"),
        piecewise("piecewise_box_ohem"),
        piecewise("piecewise_ohem"),
        tune("end_to_end", "end_to_end"),
        tune("end_to_end_ohem", "end_to_end_ohem"),
        tune("factored", "factored"),
        tune("ohem_in_parts", "end_to_end_ohem", "MODEL.SEM_SEG_HEAD.OHEM_TOP_K", 0.12),
        tune("segment_matching", "end_to_end_ohem", f"{_CRF}.MATCHING", "segment"),
        tune("unmatched_background", "end_to_end_ohem", f"{_CRF}.UNMATCHED", "background"),
        tune("joint_detector", "joint_detector", given=False),
    ]


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        name: what it says.
        stage: the network.
        layer: file of `configs/` that is put over the network's config; "": none.
        head: config overrides of the head that joins parts and boxes.
        model: of the rest of the network, that is, of what the head is given.
        disturbed: it is evaluated under all conditions, not only as found.
        network: the network's own result counts: there is no such head.
        true_identity: each pixel's true person takes the place of evidence.
    """

    name: str
    stage: str
    head: tuple[object, ...] = ()
    layer: str = ""
    model: tuple[object, ...] = ()
    disturbed: bool = False
    network: bool = False
    true_identity: bool = False


_JOINT = (f"{_CRF}.FORM", "joint", f"{_CRF}.REFERENCE_SIZE", 0.0, f"{_CRF}.MIN_SHARE", 0.0)
_GIVEN = (f"{_CRF}.DETECTIONS.SOURCE", "record", f"{_CRF}.DETECTIONS.SCORE_THRESH", 0.5)
_BOX_ONLY = (f"{_CRF}.GLOBAL_TERM", False, f"{_CRF}.BACKGROUND_BOX_TERM", True)
_NOT_SMOOTHED = (f"{_CRF}.PAIRWISE_TERM", False)

TABLE_1 = {
    "box term only": "piecewise_box",
    "+ global term": "piecewise",
    "+ end to end": "end_to_end",
    "box term only, OHEM": "piecewise_box_ohem",
    "+ global term, OHEM": "piecewise_ohem",
    "+ end to end, OHEM": "end_to_end_ohem",
}
"""Row -> stage, in the paper's order."""

_RULES = {
    "best box wins": "best_box",
    "smallest box wins": "smallest_box",
    "nearest centre wins": "nearest_centre",
    "whole person masks": "whole_masks",
    "person masks AND parts": "masks_and_parts",
    "person masks, then nearest centre": "masks_then_centre",
}
"""Row -> layer of `configs/baselines/`."""
_NETWORKS = {"Mask R-CNN over parts": "part_mask_rcnn", "top-down: parts in each box": "top_down"}
"""Row -> stage."""
BASELINES = (*_RULES, *_NETWORKS)


def make_rows() -> list[Row]:
    """All of them, in the order of the tables."""
    return [*_table_1(), *_left_open(), *_factored(), *_baselines()]


def rows_of(stage: str) -> list[Row]:
    """Those that are evaluated on a stage's network."""
    return [row for row in make_rows() if row.stage == stage]


def _table_1() -> list[Row]:
    return [Row(name, stage, disturbed=True) for name, stage in TABLE_1.items()]


def _left_open() -> list[Row]:
    """What the paper does not say, from its best row; and its terms one by one, not trained."""
    best = "end_to_end_ohem"

    def at(iterations: int) -> tuple[object, ...]:
        return (f"{_CRF}.NUM_ITERATIONS.TEST", iterations)

    with_background = (*_NOT_SMOOTHED, f"{_CRF}.BACKGROUND_BOX_TERM", True)

    def untrained(name: str, *opts: object) -> Row:
        return Row(f"not trained: {name}", "parts", (*_JOINT, *opts), model=_GIVEN)

    return [
        Row("OHEM in the part head's loss, too", "ohem_in_parts"),
        Row("matching by segment", "segment_matching"),
        Row("unmatched is background", "unmatched_background"),
        Row("detector trained jointly", "joint_detector"),
        Row("boxes from 0.15", best, model=(f"{_CRF}.DETECTIONS.SCORE_THRESH", 0.15)),
        Row("background has a box", best, (f"{_CRF}.BACKGROUND_BOX_TERM", True)),
        Row("score as released", best, (f"{_CRF}.SCORE_TRANSFORM", "tvg")),
        Row("symmetric normalisation", best, (f"{_CRF}.NORMALIZATION", "symmetric")),
        Row("no pairwise term", best, _NOT_SMOOTHED),
        *(Row(f"{t} iteration{'s'[: t > 1]}", best, at(t)) for t in (1, 2, 3, 5, 10)),
        untrained("box term only", *_BOX_ONLY),
        untrained("box + global"),
        untrained("box term only, no pairwise term", *_BOX_ONLY, *_NOT_SMOOTHED),
        untrained("box + global, no pairwise term", *_NOT_SMOOTHED),
        untrained("box + global, background has a box, no pairwise term", *with_background),
    ]


def _factored() -> list[Row]:
    """First what, then whose: the form, its cues, its evidence; what is missing to the truth."""
    no_weights = (f"{_CRF}.IDENTITY.CUE_WEIGHTS", ())

    def without(cue: str) -> Row:  # the weights are those that were learned
        cues = (f"{_CRF}.IDENTITY.CUES", tuple(c for c in CUES if c != cue))
        return Row(f"without {cue}", "full", (*no_weights, *cues))

    def evidence(*sources: str) -> tuple[object, ...]:
        return (f"{_CRF}.IDENTITY.EVIDENCE", sources)

    def whose(*opts: object) -> tuple[object, ...]:
        return tuple(f"{_CRF}.IDENTITY.{x}" if i % 2 == 0 else x for i, x in enumerate(opts))

    true_identity = (*no_weights, *whose("CUES", ("evidence",), "NOBODY", True, "REACH", 1e6))
    true_boxes = (f"{_CRF}.DETECTIONS.SOURCE", "ground_truth")
    true_parts = (f"{_CRF}.PARTS.SOURCE", "ground_truth")
    return [
        Row("factored, not trained", "control", disturbed=True),
        Row("factored, given boxes", "factored", disturbed=True),
        Row("full system", "full", disturbed=True),
        Row("boxes from 0.5", "full", model=(f"{_CRF}.DETECTIONS.SCORE_THRESH", 0.5)),
        *(without(cue) for cue in CUES),
        Row("votes alone for evidence", "full", model=evidence("vote")),
        Row("masks alone for evidence", "full", model=evidence("masks")),
        Row("Eq. 2 and 3 for the cues", "full", whose("POTENTIAL", "consistency")),
        Row("what not smoothed", "full", (f"{_CRF}.WHAT.PAIRWISE_TERM", False)),
        Row("whose not smoothed", "full", whose("PAIRWISE_TERM", False)),
        Row("neither smoothed", "full", _NOT_SMOOTHED),
        Row("reach 1", "full", whose("REACH", 1.0)),
        Row("nobody on", "full", whose("NOBODY", True)),
        Row("ranked by product x share", "full", (f"{_CRF}.SCORE", "product_share")),
        Row("true identity", "full", true_identity, true_identity=True),
        Row("true boxes", "full", model=true_boxes),
        Row("true parts", "full", model=true_parts),
        Row("true boxes and parts", "full", model=(*true_boxes, *true_parts)),
    ]


def _baselines() -> list[Row]:
    """What users would pick instead, trained as long."""
    return [
        *(
            Row(name, "control", layer=f"baselines/{layer}", disturbed=True)
            for name, layer in _RULES.items()
        ),
        *(Row(name, stage, disturbed=True, network=True) for name, stage in _NETWORKS.items()),
    ]


CURVES = {
    "base": Row("factored, not trained", "base"),
    "full": Row("full system", "full"),
    **{stage: Row(name, stage, network=True) for name, stage in _NETWORKS.items()},
}
"""Stage -> the row by which it is evaluated on the way."""
