"""The fully connected CRF with Gaussian kernels as a trainable layer, for any logits and any image.

Krähenbühl and Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials,
2011; Zheng et al.: Conditional Random Fields as Recurrent Neural Networks, 2015.

Shape letters: B images, L labels, C feature channels, H, W image size, N = H·W pixels, K kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .engine import BACKENDS, infer
from .gaussian_filter import NORMALIZATIONS, GaussianKernel, ImageKernels
from .validation import (
    check_choice,
    check_image,
    check_iterations,
    check_positive,
    positive_parameter,
    value_range,
)

__all__ = ["DenseCRF", "Gaussian"]


@dataclass(frozen=True)
class Gaussian:
    """One Gaussian kernel of a `DenseCRF`: what it compares, by bandwidths, and its initial weight.

    Attributes:
        position: bandwidth of the position in pixels; None leaves the position out.
        colour: bandwidth of the image's colours in units of 0-255; None leaves them out.
        features: bandwidth of the given features in their own units; None leaves them out.
        weight: initial weight, > 0.
    """

    position: float | None = None
    colour: float | None = None
    features: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        theta = {"position": self.position, "colour": self.colour, "features": self.features}
        given = {name: value for name, value in theta.items() if value is not None}
        if not given:
            raise ValueError("A Gaussian needs a bandwidth: position, colour or features.")
        check_positive(**given, weight=self.weight)


class DenseCRF(nn.Module):
    """Mean-field inference of a fully connected CRF, as a layer with learned weights.

    ``Q <- softmax(logits + sum_m w_m K_m Q)``, T times from ``softmax(logits)``. The weights w_m
    are positive, the softplus of raw parameters, and shared by all labels: with the Potts model the
    layer takes any number of labels. Kernels are normalised and keep the pixel itself.

    Args:
        kernels: the K Gaussian kernels; by default a bilateral and a spatial one.
        num_iterations: T, unless ``forward`` is told otherwise.
        num_labels: None for the Potts model; L to learn how much each label attracts each other
            one, an (L, L) parameter ``compatibility`` that starts as Potts, the identity. It runs
            on the reference backend.
        normalization: of the kernels, "after" or "symmetric", see `gaussian_filter`.
        backend: see `engine.infer`.

    Raises:
        ValueError: if an option is unknown or a number is out of its range.
    """

    def __init__(
        self,
        kernels: Sequence[Gaussian] = (
            Gaussian(position=49.0, colour=5.0, weight=4.0),
            Gaussian(position=3.0, weight=3.0),
        ),
        *,
        num_iterations: int = 5,
        num_labels: int | None = None,
        normalization: str = "after",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_choice("normalization", normalization, NORMALIZATIONS)
        check_choice("backend", backend, BACKENDS)
        self.kernels = tuple(kernels)
        if not self.kernels:
            raise ValueError("A DenseCRF needs at least one Gaussian kernel.")
        if num_labels is not None and not num_labels > 0:
            raise ValueError(f"num_labels is {num_labels}, but must be > 0, or None.")
        self.num_iterations = check_iterations(num_iterations)
        self.normalization = normalization
        self.backend = backend
        self.raw_weights = positive_parameter("weight", [each.weight for each in self.kernels])
        self.compatibility = None if num_labels is None else nn.Parameter(torch.eye(num_labels))

    @property
    def weights(self) -> Tensor:
        """(K,) weights of the kernels, > 0."""
        return F.softplus(self.raw_weights)

    def extra_repr(self) -> str:
        """The kernels, current weights and options."""
        weights = ", ".join(f"{weight:.4g}" for weight in self.weights.tolist())
        return (
            f"kernels={list(self.kernels)}, weights=[{weights}], "
            f"num_iterations={self.num_iterations}, normalization={self.normalization!r}, "
            f"backend={self.backend!r}"
        )

    def forward(
        self,
        logits: Tensor,
        image: Tensor | None = None,
        *,
        features: Tensor | None = None,
        support: Tensor | None = None,
        num_iterations: int | None = None,
    ) -> Tensor:
        """Log-marginals of each image.

        Gradients reach the logits, the weights and the compatibility.

        Args:
            logits: (B, L, H, W) finite logits, log-probabilities, or unary energies times -1.
            image: (B, 3, H, W) colours in 0-255, if a kernel compares colours.
            features: (B, C, H, W), if a kernel compares features.
            support: (B, H, W) in [0, 1], how much each pixel counts as a sender; None: all count.
            num_iterations: T for this call.

        Returns:
            (B, L, H, W) log-probabilities in float32, or in float64 for float64 logits.

        Raises:
            ValueError: naming the argument, if something is missing, shapes disagree, logits or
                features are not finite, or the image is not in 0-255.
        """
        iterations = self.num_iterations if num_iterations is None else num_iterations
        check_iterations(iterations)
        self._check(logits, image, features, support)
        with torch.autocast(logits.device.type, enabled=False):
            if logits.dtype != torch.float64:
                logits = logits.float()
            # Pixel by pixel: the labels of one lie side by side.
            unary = logits.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).neg_()
            results = [
                infer(
                    unary[b].flatten(0, 1),
                    self._kernels(tuple(unary.shape[1:3]), image, features, b),
                    self.weights,
                    iterations,
                    normalization=self.normalization,
                    support=None if support is None else support[b].flatten(),
                    compatibility=self.compatibility,
                    backend=self.backend,
                    overwrite=True,
                ).view_as(unary[b])
                for b in range(len(unary))
            ]
            stacked = torch.stack(results) if len(results) > 1 else results[0][None]
            return stacked.permute(0, 3, 1, 2).contiguous()

    def _kernels(
        self, size: tuple[int, int], image: Tensor | None, features: Tensor | None, b: int
    ) -> ImageKernels:
        """The kernels of image b."""
        kernels = []
        for each in self.kernels:
            compared = [(image, each.colour), (features, each.features)]
            compared = [(value[b], theta) for value, theta in compared if theta is not None]
            bandwidths = tuple(theta for value, theta in compared for _ in value)
            rows = torch.cat([value for value, _ in compared]) if compared else None
            kernels.append(GaussianKernel(size, each.position, rows, bandwidths))
        return ImageKernels(kernels)

    def _check(
        self,
        logits: Tensor,
        image: Tensor | None,
        features: Tensor | None,
        support: Tensor | None,
    ) -> None:
        if logits.dim() != 4 or logits.numel() == 0 or not logits.is_floating_point():
            raise ValueError(
                "logits must be floating point of shape (B, L, H, W), got "
                f"{logits.dtype} of shape {tuple(logits.shape)}."
            )
        batch, labels, *size = logits.shape
        if self.compatibility is not None and labels != len(self.compatibility):
            raise ValueError(
                f"logits have {labels} labels, but the compatibility was made for "
                f"num_labels={len(self.compatibility)}."
            )
        for name, value, need in (
            ("image", image, any(kernel.colour is not None for kernel in self.kernels)),
            ("features", features, any(kernel.features is not None for kernel in self.kernels)),
        ):
            if need and value is None:
                raise ValueError(f"A kernel compares the {name}: give {name} (B, C, H, W).")
        for name, value in (("logits", logits), ("features", features)):
            if value is not None and not all(map(math.isfinite, value_range(value))):
                raise ValueError(f"{name} must be finite, but have inf or nan among them.")
        for name, value, shape in (
            ("image", image, (batch, 3, *size)),
            ("features", features, (batch, -1, *size)),
            ("support", support, (batch, *size)),
        ):
            if value is not None and not _fits(value, shape):
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}, but logits need {shape} (-1: any)."
                )
        for each in () if image is None else image:
            check_image(each, tuple(size))


def _fits(value: Tensor, shape: tuple[int, ...]) -> bool:
    return value.dim() == len(shape) and all(
        wanted in (-1, given) for given, wanted in zip(value.shape, shape, strict=True)
    )
