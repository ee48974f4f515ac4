"""What `compare` compares: ways from one image's parts and detections to whose part a pixel is.

All see the same `Problem`, and all answer at the image's own size. The simple rules take Q's
foreground and parts, read there as the CRFs' answers are: they differ from the CRFs in whose the
pixels are, not in where the borders run.

Letters: H, W size of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ..crf import DenseInstanceCRF, FactoredInstanceCRF
from ..crf.guided_upsampling import guided_label_maps
from ..crf.instance_crf import InstanceCRFBase
from ..crf.label_space import build_label_space
from ..crf.labelling import FactoredLabelling
from ..crf.place import region_templates
from ..crf.potentials import CUES
from ..rules import SIMPLE_RULES, Preference, box_owners, mask_owners, owners_by_class
from ..structures import PartInstances
from ..taxonomies import PartTaxonomy
from .inputs import Detections
from .join import Problem

__all__ = ["FACTORED", "JOINT", "MASKS", "Method", "make_methods", "part_answer"]

JOINT = "joint CRF"
FACTORED = "factored CRF"
MASKS = "mask and part"


@dataclass(frozen=True)
class Method:
    """One way to answer.

    Attributes:
        name: as the tables have it.
        kind: "simple", "joint", "factored", or "without" something.
        solve: the answer, of an image and its :func:`part_answer`.
        needs: "masks" or "evidence", if it makes no sense without.
    """

    name: str
    kind: str
    solve: Callable[[Problem, tuple[Tensor, Tensor]], PartInstances]
    needs: str | None = None

    def applies(self, problem: Problem) -> bool:
        """Whether the image has what the method needs; one without detections needs nothing."""
        if self.needs is None or not len(problem.detections):
            return True
        known = {"masks": problem.detections.masks, "evidence": problem.evidence}
        return known[self.needs] is not None


def make_methods(taxonomy: PartTaxonomy, *, ablation: bool = True) -> list[Method]:
    """All of them, in the order of the tables.

    Args:
        taxonomy: of the answers.
        ablation: also the factored CRF without each of its cues, and without its pairwise term.
    """
    methods = [
        Method(name, "simple", partial(_solve_simply, partial(_boxes, preference)))
        for name, preference in SIMPLE_RULES.items()
    ]
    methods += [
        Method(MASKS, "simple", partial(_solve_simply, _masks), needs="masks"),
        Method(JOINT, "joint", partial(_solve, DenseInstanceCRF(reference_size=500).eval())),
        Method(FACTORED, "factored", partial(_solve, None)),
    ]
    if not ablation:
        return methods
    templates = region_templates(taxonomy.part_regions)
    for cue in CUES:
        rest = [other for other in CUES if other != cue]
        crf = FactoredInstanceCRF(place_templates=templates, cues=rest).eval()
        needs = "evidence" if cue == "evidence" else None
        methods.append(Method(f"without the cue {cue}", "without", partial(_solve, crf), needs))
    crf = FactoredInstanceCRF(place_templates=templates, whose_pairwise=False).eval()
    return [*methods, Method("without whose's pairwise term", "without", partial(_solve, crf))]


@torch.no_grad()
def part_answer(problem: Problem) -> tuple[Tensor, Tensor]:
    """What Q alone says: (H, W) int32 parts, 0 where it has the background above a half, and
    (H, W) the probability of each."""
    nobody = torch.zeros(0, dtype=torch.int64, device=problem.q.device)
    space = build_label_space(nobody, torch.tensor(problem.taxonomy.part_owner))
    q_what = problem.q.permute(1, 2, 0).log()
    labelling = FactoredLabelling(space, q_what, whose=(), nobody=False)
    return guided_label_maps(labelling, problem.small, problem.picture)[1:]


def _solve(
    crf: InstanceCRFBase | None, problem: Problem, answer: tuple[Tensor, Tensor]
) -> PartInstances:
    """By a CRF; None: by default."""
    return problem.solve(crf)


def _solve_simply(
    owners: Callable[..., Tensor], problem: Problem, answer: tuple[Tensor, Tensor]
) -> PartInstances:
    """By a simple rule; a pixel goes to detections whose class owns its part."""
    part, confidence = answer
    part_owner = torch.tensor(problem.taxonomy.part_owner)
    rule = partial(owners, problem.detections)
    owner = owners_by_class(rule, part, problem.classes, part_owner)
    return problem.result(owner, part, confidence)


def _boxes(preference: Preference, detections: Detections, mine: Tensor, free: Tensor) -> Tensor:
    return box_owners(preference, detections.boxes[mine], detections.scores[mine], free)


def _masks(detections: Detections, mine: Tensor, free: Tensor) -> Tensor:
    return mask_owners(detections.masks[mine], detections.scores[mine], free)
