"""Dense Gaussian filtering of label distributions in a feature space.

A kernel sums over *all* pixels of the image,
``(K v)_k = sum_i exp(-|f_k - f_i|^2 / 2) v_i``, the pixel itself included. The features decide what
it is: position/theta_gamma for the spatial kernel, position/theta_alpha with colour/theta_beta for
the bilateral one. Positions are in pixels of the grid that is filtered, colours in 0-255.

`NormalizedFilter` turns the sum into weighted means of the pixels with support f, by default all:

* ``"after"``: K (f v) / n (what the authors' release does);
* ``"symmetric"``: n^-1/2 K (f n^-1/2 v) (what pydensecrf does by default),

where n = max(K f, 1e-6 K 1) (normalised convolution, Knutsson and Westin 1993): a pixel with f = 0
sends nothing, and where no support is in reach the result is 0.

Kernels are linear in the values and depend on the image only, which gets no gradient.
`permutohedral_lattice` approximates them in linear time.

Shape letters: N = H·W pixels, C channels, F feature dimensions, K kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .permutohedral_lattice import PermutohedralLattice

__all__ = [
    "NORMALIZATIONS",
    "GaussianKernel",
    "ImageKernels",
    "NormalizedFilter",
    "bilateral_kernel",
    "normalization_factors",
]

NORMALIZATIONS = ("after", "symmetric")
SUPPORT_FLOOR = 1e-6
"""Share of K 1 that K f is raised to at least."""
_TINY = 1e-20  # a pixel's own weight is positive by construction; this only guards the division

Built = TypeVar("Built")


@dataclass(frozen=True, eq=False)
class GaussianKernel:
    """One Gaussian kernel between the pixels of an image, by its features.

    Attributes:
        size: (H, W) of the image.
        theta: bandwidth of the position in pixels, or None if the position does not count.
        features: (C, H, W) further features, or None; not copied, so they must stay as they are.
        bandwidths: (C,) of the features, in their own units; () stands for ones.
    """

    size: tuple[int, int]
    theta: float | None = None
    features: Tensor | None = None
    bandwidths: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.theta is None and self.features is None:
            raise ValueError("A Gaussian kernel needs a bandwidth theta, features or both.")
        if self.theta is not None and not self.theta > 0:
            raise ValueError(f"theta is {self.theta}, but must be > 0.")
        if self.features is None:
            if self.bandwidths:
                raise ValueError(f"bandwidths are {self.bandwidths}, but there are no features.")
            return
        if self.features.dim() != 3 or tuple(self.features.shape[1:]) != self.size:
            raise ValueError(
                f"features have shape {tuple(self.features.shape)}, but must be (C, H, W) with "
                f"(H, W) = {self.size}."
            )
        if len(self.bandwidths) not in (0, len(self.features)):
            raise ValueError(
                f"There are {len(self.bandwidths)} bandwidths for {len(self.features)} features."
            )
        if not all(bandwidth > 0 for bandwidth in self.bandwidths):
            raise ValueError(f"bandwidths are {self.bandwidths}, but must be > 0.")

    @property
    def thetas(self) -> tuple[float, ...]:
        """(F,) bandwidths of x and y, if the position counts, and of the features."""
        position = () if self.theta is None else (self.theta, self.theta)
        count = 0 if self.features is None else len(self.features)
        return position + (self.bandwidths or (1.0,) * count)

    @property
    def num_features(self) -> int:
        """F."""
        return len(self.thetas)

    def feature_rows(self, device: torch.device | str) -> Tensor:
        """(N, F) float64 features in units of their bandwidths: x, y, then the others."""
        columns = []
        if self.theta is not None:
            y, x = torch.meshgrid(
                *(torch.arange(n, device=device, dtype=torch.float64) for n in self.size),
                indexing="ij",
            )
            columns += [x.flatten(), y.flatten()]
        if self.features is not None:
            columns += self.features.detach().flatten(1).to(device).double().unbind()
        scaled = [column / theta for column, theta in zip(columns, self.thetas, strict=True)]
        return torch.stack(scaled, dim=1)

    def lattice(self, device: torch.device) -> PermutohedralLattice:
        """The kernel's lattice on a device."""
        # Coordinates may need float64, which Apple's MPS lacks.
        work = "cpu" if device.type == "mps" else device
        return PermutohedralLattice(self.feature_rows(work)).to(device)


def bilateral_kernel(image: Tensor, theta_alpha: float, theta_beta: float) -> GaussianKernel:
    """Position/theta_alpha and colour/theta_beta.

    Args:
        image: (3, H, W) colours in 0-255; the order of the channels does not matter.
        theta_alpha: in pixels.
        theta_beta: in units of colour, 0-255.
    """
    height, width = image.shape[-2:]
    return GaussianKernel((height, width), theta_alpha, image, (theta_beta,) * len(image))


class ImageKernels:
    """The Gaussian kernels of one image, with what was built of them.

    A backend's lattices are built at the first inference and serve all others on the same object:
    all labels, all iterations, forward and backward.

    Raises:
        ValueError: if the kernels are of images of different sizes.
    """

    def __init__(self, kernels: Sequence[GaussianKernel]) -> None:
        self.kernels = tuple(kernels)
        sizes = {kernel.size for kernel in self.kernels}
        if len(sizes) > 1:
            raise ValueError(f"The kernels are of images of different sizes: {sorted(sizes)}.")
        self._built: dict[Hashable, object] = {}

    def __len__(self) -> int:
        return len(self.kernels)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.kernels[0].size

    def built(self, key: Hashable, build: Callable[[], Built]) -> Built:
        """What ``build`` makes of the kernels, made once per key."""
        if key not in self._built:
            # What is kept may serve training although inference mode asked for it first.
            with torch.inference_mode(False), torch.no_grad():
                self._built[key] = build()
        return self._built[key]


def normalization_factors(
    ones: Tensor, normalization: str, support: Tensor | None = None, reach: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Factors of each pixel before and after a kernel that make its sums means.

    Args:
        ones: K 1, of any shape.
        normalization: "after" or "symmetric", see the module's docstring.
        support: f, to be broadcast against ``ones``; None counts all pixels.
        reach: K f, shaped like ``ones``, if there is a support.
    """
    if support is None:
        support, norm = torch.ones_like(ones), ones
    else:
        norm = torch.maximum(reach, SUPPORT_FLOOR * ones)
    if normalization == "after":
        return support.expand_as(norm).contiguous(), (norm + _TINY).reciprocal()
    root = (norm + _TINY).rsqrt()
    return support * root, root


class NormalizedFilter:
    """Weighted means by a kernel, see the module's docstring; (N, C) -> (N, C).

    Args:
        kernel: the sum K, linear and differentiable.
        ones: (N, 1) ones, which decide device and precision of the normalisation.
        normalization: "after" or "symmetric".
        support: (N,) f in [0, 1], or None for ones; gets no gradient.

    Attributes:
        weight_in, weight_out: (N, 1) factors before and after filtering.
    """

    def __init__(
        self,
        kernel: Callable[[Tensor], Tensor],
        ones: Tensor,
        *,
        normalization: str = "after",
        support: Tensor | None = None,
    ) -> None:
        self.kernel = kernel
        with torch.no_grad():
            reach = None
            if support is not None:
                support = support.to(ones)[:, None]
                reach = kernel(support)
            factors = normalization_factors(kernel(ones), normalization, support, reach)
        self.weight_in, self.weight_out = factors

    def __call__(self, values: Tensor) -> Tensor:
        values = values * self.weight_in.to(values.dtype)
        return self.kernel(values) * self.weight_out.to(values.dtype)
