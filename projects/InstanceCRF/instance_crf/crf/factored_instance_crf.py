"""The factored Instance CRF: first *what* a pixel is, then *whose*.

Shape letters: N = H·W pixels, D detections, P parts, L labels, G grid of a template, T mean-field
iterations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .engine import infer
from .gaussian_filter import ImageKernels
from .instance_crf import InstanceCRFBase
from .label_space import build_label_space
from .labelling import FactoredLabelling, Labelling, Whose
from .potentials import CUES, consistency_energy, identity_energy
from .validation import check_choice, positive_parameter

__all__ = ["POTENTIALS", "FactoredInstanceCRF"]

POTENTIALS = ("cues", "consistency")

_EPSILON = 1e-8
"""As in Eq. 1: keeps the logarithm of Q finite."""
_LEAST_SOMEONE = 1e-6
"""The least probability of someone that something is divided by."""
_LEAST_SUPPORT = 0.01
"""Who is less probably someone than this says nothing: most of a picture, then, costs little."""


class FactoredInstanceCRF(InstanceCRFBase):
    """Two fully connected CRFs in the place of one over the product of their labels.

    ``q(i, j) = q_what(j) q_whose(i)``. *What* has P + 1 labels and the unaries -log Q. *Whose* has
    one label a detection, and nobody; its unaries are the identity potential of `potentials`, and
    only pixels of people (or of whichever class) tell each other whose they are: its support is
    1 - q_what(background), and 0 below 0.01. Several object classes have a *whose* each. Both are
    minimised by T mean-field iterations over the same two Gaussian kernels as DenseInstanceCRF's.

    Learned and positive (the softplus of raw parameters): a weight lambda for each cue, the floor
    of the evidence, and two kernel weights for each factor. Learned and free: nobody's potential.
    None depends on D or P; the place templates, which are counted, depend on P. The state is the
    same whichever terms are switched on.

    Args:
        cues: the terms of the identity potential, of `potentials.CUES`.
        potential: "cues", or "consistency" for Eq. 2 and 3 in their place, with the weights w1, w2.
        what_pairwise: smooth *what*; otherwise q_what is Q.
        whose_pairwise: smooth *whose*.
        nobody: whether a pixel that fits no detection may be nobody's, within their reach, too.
        reach: a detection owns nothing outside of its box scaled by so much about its centre.
            Pixels out of all reach are nobody's.
        place_templates: (P, G, G) in [0, 1], see `potentials.place_cue`; without them the cue says
            nothing. See also `set_place_templates`.
        cue_weights: initial lambda of some cues; 1 for the others.
        nobody_potential: initial beta.
        evidence_floor: initial floor of the evidence.
        box_weight, global_weight: initial w1 and w2 of Eq. 2 and 3.
        theta_alpha, theta_beta, theta_gamma: bandwidths, see DenseInstanceCRF.
        reference_size: the bandwidths of position are meant for an image whose longer side has so
            many pixels, and follow the size of each; None: they are as given.
        what_weights: initial weights of the bilateral and the spatial kernel for *what*.
        whose_weights: the same for *whose*.
        num_iterations: T, unless ``forward`` is told otherwise.
        normalization, backend: see DenseInstanceCRF.

    Raises:
        ValueError: if an option is unknown or a number is out of its range.
    """

    _own_parameter = "raw_cue_weights.score"

    def __init__(
        self,
        *,
        cues: Sequence[str] = CUES,
        potential: str = "cues",
        what_pairwise: bool = False,
        whose_pairwise: bool = True,
        nobody: bool = False,
        reach: float = 1.3,
        place_templates: Tensor | None = None,
        cue_weights: Mapping[str, float] | None = None,
        nobody_potential: float = -3.0,
        evidence_floor: float = 0.01,
        box_weight: float = 1.0,
        global_weight: float = 1.0,
        theta_alpha: float = 49.0,
        theta_beta: float = 5.0,
        theta_gamma: float = 3.0,
        reference_size: float | None = 500.0,
        what_weights: tuple[float, float] = (2.5, 0.1),
        whose_weights: tuple[float, float] = (4.0, 3.0),
        num_iterations: int = 5,
        normalization: str = "after",
        backend: str = "auto",
    ) -> None:
        super().__init__(
            theta_alpha=theta_alpha,
            theta_beta=theta_beta,
            theta_gamma=theta_gamma,
            reference_size=reference_size,
            num_iterations=num_iterations,
            normalization=normalization,
            backend=backend,
        )
        start = dict(cue_weights or {})
        for cue in (*cues, *start):
            check_choice("cues", cue, CUES)
        if potential == "cues" and not cues:
            raise ValueError("The identity potential needs at least one cue.")
        check_choice("potential", potential, POTENTIALS)
        if not reach > 0:
            raise ValueError(f"reach is {reach}, but must be > 0; math.inf for no end.")
        self.cues = tuple(cue for cue in CUES if cue in cues)
        self.potential = potential
        self.what_pairwise = what_pairwise
        self.whose_pairwise = whose_pairwise
        self.nobody = nobody
        self.reach = reach
        self.register_buffer("place_templates", place_templates)
        self.register_buffer("places_counted", torch.tensor(False))
        self.raw_cue_weights = nn.ParameterDict(
            {cue: positive_parameter("cue_weights", start.get(cue, 1.0)) for cue in CUES}
        )
        self.raw_evidence_floor = positive_parameter("evidence_floor", evidence_floor)
        self.nobody_potential = nn.Parameter(torch.tensor(float(nobody_potential)))
        self.raw_what_weights = positive_parameter("what_weights", list(what_weights))
        self.raw_whose_weights = positive_parameter("whose_weights", list(whose_weights))
        self.raw_consistency_weights = positive_parameter(
            "box_weight, global_weight", [box_weight, global_weight]
        )

    def set_place_templates(self, templates: Tensor) -> None:
        """Takes templates that were counted, (P, G, G), in the place of those at the start; the
        state says so in ``places_counted``."""
        self.place_templates.copy_(templates)
        self.places_counted.fill_(True)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Without the counted templates, as where they are of other parts, nothing is counted."""
        if self.place_templates is not None and prefix + "place_templates" not in state_dict:
            state_dict.pop(prefix + "places_counted", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    @property
    def cue_weights(self) -> dict[str, Tensor]:
        """lambda of each cue that is switched on, > 0."""
        return {cue: F.softplus(self.raw_cue_weights[cue]) for cue in self.cues}

    @property
    def evidence_floor(self) -> Tensor:
        """What is added to the evidence in its logarithm, > 0."""
        return F.softplus(self.raw_evidence_floor)

    @property
    def what_weights(self) -> Tensor:
        """(2,) weights of the bilateral and the spatial kernel for *what*, > 0."""
        return F.softplus(self.raw_what_weights)

    @property
    def whose_weights(self) -> Tensor:
        """(2,) the same for *whose*."""
        return F.softplus(self.raw_whose_weights)

    def learned_numbers(self) -> dict[str, float]:
        """Every number in use that is learned, by name, for logs."""
        numbers = {f"{cue}_weight": value.item() for cue, value in self.cue_weights.items()}
        if "evidence" in self.cues:
            numbers["evidence_floor"] = self.evidence_floor.item()
        if self.nobody:
            numbers["nobody_potential"] = self.nobody_potential.item()
        for factor in ("what", "whose"):
            if getattr(self, f"{factor}_pairwise"):
                bilateral, spatial = getattr(self, f"{factor}_weights").tolist()
                numbers[f"{factor}_bilateral_weight"] = bilateral
                numbers[f"{factor}_spatial_weight"] = spatial
        return numbers

    def extra_repr(self) -> str:
        """Terms, bandwidths and current weights."""
        numbers = ", ".join(f"{k}={v:.4g}" for k, v in self.learned_numbers().items())
        return (
            f"potential={self.potential!r}, nobody={self.nobody}, reach={self.reach}, "
            f"theta=({self.theta_alpha}, {self.theta_beta}, {self.theta_gamma}), "
            f"reference_size={self.reference_size}, {numbers}, "
            f"num_iterations={self.num_iterations}, backend={self.backend!r}"
        )

    def forward(
        self,
        part_prob: Tensor | Sequence[Tensor],
        boxes: Tensor | Sequence[Tensor],
        scores: Tensor | Sequence[Tensor],
        image: Tensor | Sequence[Tensor],
        *,
        evidence: Tensor | Sequence[Tensor | None] | None = None,
        object_classes: Tensor | Sequence[Tensor] | None = None,
        part_owner: Tensor | None = None,
        num_iterations: int | None = None,
    ) -> Labelling | list[Labelling]:
        """Infers the labelling of one image, or of each image of a list.

        Gradients reach ``part_prob``, ``evidence`` and everything learned, not the boxes, scores or
        image; nor, through the support and the place cue, ``part_prob``.

        Args:
            evidence: (D, H, W) in [0, 1], how well each pixel's own vote, or a mask, agrees with
                each detection. None: there is none.

        The other arguments, what is returned and what is raised are DenseInstanceCRF's; detections
        whose class owns no part own nothing.
        """
        columns = {
            "part_prob": part_prob,
            "boxes": boxes,
            "scores": scores,
            "image": image,
            "evidence": evidence,
            "object_classes": object_classes,
        }
        return self._label_images(columns, part_owner, num_iterations)

    def _label_image(
        self,
        part_prob: Tensor,
        boxes: Tensor,
        scores: Tensor,
        image: Tensor,
        evidence: Tensor | None,
        object_classes: Tensor,
        part_owner: Tensor,
        num_iterations: int,
    ) -> Labelling:
        templates = self.place_templates
        if templates is not None and len(templates) != len(part_prob) - 1:
            raise ValueError(
                f"part_prob has {len(part_prob) - 1} parts and a background, but place_templates "
                f"are of {len(templates)} parts: the CRF was made for other parts."
            )
        kernels = self._kernels(image)
        log_what = self._what(part_prob, kernels, num_iterations)
        what = log_what.detach().exp()
        label_space = build_label_space(object_classes, part_owner, nobody=True)
        whose = []
        for object_class in object_classes.unique():
            parts = (part_owner.to(object_classes.device) == object_class).nonzero()[:, 0] + 1
            if not len(parts):
                continue
            detections = (object_classes == object_class).nonzero()[:, 0]
            energy = self._whose_energy(
                part_prob[parts],
                boxes[detections],
                scores[detections],
                None if evidence is None else evidence[detections].to(part_prob.dtype),
                None if templates is None else templates[parts - 1],
            )
            # Of all parts, 1 - q(background) is the same and more precise.
            every = len(parts) == len(part_prob) - 1
            support = (1 - what[..., 0] if every else what[..., parts].sum(2)).clamp(max=1)
            support = torch.where(support < _LEAST_SUPPORT, 0.0, support)
            log_prob = infer(
                energy.flatten(0, 1),
                kernels,
                self.whose_weights.to(energy.dtype),
                num_iterations if self.whose_pairwise else 0,
                normalization=self.normalization,
                support=support.flatten(),
                backend=self.backend,
                overwrite=True,
            )
            whose.append(Whose(detections, parts, log_prob.view_as(energy)))
        return FactoredLabelling(label_space, log_what, whose, nobody=self.nobody)

    def _what(self, part_prob: Tensor, kernels: ImageKernels, num_iterations: int) -> Tensor:
        """(P + 1, H, W) Q -> (H, W, P + 1) log q_what."""
        energy = -(part_prob.permute(1, 2, 0) + _EPSILON).log()
        # Zero, in the graph of every parameter: DistributedDataParallel needs all of them.
        weights = self.what_weights + 0.0 * sum(p.sum() for p in self.parameters())
        log_what = infer(
            energy.flatten(0, 1),
            kernels,
            weights.to(energy.dtype),
            num_iterations if self.what_pairwise else 0,
            normalization=self.normalization,
            backend=self.backend,
            overwrite=True,
        )
        return log_what.view_as(energy)

    def _whose_energy(
        self,
        part_prob: Tensor,
        boxes: Tensor,
        scores: Tensor,
        evidence: Tensor | None,
        templates: Tensor | None,
    ) -> Tensor:
        """(H, W, D + 1) unary energy of one class's *whose*, nobody first.

        ``part_prob`` (P, H, W), ``templates`` (P, G, G): of the class's parts.
        """
        size = tuple(part_prob.shape[1:])
        if self.potential == "consistency":
            w1, w2 = F.softplus(self.raw_consistency_weights).to(boxes.dtype)
            return consistency_energy(boxes, scores, size, w1, w2)
        part_prob = part_prob.detach()
        return identity_energy(
            boxes,
            scores,
            size,
            {cue: weight.to(boxes.dtype) for cue, weight in self.cue_weights.items()},
            reach=self.reach,
            part_given_someone=part_prob / part_prob.sum(0).clamp(min=_LEAST_SOMEONE),
            templates=None if templates is None else templates.to(boxes.dtype),
            evidence=evidence,
            evidence_floor=self.evidence_floor.to(boxes.dtype),
            nobody=self.nobody_potential.to(boxes.dtype) if self.nobody else None,
        )
