"""The Instance CRF as one module: section 3.2 of the paper.

`factored_instance_crf` has our other reading of it; what both have in common is here.

Shape letters: N = H·W pixels, D detections, P parts, L labels, T mean-field iterations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .engine import BACKENDS, infer
from .gaussian_filter import NORMALIZATIONS, GaussianKernel, ImageKernels, bilateral_kernel
from .label_space import LabelSpace, build_label_space
from .labelling import JointLabelling, Labelling
from .potentials import (
    SCORE_TRANSFORMS,
    box_term,
    global_term,
    transform_scores,
    unary_energy,
)
from .validation import (
    check_choice,
    check_inputs,
    check_iterations,
    check_positive,
    positive_parameter,
)

__all__ = ["DenseInstanceCRF", "InstanceCRFBase"]


class InstanceCRFBase(nn.Module):
    """Lists of images, checks, and the Gaussian kernels of an image; see the subclasses' options.

    A subclass has ``_label_image``, and ``_own_parameter``, a name that no other form's state has.
    """

    _own_parameter: str

    def __init__(
        self,
        *,
        theta_alpha: float,
        theta_beta: float,
        theta_gamma: float,
        reference_size: float | None,
        num_iterations: int,
        normalization: str,
        backend: str,
    ) -> None:
        super().__init__()
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_choice("backend", backend, BACKENDS)
        check_positive(theta_alpha=theta_alpha, theta_beta=theta_beta, theta_gamma=theta_gamma)
        if reference_size is not None:
            check_positive(reference_size=reference_size)
        self.theta_alpha = theta_alpha
        self.theta_beta = theta_beta
        self.theta_gamma = theta_gamma
        self.reference_size = reference_size
        self.num_iterations = check_iterations(num_iterations)
        self.normalization = normalization
        self.backend = backend

    def _label_images(
        self,
        columns: dict[str, object],
        part_owner: Tensor | None,
        num_iterations: int | None,
    ) -> Labelling | list[Labelling]:
        """One image's tensors by name, or a list of each (None: none has it) -> the labellings."""
        iterations = self.num_iterations if num_iterations is None else num_iterations
        check_iterations(iterations)
        part_prob = columns["part_prob"]
        if isinstance(part_prob, Tensor):
            return self._check_and_label(columns, part_owner, iterations)
        lists = {
            name: [None] * len(part_prob) if column is None else list(column)
            for name, column in columns.items()
        }
        lengths = {name: len(column) for name, column in lists.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"The lists of images' inputs differ in length: {lengths}.")
        return [
            self._check_and_label(dict(zip(lists, image, strict=True)), part_owner, iterations)
            for image in zip(*lists.values(), strict=True)
        ]

    def _check_and_label(
        self, inputs: dict[str, Tensor | None], part_owner: Tensor | None, iterations: int
    ) -> Labelling:
        check_inputs(part_owner=part_owner, **inputs)
        part_prob = inputs["part_prob"]
        with torch.autocast(part_prob.device.type, enabled=False):
            dtype = torch.float64 if part_prob.dtype == torch.float64 else torch.float32
            inputs["part_prob"] = part_prob.to(dtype)
            boxes = inputs["boxes"] = inputs["boxes"].detach().to(dtype)
            inputs["scores"] = inputs["scores"].detach().to(dtype)
            if inputs["object_classes"] is None:  # every detection owns all parts
                device = part_prob.device
                inputs["object_classes"] = torch.zeros(len(boxes), dtype=torch.int64, device=device)
                part_owner = torch.zeros(len(part_prob) - 1, dtype=torch.int64, device=device)
            return self._label_image(**inputs, part_owner=part_owner, num_iterations=iterations)

    def _kernels(self, image: Tensor) -> ImageKernels:
        """The bilateral and the spatial kernel of the image."""
        scale = 1.0 if self.reference_size is None else max(image.shape[-2:]) / self.reference_size
        return ImageKernels(
            [
                bilateral_kernel(image, scale * self.theta_alpha, self.theta_beta),
                GaussianKernel(tuple(image.shape[-2:]), scale * self.theta_gamma),
            ]
        )

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Refuses the weights of another form: none would be loaded, and nobody told."""
        others = {cls._own_parameter: cls for cls in InstanceCRFBase.__subclasses__()}
        for name, cls in others.items():
            if cls is not type(self) and prefix + name in state_dict:
                raise ValueError(
                    f"The checkpoint has the weights of a {cls.__name__} ({prefix + name}), but "
                    f"the model has a {type(self).__name__}: take MODEL.INSTANCE_CRF.FORM of the "
                    "run that wrote it, or train from a checkpoint without a CRF."
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


class DenseInstanceCRF(InstanceCRFBase):
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
        reference_size: None: the bandwidths are as given; otherwise, they are meant for an image
            whose longer side has so many pixels, and follow the size of each.
        normalization: of the kernels: "after" divides by the filtered ones after filtering (the
            authors' release), "symmetric" by their root before and after.
        backend: see `engine.infer`: "auto", or one of "torch" (the plain reference), "numba"
            (float32 on the CPU) and "triton" (float32 on CUDA).

    Raises:
        ValueError: if an option is unknown or a number is out of its range.
    """

    _own_parameter = "raw_box_weight"

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
        reference_size: float | None = None,
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
        check_choice("score_transform", score_transform, SCORE_TRANSFORMS)
        check_positive(epsilon=epsilon)
        if not (box_term or global_term):
            raise ValueError("The Instance CRF needs box_term, global_term or both.")
        self.box_term = box_term
        self.global_term = global_term
        self.pairwise_term = pairwise_term
        self.background_box_term = background_box_term
        self.epsilon = epsilon
        self.score_transform = score_transform
        self.raw_box_weight = positive_parameter("box_weight", box_weight)
        self.raw_global_weight = positive_parameter("global_weight", global_weight)
        self.raw_bilateral_weight = positive_parameter("bilateral_weight", bilateral_weight)
        self.raw_spatial_weight = positive_parameter("spatial_weight", spatial_weight)

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

    def learned_numbers(self) -> dict[str, float]:
        """The four weights by name, for logs."""
        names = ("box_weight", "global_weight", "bilateral_weight", "spatial_weight")
        return {name: getattr(self, name).item() for name in names}

    def extra_repr(self) -> str:
        """The terms, bandwidths and current weights."""
        terms = [
            name
            for name in ("box_term", "global_term", "pairwise_term", "background_box_term")
            if getattr(self, name)
        ]
        weights = ", ".join(f"{k}={v:.4g}" for k, v in self.learned_numbers().items())
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

        For a list of images each argument but ``part_owner`` and ``num_iterations`` is a list, and
        the images may differ in size and in D.

        Returns:
            A Labelling, or a list of them.

        Raises:
            ValueError: naming the argument, if shapes or devices disagree, part_prob does not hold
                finite probabilities, a box is empty or outside the image, a score is outside
                [0, 1], or the image is not in 0-255.
        """
        columns = {
            "part_prob": part_prob,
            "boxes": boxes,
            "scores": scores,
            "image": image,
            "object_classes": object_classes,
        }
        return self._label_images(columns, part_owner, num_iterations)

    def _label_image(
        self,
        part_prob: Tensor,
        boxes: Tensor,
        scores: Tensor,
        image: Tensor,
        object_classes: Tensor,
        part_owner: Tensor,
        num_iterations: int,
    ) -> Labelling:
        label_space = build_label_space(object_classes.to(boxes.device), part_owner)
        unary = self._unary(part_prob, boxes, scores, label_space)
        log_marginals = infer(
            unary.flatten(0, 1),
            self._kernels(image),
            torch.stack([self.bilateral_weight, self.spatial_weight]),
            num_iterations if self.pairwise_term else 0,
            normalization=self.normalization,
            backend=self.backend,
            overwrite=True,
        )
        return JointLabelling(label_space, log_marginals.view_as(unary))

    def _unary(
        self, part_prob: Tensor, boxes: Tensor, scores: Tensor, label_space: LabelSpace
    ) -> Tensor:
        """(H, W, L) unary energy of Eq. 1 with the terms that are switched on."""
        size = part_prob.shape[1:]
        # Zero, in the graph of every parameter: DistributedDataParallel needs all of them.
        factor = 0.0 * sum(self.parameters())
        if self.box_term:
            scores = transform_scores(scores, self.score_transform)
            psi_box = box_term(boxes, scores, *size, background_score=self._background_score())
            factor = factor + self.box_weight * psi_box
        if self.global_term:
            factor = factor + self.global_weight * global_term(boxes, *size)
        return unary_energy(part_prob, factor, label_space, self.epsilon)

    def _background_score(self) -> float:
        """The score of the background's box, 0 if it has none."""
        if not self.background_box_term:
            return 0.0
        return transform_scores(torch.ones(()), self.score_transform).item()
