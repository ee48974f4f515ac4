"""The result of the Instance CRF on one image.

Shape letters: D detections, P parts, L labels, N = H·W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .label_space import LabelSpace

__all__ = ["Labelling"]


class Labelling:
    """One distribution over the labels of the image per pixel.

    Args:
        label_space: what the labels mean.
        log_marginals: (H, W, L) log-probabilities.
    """

    def __init__(self, label_space: LabelSpace, log_marginals: Tensor) -> None:
        self.label_space = label_space
        self._log_marginals = log_marginals

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self._log_marginals.shape[:2]
        return height, width

    def marginals(self) -> Tensor:
        """(L, H, W) probabilities, label 0 background; differentiable."""
        return self._log_marginals.permute(2, 0, 1).contiguous().exp()

    def log_prob(self, labels: Tensor) -> Tensor:
        """Log-probability of a given label at each pixel, for the loss; differentiable.

        Args:
            labels: (H, W) int64 indices into the label space; negative means "ignored".

        Returns:
            (H, W); 0 where the label is negative.

        Raises:
            ValueError: if the shape is not (H, W) or a label is beyond the label space.
        """
        check_labels(labels, self.size, self.label_space)
        picked = self._log_marginals.gather(2, labels.clamp(min=0)[..., None])[..., 0]
        return torch.where(labels < 0, torch.zeros_like(picked), picked)

    def argmax(self) -> tuple[Tensor, Tensor]:
        """The most probable label of each pixel, without gradient.

        Returns:
            (H, W) int64 object map: 0 background, i + 1 for detection i; and (H, W) int64 part map:
            0 background, 1..P. Ties go to the label that comes first.
        """
        best = self._log_marginals.detach().argmax(dim=2)
        return self.label_space.label_instance[best], self.label_space.label_part[best]

    def confidence(self) -> Tensor:
        """(H, W) marginal of the most probable label, without gradient."""
        return self._log_marginals.detach().amax(dim=2).exp()


def check_labels(labels: Tensor, size: tuple[int, int], label_space: LabelSpace) -> None:
    """Raises ValueError unless ``labels`` is an (H, W) map of the label space's indices."""
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64, got {labels.dtype}.")
    if tuple(labels.shape) != size:
        raise ValueError(f"labels have shape {tuple(labels.shape)}, but the image is {size}.")
    largest = int(labels.max())
    if largest >= label_space.num_labels:
        raise ValueError(
            f"labels go up to {largest}, but the image has the "
            f"{label_space.num_labels} labels 0..{label_space.num_labels - 1}."
        )
