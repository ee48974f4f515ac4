"""The Instance CRF as one module: section 3.2 of the paper.

Shape letters: N = H·W pixels, D detections, P parts, L labels, T mean-field iterations.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from instance_crf.crf.gaussian_filter import (
    NORMALIZATIONS,
    PermutohedralFilter,
    bilateral_features,
    spatial_filter,
)
from instance_crf.crf.label_space import LabelSpace, build_label_space
from instance_crf.crf.labelling import Labelling
from instance_crf.crf.mean_field import mean_field
from instance_crf.crf.potentials import (
    SCORE_TRANSFORMS,
    box_term,
    global_term,
    pixel_ranges,
    transform_scores,
    unary_energy,
)
from instance_crf.crf.validation import check_inputs

__all__ = ["DenseInstanceCRF"]

BACKENDS = ("auto", "numba", "triton", "torch")


class DenseInstanceCRF(nn.Module):
    """Fully connected CRF over the labels (detection, part) of an image, Eq. 1.

    ``E(v) = -sum_k ln[w1 psi_Box + w2 psi_Global + eps] + sum_{k<l} psi_Pairwise``, minimised by T
    mean-field iterations. The pairwise term is the Potts model with two Gaussian kernels, a
    bilateral one (position/theta_alpha, colour/theta_beta) and a spatial one
    (position/theta_gamma). Kernels are normalised, keep the pixel itself, and need the image in
    0-255, whatever the order of its channels.

    The four weights are learned and positive: each is the softplus of its raw parameter. They are
    shared by all labels, so the state of the module depends on neither D nor P. It is also the same
    whichever terms are switched on.

    Args:
        box_term: use Eq. 2.
        global_term: use Eq. 3.
        pairwise_term: use the pairwise term; without it the result is the normalised unary.
        background_box_term: also give the background a box, the whole image with score 1 (through
            ``score_transform``). By Eq. 2 it has none; a CRF without the global term needs it.
        box_weight: initial w1.
        global_weight: initial w2.
        epsilon: the epsilon of Eq. 1.
        score_transform: "identity", or "tvg" for sigmoid(2 s - 1) as in the authors' release.
        theta_alpha: position bandwidth of the bilateral kernel, in pixels of the input.
        theta_beta: colour bandwidth of the bilateral kernel, in units of 0-255.
        theta_gamma: bandwidth of the spatial kernel, in pixels of the input.
        bilateral_weight: initial weight of the bilateral kernel.
        spatial_weight: initial weight of the spatial kernel.
        num_iterations: T, unless ``forward`` is told otherwise.
        normalization: of the kernels: "after" divides by the filtered ones after filtering (the
            authors' release), "symmetric" by their root before and after.
        drop_threshold: delta. Labels whose marginal provably stays below it may be dropped; 0 keeps
            all.
        backend: "torch" is the plain reference; "numba" the accelerated one for float32 on the CPU;
            "triton" that for float32 on CUDA; "auto" takes one of these where it can. The
            drop_threshold matters to numba alone, the others are exact.

    Raises:
        ValueError: if an option is unknown or a number is out of its range.
    """

    def __init__(
        self,
        *,
        box_term: bool = True,
        global_term: bool = True,
        pairwise_term: bool = True,
        background_box_term: bool = False,
        box_weight: float = 1.0,
        global_weight: float = 1.0,
        epsilon: float = 1e-8,
        score_transform: str = "identity",
        theta_alpha: float = 49.0,
        theta_beta: float = 5.0,
        theta_gamma: float = 3.0,
        bilateral_weight: float = 4.0,
        spatial_weight: float = 3.0,
        num_iterations: int = 5,
        normalization: str = "after",
        drop_threshold: float = 0.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        _check_choice("score_transform", score_transform, SCORE_TRANSFORMS)
        _check_choice("normalization", normalization, NORMALIZATIONS)
        _check_choice("backend", backend, BACKENDS)
        _check_positive(
            epsilon=epsilon, theta_alpha=theta_alpha, theta_beta=theta_beta, theta_gamma=theta_gamma
        )
        if not (box_term or global_term):
            raise ValueError("The Instance CRF needs box_term, global_term or both.")
        if not 0 <= drop_threshold < 1:
            raise ValueError(f"drop_threshold is {drop_threshold}, but must be in [0, 1).")
        self.box_term = box_term
        self.global_term = global_term
        self.pairwise_term = pairwise_term
        self.background_box_term = background_box_term
        self.epsilon = epsilon
        self.score_transform = score_transform
        self.theta_alpha = theta_alpha
        self.theta_beta = theta_beta
        self.theta_gamma = theta_gamma
        self.num_iterations = _check_iterations(num_iterations)
        self.normalization = normalization
        self.drop_threshold = drop_threshold
        self.backend = backend
        self.raw_box_weight = _positive_parameter("box_weight", box_weight)
        self.raw_global_weight = _positive_parameter("global_weight", global_weight)
        self.raw_bilateral_weight = _positive_parameter("bilateral_weight", bilateral_weight)
        self.raw_spatial_weight = _positive_parameter("spatial_weight", spatial_weight)

    @property
    def box_weight(self) -> Tensor:
        """w1 of Eq. 1, > 0."""
        return F.softplus(self.raw_box_weight)

    @property
    def global_weight(self) -> Tensor:
        """w2 of Eq. 1, > 0."""
        return F.softplus(self.raw_global_weight)

    @property
    def bilateral_weight(self) -> Tensor:
        """Weight of the bilateral kernel, > 0."""
        return F.softplus(self.raw_bilateral_weight)

    @property
    def spatial_weight(self) -> Tensor:
        """Weight of the spatial kernel, > 0."""
        return F.softplus(self.raw_spatial_weight)

    def extra_repr(self) -> str:
        """The terms, bandwidths and current weights."""
        terms = [
            name
            for name in ("box_term", "global_term", "pairwise_term", "background_box_term")
            if getattr(self, name)
        ]
        weights = ", ".join(
            f"{name}={getattr(self, name).item():.4g}"
            for name in ("box_weight", "global_weight", "bilateral_weight", "spatial_weight")
        )
        return (
            f"terms={terms}, theta=({self.theta_alpha}, {self.theta_beta}, {self.theta_gamma}), "
            f"{weights}, num_iterations={self.num_iterations}, backend={self.backend!r}"
        )

    def forward(
        self,
        part_prob: Tensor | Sequence[Tensor],
        boxes: Tensor | Sequence[Tensor],
        scores: Tensor | Sequence[Tensor],
        image: Tensor | Sequence[Tensor],
        *,
        object_classes: Tensor | Sequence[Tensor] | None = None,
        part_owner: Tensor | None = None,
        num_iterations: int | None = None,
        target_part: Tensor | Sequence[Tensor] | None = None,
    ) -> Labelling | list[Labelling]:
        """Infers the labelling of one image, or of each image of a list.

        Gradients reach ``part_prob`` and the four weights, not the boxes, scores or image.

        Args:
            part_prob: (P + 1, H, W) Q: probabilities of background (channel 0) and P parts.
            boxes: (D, 4) ``x1, y1, x2, y2`` in pixels of the input; D may be 0. What sticks out of
                the image is clipped.
            scores: (D,) detection scores in [0, 1].
            image: (3, H, W) colours in 0-255.
            object_classes: (D,) integer class of each detection, with ``part_owner``. None: every
                detection owns all parts.
            part_owner: (P,) integer object class that owns each part; the same for all images.
            num_iterations: T for this call.
            target_part: (H, W) part map of the ground truth (0 background, 1..P, anything else is
                ignored): these parts are never dropped at their pixels.

        For a list of images each argument but ``part_owner`` and ``num_iterations`` is a list, and
        the images may differ in size and in D.

        Returns:
            A Labelling, or a list of them.

        Raises:
            ValueError: naming the argument, if shapes or devices disagree, part_prob does not hold
                finite probabilities, a box is empty or outside the image, a score is outside
                [0, 1], or the image is not in 0-255.
        """
        iterations = self.num_iterations if num_iterations is None else num_iterations
        _check_iterations(iterations)
        if isinstance(part_prob, Tensor):
            return self._label_image(
                part_prob, boxes, scores, image, object_classes, target_part, part_owner, iterations
            )
        count = len(part_prob)
        columns = [part_prob, boxes, scores, image]
        columns += [column or [None] * count for column in (object_classes, target_part)]
        lengths = [len(column) for column in columns]
        if set(lengths) != {count}:
            raise ValueError(f"The lists of images' inputs differ in length: {lengths}.")
        return [
            self._label_image(*inputs, part_owner, iterations)
            for inputs in zip(*columns, strict=True)
        ]

    def _label_image(
        self,
        part_prob: Tensor,
        boxes: Tensor,
        scores: Tensor,
        image: Tensor,
        object_classes: Tensor | None,
        target_part: Tensor | None,
        part_owner: Tensor | None,
        num_iterations: int,
    ) -> Labelling:
        check_inputs(part_prob, boxes, scores, image, object_classes, part_owner, target_part)
        with torch.autocast(part_prob.device.type, enabled=False):
            if part_prob.dtype != torch.float64:
                part_prob = part_prob.float()
            boxes = boxes.detach().to(part_prob.dtype)
            scores = scores.detach().to(part_prob.dtype)
            label_space = _label_space(part_prob, boxes, object_classes, part_owner)
            if self._use_numba(part_prob, label_space):
                labelling = self._label_with_numba(
                    part_prob, boxes, scores, image, label_space, target_part, num_iterations
                )
                if labelling is not None:
                    return labelling
            return self._label_densely(part_prob, boxes, scores, image, label_space, num_iterations)

    def _label_densely(
        self,
        part_prob: Tensor,
        boxes: Tensor,
        scores: Tensor,
        image: Tensor,
        label_space: LabelSpace,
        num_iterations: int,
    ) -> Labelling:
        """Every array dense, any device and precision: the plain reference, or Triton's kernels."""
        unary = self._unary(part_prob, boxes, scores, label_space)
        if label_space.num_labels == 1:
            num_iterations = 0  # the background alone is certain
        filters, weights = self._kernels(image, num_iterations)
        weights = [weight.to(unary.dtype) for weight in weights]
        infer = self._mean_field(part_prob)
        log_marginals = infer(unary.flatten(1).t(), filters, weights, num_iterations)
        log_marginals = log_marginals.t().reshape(unary.shape) + self._touch_all()
        return Labelling(label_space, log_marginals)

    def _mean_field(self, part_prob: Tensor) -> Callable[..., Tensor]:
        """The reference, or what takes its place on this device."""
        fits = part_prob.is_cuda and part_prob.dtype == torch.float32
        if self.backend == "triton":
            interpreted = os.environ.get("TRITON_INTERPRET") == "1"
            if not (fits or (interpreted and part_prob.dtype == torch.float32)):
                raise ValueError(
                    f'backend="triton" needs float32 on CUDA, but part_prob is {part_prob.dtype} '
                    f"on {part_prob.device}."
                )
        elif self.backend != "auto" or not fits or importlib.util.find_spec("triton") is None:
            return mean_field
        # Imported late: Triton may be missing, and nobody but this needs it.
        from instance_crf.crf.cuda.mean_field import mean_field as triton_mean_field
        from instance_crf.crf.cuda.mean_field import runs_on

        if self.backend == "auto" and not runs_on(part_prob.device):
            return mean_field
        return triton_mean_field

    def _use_numba(self, part_prob: Tensor, label_space: LabelSpace) -> bool:
        """Whether the accelerated CPU inference takes this image."""
        fits = part_prob.device.type == "cpu" and part_prob.dtype == torch.float32
        if self.backend == "numba":
            if not fits:
                raise ValueError(
                    f'backend="numba" needs float32 on the CPU, but part_prob is {part_prob.dtype} '
                    f"on {part_prob.device}."
                )
            return label_space.num_labels > 1
        found = importlib.util.find_spec("numba") is not None
        return self.backend == "auto" and fits and found and label_space.num_labels > 1

    def _label_with_numba(
        self,
        part_prob: Tensor,
        boxes: Tensor,
        scores: Tensor,
        image: Tensor,
        label_space: LabelSpace,
        target_part: Tensor | None,
        num_iterations: int,
    ) -> Labelling | None:
        """The accelerated inference; None if the image is beyond its compact indices."""
        # Imported late: numba takes a moment, and nobody but this needs it.
        from instance_crf.crf.cpu.inference import Problem
        from instance_crf.crf.cpu.labelling import CpuLabelling
        from instance_crf.crf.cpu.lattice import LatticeRangeError

        height, width = part_prob.shape[-2:]
        weights = (
            self.box_weight,
            self.global_weight,
            self.bilateral_weight,
            self.spatial_weight,
        )
        values = [weight.item() for weight in weights]
        problem = Problem(
            part_prob=part_prob.detach().contiguous().view(part_prob.shape[0], -1).numpy(),
            height=height,
            width=width,
            image=image.detach().float().contiguous().view(3, -1).numpy(),
            boxes=pixel_ranges(boxes).t().contiguous().numpy(),
            scores=transform_scores(scores, self.score_transform).numpy(),
            label_index=label_space.label_index().numpy(),
            box_weight=values[0] if self.box_term else 0.0,
            global_weight=values[1] if self.global_term else 0.0,
            background_score=self._background_score() if self.box_term else 0.0,
            epsilon=self.epsilon,
            thetas=(self.theta_alpha, self.theta_beta, self.theta_gamma),
            strengths=(values[2], values[3]),
            num_iterations=num_iterations if self.pairwise_term else 0,
            normalization=self.normalization,
            drop_threshold=self.drop_threshold,
            keep_active=None if target_part is None else target_part.reshape(-1).long().numpy(),
        )
        try:
            return CpuLabelling(label_space, problem, part_prob, weights, torch.get_num_threads())
        except LatticeRangeError:
            if self.backend == "numba":
                raise
            return None

    def _background_score(self) -> float:
        """The score of the background's box, 0 if it has none."""
        if not self.background_box_term:
            return 0.0
        return transform_scores(torch.ones(()), self.score_transform).item()

    def _unary(
        self, part_prob: Tensor, boxes: Tensor, scores: Tensor, label_space: LabelSpace
    ) -> Tensor:
        """(L, H, W) unary energy of Eq. 1 with the terms that are switched on."""
        psi_box = psi_global = None
        if self.box_term:
            psi_box = box_term(
                part_prob,
                boxes,
                transform_scores(scores, self.score_transform),
                label_space,
                background_score=self._background_score(),
            )
        if self.global_term:
            psi_global = global_term(part_prob, label_space)
        return unary_energy(
            psi_box,
            psi_global,
            self.box_weight.to(part_prob.dtype),
            self.global_weight.to(part_prob.dtype),
            self.epsilon,
        )

    def _kernels(
        self, image: Tensor, num_iterations: int
    ) -> tuple[list[PermutohedralFilter], list[Tensor]]:
        """The Gaussian kernels of the image and their weights; none if they are not needed."""
        if not self.pairwise_term or num_iterations == 0:
            return [], []
        height, width = image.shape[-2:]
        image = image.detach()
        features = bilateral_features(image, self.theta_alpha, self.theta_beta)
        bilateral = PermutohedralFilter(features, normalization=self.normalization)
        spatial = spatial_filter(
            height,
            width,
            self.theta_gamma,
            normalization=self.normalization,
            device=image.device,
        )
        return [bilateral, spatial], [self.bilateral_weight, self.spatial_weight]

    def _touch_all(self) -> Tensor:
        """Zero, in the graph of every parameter: DistributedDataParallel needs all of them."""
        return 0.0 * sum(parameter for parameter in self.parameters())


def _label_space(
    part_prob: Tensor, boxes: Tensor, object_classes: Tensor | None, part_owner: Tensor | None
) -> LabelSpace:
    """The image's labels; without classes every detection owns all parts."""
    if object_classes is None or part_owner is None:
        num_parts = part_prob.shape[0] - 1
        object_classes = torch.zeros(boxes.shape[0], dtype=torch.int64, device=boxes.device)
        part_owner = torch.zeros(num_parts, dtype=torch.int64, device=boxes.device)
    return build_label_space(object_classes.to(boxes.device), part_owner)


def _positive_parameter(name: str, value: float) -> nn.Parameter:
    """A raw scalar whose softplus is ``value``."""
    _check_positive(**{name: value})
    value = torch.tensor(float(value), dtype=torch.float64)
    raw = value + torch.log(-torch.expm1(-value))  # the inverse of softplus
    return nn.Parameter(raw.float())


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}, but must be > 0.")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, but must be in {choices}.")


def _check_iterations(value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"num_iterations is {value!r}, but must be an integer >= 0.")
    return value
