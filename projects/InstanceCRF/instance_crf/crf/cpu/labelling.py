"""The labelling that the accelerated CPU inference gives; autograd around `CpuInference`.

Shape letters: N = H·W pixels, D detections, P parts, L labels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from instance_crf.crf.cpu.inference import CpuInference, Problem
from instance_crf.crf.label_space import LabelSpace
from instance_crf.crf.labelling import Labelling, check_labels

__all__ = ["CpuLabelling"]


class CpuLabelling(Labelling):
    """A Labelling whose distributions are made when they are asked for.

    Only the lattice values of the iterations are kept, so each question costs a visit of all
    pixels, and each differentiable answer its own backward pass.

    Args:
        label_space: what the labels mean.
        problem: the image in plain numbers.
        part_prob: (P + 1, H, W) float32 Q, for the gradient.
        weights: w1, w2 and the weights of the bilateral and the spatial kernel, scalars.
        num_threads: at most as many threads work at a time.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        problem: Problem,
        part_prob: Tensor,
        weights: tuple[Tensor, Tensor, Tensor, Tensor],
        num_threads: int,
    ) -> None:
        # Not Labelling.__init__: there are no dense log-marginals.
        self.label_space = label_space
        needs_grad = part_prob.requires_grad or any(w.requires_grad for w in weights)
        keep = torch.is_grad_enabled() and needs_grad
        if not keep:  # what is asked later must not look differentiable
            part_prob, weights = part_prob.detach(), tuple(w.detach() for w in weights)
        self._part_prob = part_prob
        self._weights = weights
        self._inference = CpuInference(problem, keep=keep, num_threads=num_threads)
        self._best: tuple[Tensor, Tensor] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = self._part_prob.shape[-2:]
        return height, width

    @property
    def active_fraction(self) -> float:
        """Share of the (pixel, label) pairs that were not dropped."""
        return self._inference.active_fraction

    def marginals(self) -> Tensor:
        """(L, H, W) probabilities; 0 for labels that were dropped at a pixel."""
        return _Marginals.apply(self._part_prob, *self._weights, self._inference)

    def log_prob(self, labels: Tensor) -> Tensor:
        """See Labelling.log_prob. A dropped label counts as one that gets no messages.

        Where nothing but the background is left, neither does the background: the value is then
        up to the kernels' weights too high.
        """
        check_labels(labels, self.size, self.label_space)
        log_prob = _LogProb.apply(self._part_prob, *self._weights, self._inference, labels)
        found = self._inference.dropped(labels.numpy().ravel())
        if found is None:
            return log_prob
        dropped, inactive = (torch.from_numpy(mask).view(self.size) for mask in found)
        unary = self._log_potential(labels.clamp(min=0), dropped)
        background = self._log_potential(torch.zeros_like(labels), dropped & inactive)
        return log_prob + unary - background

    def _log_potential(self, labels: Tensor, where: Tensor) -> Tensor:
        """(H, W) log of psi, Eq. 1, of the labels in some places, elsewhere 0; differentiable."""
        problem = self._inference.problem
        labels = labels[where]
        y, x = where.nonzero(as_tuple=True)
        instance = self.label_space.label_instance[labels]
        part = self.label_space.label_part[labels]
        left, top, right, bottom = torch.from_numpy(problem.boxes)[:, (instance - 1).clamp(min=0)]
        inside = (left <= x) & (x < right) & (top <= y) & (y < bottom)
        score = torch.from_numpy(problem.scores)[(instance - 1).clamp(min=0)] * inside
        score = torch.where(instance > 0, score, torch.full_like(score, problem.background_score))
        q = self._part_prob[part, y, x]
        w1, w2 = self._weights[:2]
        w1 = w1 if problem.box_weight else 0.0
        w2 = w2 if problem.global_weight else 0.0
        psi = (w1 * score + w2) * q + problem.epsilon
        return torch.zeros(self.size).index_put((y, x), psi.log())

    def argmax(self) -> tuple[Tensor, Tensor]:
        """See Labelling.argmax."""
        best, _ = self._best_labels()
        return self.label_space.label_instance[best], self.label_space.label_part[best]

    def confidence(self) -> Tensor:
        """(H, W) marginal of the most probable label, without gradient."""
        return self._best_labels()[1]

    def _best_labels(self) -> tuple[Tensor, Tensor]:
        if self._best is None:
            labels, confidence = self._inference.best_labels()
            self._best = (
                torch.from_numpy(labels).view(self.size),
                torch.from_numpy(confidence).view(self.size),
            )
        return self._best


class _LogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part_prob, box, global_, bilateral, spatial, inference, labels):
        ctx.inference = inference
        ctx.labels = labels.numpy().ravel()
        return torch.from_numpy(inference.log_prob(ctx.labels)).view(part_prob.shape[-2:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        gradient = ctx.inference.backward_log_prob(ctx.labels, grad.contiguous().numpy().ravel())
        return (*_as_tensors(gradient, grad.shape), None, None)


class _Marginals(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part_prob, box, global_, bilateral, spatial, inference):
        ctx.inference = inference
        return torch.from_numpy(inference.marginals()).view(-1, *part_prob.shape[-2:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        gradient = ctx.inference.backward_marginals(grad.flatten(1).numpy())
        return (*_as_tensors(gradient, grad.shape[-2:]), None)


def _as_tensors(gradient, size) -> tuple[Tensor, ...]:
    """Gradients in the order of the functions' arguments."""
    scalars = (gradient.box_weight, gradient.global_weight, *gradient.strengths)
    part_prob = torch.from_numpy(gradient.part_prob).view(-1, *size)
    return (part_prob, *(torch.tensor(value, dtype=torch.float32) for value in scalars))
