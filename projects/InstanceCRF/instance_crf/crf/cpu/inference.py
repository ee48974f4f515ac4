"""Mean-field inference of one image on the CPU, forward and backward, in NumPy arrays.

`CpuInference` owns what an image needs: the two lattices (made once, used by all iterations, all
labels, forward and backward), the layout of the labels, and the lattice values of the iterations.

Memory: N (P + 1) numbers for Q, about 90 N bytes for the lattices, and per iteration that is kept
(M_bilateral + M_spatial) L lattice values. See docs/CRF.md.

Shape letters: N pixels, K active pixels, D detections, P parts, L labels, M lattice vertices, T
iterations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from instance_crf.crf.cpu.activity import foreground_bound, part_bounds, unary_shares
from instance_crf.crf.cpu.kernels import (
    NO_LABEL,
    PAD,
    Groups,
    PixelKernel,
    Pixels,
    Unary,
    best_labels,
    find_dropped,
    label_log_prob,
    pixels_with_one_group,
    pullback,
    to_pixel_rows,
    update,
    write_marginals,
)
from instance_crf.crf.cpu.lattice import Lattice, build_lattice, tile_order, tile_positions
from instance_crf.crf.cpu.rows import blur, dense_rows, merge_and_blur, merge_own, sparse_rows
from instance_crf.crf.cpu.threads import run_tasks, split_range

__all__ = ["CpuInference", "Problem"]

_MAX_PARTS_TO_DROP = 63
"""Parts and background are bits of a 64-bit mask."""
_FEW_LABELS = 128
"""With fewer labels it is faster to keep all of them where any has a chance."""
_WORTH_DROPPING = 0.6
"""Largest share of pixels or labels that may remain for the bookkeeping of dropped ones to pay."""
_MAX_KEPT = 6.0
"""Lattice values kept for the backward pass, in units of N·L; beyond it some are recomputed."""
_ALWAYS_KEPT = 2**24
"""So many numbers (64 MiB) are kept in any case."""


@dataclass(frozen=True)
class Problem:
    """One image's CRF in plain numbers.

    Attributes:
        part_prob: (P + 1, N) float32 Q.
        height, width: of the image.
        image: (3, N) float32 colours in 0-255.
        boxes: (4, D) float32 pixel ranges of the boxes: first column, first row, and one beyond the
            last, as whole numbers.
        scores: (D,) float32 transformed detection scores.
        label_index: (D + 1, P + 1) int64 label of each (instance, part), -1 for none.
        box_weight, global_weight: w1 and w2, 0 where the term is switched off.
        background_score: score of the background's box, 0 where it has none.
        epsilon: of Eq. 1.
        thetas: theta_alpha, theta_beta, theta_gamma.
        strengths: weights of the bilateral and the spatial kernel.
        num_iterations: T, 0 without the pairwise term.
        normalization: of the kernels.
        drop_threshold: delta.
        keep_active: (N,) int64 part that is never dropped at each pixel, or None.
    """

    part_prob: np.ndarray
    height: int
    width: int
    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    label_index: np.ndarray
    box_weight: float
    global_weight: float
    background_score: float
    epsilon: float
    thetas: tuple[float, float, float]
    strengths: tuple[float, float]
    num_iterations: int
    normalization: str
    drop_threshold: float = 0.0
    keep_active: np.ndarray | None = None


@dataclass(frozen=True)
class Gradient:
    """Derivatives of a scalar with respect to what is learned."""

    part_prob: np.ndarray
    """(P + 1, N) float32."""
    box_weight: float
    global_weight: float
    strengths: tuple[float, float]


class CpuInference:
    """Runs the iterations when made; then answers what the distribution over labels is.

    Args:
        problem: the image.
        keep: keep what the backward pass needs.
        num_threads: at most as many threads work at a time.

    Raises:
        LatticeRangeError: if the lattice or its values do not fit the compact indices.
    """

    def __init__(self, problem: Problem, *, keep: bool, num_threads: int) -> None:
        self.problem = problem
        self.num_pixels = problem.part_prob.shape[1]
        self.num_labels = int(problem.label_index.max()) + 1
        small = self.num_pixels * self.num_labels < 2**16
        self.num_threads = 1 if small else max(1, num_threads)
        self._order = tile_order(problem.height, problem.width)
        self._sort_detections()
        self._unary = self._make_unary()
        self._lattices = self._make_lattices() if problem.num_iterations else None
        self._choose_labels()
        self._run(keep)

    # -- setting up ------------------------------------------------------------------------------

    def _sort_detections(self) -> None:
        """Orders detections by object class, so that a part's owners are a range."""
        owns = self.problem.label_index[1:, 1:] >= 0
        first_part = np.where(owns.any(axis=1), owns.argmax(axis=1), owns.shape[1])
        self._detections = np.argsort(first_part, kind="stable")
        owns = owns[self._detections]
        count = np.concatenate([[0], owns.sum(axis=0)]).astype(np.int64)
        first = np.where(count > 0, np.concatenate([[0], owns.argmax(axis=0)]), 0).astype(np.int64)
        self._part_first, self._part_last = first, first + count

    def _make_unary(self) -> Unary:
        problem = self.problem
        channels = problem.part_prob.shape[0]
        rows = np.empty((self.num_pixels, channels), np.float32)
        run_tasks(
            [
                (to_pixel_rows, (a, b, problem.part_prob, self._order, rows))
                for a, b in split_range(self.num_pixels, self.num_threads)
            ]
        )
        x, y = tile_positions(problem.height, problem.width)
        background = problem.global_weight + problem.box_weight * problem.background_score
        return Unary(
            rows,
            x,
            y,
            _box_pattern(problem.boxes, self._order, problem.height, problem.width),
            np.ascontiguousarray(problem.boxes[:, self._detections]),
            (problem.box_weight * problem.scores[self._detections]).astype(np.float32),
            float(problem.global_weight),
            float(background),
            float(problem.epsilon),
        )

    def _make_lattices(self) -> tuple[Lattice, Lattice]:
        problem = self.problem
        alpha, beta, gamma = problem.thetas
        size = (problem.height, problem.width)
        options = {"normalization": problem.normalization, "num_threads": self.num_threads}
        bilateral = build_lattice(*size, alpha, problem.image, beta, **options)
        return bilateral, spatial_lattice(*size, gamma, **options)

    def _choose_labels(self) -> None:
        """All labels everywhere, or those that the bounds leave."""
        self._parts = [0] + [j for j in range(1, len(self._part_first)) if self._owners(j)]
        active = parts = None
        if self.problem.drop_threshold > 0 and self._lattices and self.num_labels > PAD:
            first_last = (self._part_first, self._part_last)
            shares = unary_shares(self._unary, *first_last, self.num_threads)
            active = self._active_pixels(shares)
            parts = self._active_parts(shares, active)
        if parts is not None:
            self._use_active_parts(parts)
        elif active is not None:
            self._use_active_pixels(active)
        else:
            self._use_all_labels()

    def _active_pixels(self, shares: np.ndarray) -> np.ndarray | None:
        """(N,) bool, whether anything but the background has a chance; None if at most pixels."""
        problem = self.problem
        threshold = problem.drop_threshold
        most = _WORTH_DROPPING * self.num_pixels
        if np.count_nonzero(shares[:, 0] <= 1 - threshold) > most:
            return None
        bound = foreground_bound(
            shares,
            self._lattices,
            problem.strengths,
            problem.num_iterations,
            self.num_threads,
        )
        active = bound >= threshold
        if problem.keep_active is not None:
            active |= self._target_parts() > 0
        return active if np.count_nonzero(active) <= most else None

    def _active_parts(self, shares: np.ndarray, active: np.ndarray | None) -> np.ndarray | None:
        """(N, P + 1) bool, which parts have a chance; None if most, or if it is not worth it."""
        problem = self.problem
        channels = problem.part_prob.shape[0]
        if self.num_labels < _FEW_LABELS or channels > _MAX_PARTS_TO_DROP:
            return None
        active = np.ones(self.num_pixels, bool) if active is None else active
        most = _WORTH_DROPPING * np.count_nonzero(active) * self.num_labels
        if self._count_labels(shares) > most:
            return None
        bounds = part_bounds(
            shares,
            active,
            self._lattices,
            problem.strengths,
            problem.num_iterations,
            problem.drop_threshold,
            self.num_threads,
        )
        if self._count_labels(bounds) > most:
            return None
        parts = bounds[:, :channels] >= problem.drop_threshold
        if problem.keep_active is not None:
            target = self._target_parts()
            known = target > 0
            parts[known.nonzero()[0], target[known]] = True
        parts[:, self._part_first == self._part_last] = False
        return parts

    def _count_labels(self, bounds: np.ndarray) -> int:
        """How many labels of parts, all pixels together, may exceed the threshold."""
        channels = len(self._part_first)
        counts = np.count_nonzero(bounds[:, 1:channels] >= self.problem.drop_threshold, axis=0)
        return int((counts * (self._part_last - self._part_first)[1:]).sum())

    def _target_parts(self) -> np.ndarray:
        """(N,) parts that are kept, 0 where there is none."""
        target = self.problem.keep_active[self._order]
        return np.where((target > 0) & (target < self.problem.part_prob.shape[0]), target, 0)

    def _use_all_labels(self) -> None:
        self._groups = self._make_groups([self._parts])
        self._pixels = _everywhere(self.num_pixels)
        self._ranges = self._split_pixels()
        self._sparse = False
        self._rows = [
            dense_rows(lattice, self._groups, self._pixels, self._ranges, strength)
            for lattice, strength in zip(
                self._lattices or (), self.problem.strengths, strict=bool(self._lattices)
            )
        ]

    def _use_active_pixels(self, active: np.ndarray) -> None:
        """All labels at some pixels."""
        self._groups = self._make_groups([self._parts])
        pixels = pixels_with_one_group(active.nonzero()[0])
        self._use_sparse_rows(pixels, active.astype(np.uint8))

    def _use_active_parts(self, active: np.ndarray) -> None:
        """Some parts, with all their labels, at some pixels."""
        self._groups = self._make_groups([[part] for part in self._parts])
        active = active[:, self._parts]
        active[:, 0] = active[:, 1:].any(axis=1)
        index = active[:, 0].nonzero()[0]
        counts = active[index].sum(axis=1)
        group_ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        groups = active[index].nonzero()[1].astype(np.int16)
        kind = np.uint8 if len(self._parts) <= 8 else np.uint64
        mask = active @ (kind(1) << np.arange(len(self._parts), dtype=kind))
        self._use_sparse_rows(Pixels(index.astype(np.int32), group_ptr, groups), mask)

    def _use_sparse_rows(self, pixels: Pixels, mask: np.ndarray) -> None:
        self._pixels = pixels
        self._ranges = self._split_pixels()
        self._sparse = True
        background = np.zeros(int(self._groups.width[0]), np.float32)
        background[0] = 1
        self._rows = [
            sparse_rows(lattice, self._groups, pixels, self._ranges, strength, mask, background)
            for lattice, strength in zip(self._lattices, self.problem.strengths, strict=True)
        ]

    def _owners(self, part: int) -> range:
        return range(int(self._part_first[part]), int(self._part_last[part]))

    def _make_groups(self, parts_of_group: list[list[int]]) -> Groups:
        """The columns of groups that consist of whole parts; part 0 is the background."""
        label_index, epsilon = self.problem.label_index, self.problem.epsilon
        # A column is (epsilon, label), a block (part, first detection, width).
        columns: list[tuple[float, int]] = []
        blocks: list[tuple[int, int, int]] = []
        start, block_ptr = [0], [0]
        group_of_label = np.zeros(self.num_labels, np.int32)
        column_of_label = np.zeros(self.num_labels, np.int32)
        for g, parts in enumerate(parts_of_group):
            for part in parts:
                owners = self._owners(part) if part else range(-1, 0)
                blocks.append((part, max(owners.start, 0), len(owners)))
                for d in owners:
                    label = int(label_index[self._detections[d] + 1, part]) if part else 0
                    group_of_label[label] = g
                    column_of_label[label] = len(columns) - start[-1]
                    columns.append((epsilon, label))
            columns += [(0.0, NO_LABEL)] * (-len(columns) % PAD)
            start.append(len(columns))
            block_ptr.append(len(blocks))
        epsilons, label = zip(*columns, strict=True)
        block_part, block_first, block_width = zip(*blocks, strict=True)
        return Groups(
            width=np.diff(start).astype(np.int64),
            start=np.array(start[:-1], np.int64),
            epsilon=np.array(epsilons, np.float32),
            label=np.array(label, np.int32),
            block_ptr=np.array(block_ptr, np.int64),
            block_part=np.array(block_part, np.int64),
            block_first=np.array(block_first, np.int64),
            block_width=np.array(block_width, np.int64),
            group_of_label=group_of_label,
            column_of_label=column_of_label,
            max_row=len(columns),
        )

    # -- forward ---------------------------------------------------------------------------------

    def _run(self, keep: bool) -> None:
        self._kept: dict[int, list[np.ndarray]] = {}
        iterations = self.problem.num_iterations
        values_size = sum(rows.size for rows in self._rows)
        self._interval = 1
        room = max(_ALWAYS_KEPT, _MAX_KEPT * self.num_pixels * self.num_labels)
        if iterations * values_size > room:
            self._interval = math.isqrt(iterations - 1) + 1
        old: list[np.ndarray] | None = None
        spare: list[np.ndarray] | None = None
        for iteration in range(iterations):
            new = self._iterate(old, spare)
            if keep and iteration % self._interval == self._interval - 1:
                self._kept[iteration], spare = new, None
            elif old is not None and iteration - 1 not in self._kept:
                spare = old
            old = new
        self._final = old

    def _iterate(
        self, old: list[np.ndarray] | None, spare: list[np.ndarray] | None = None
    ) -> list[np.ndarray]:
        """Blurred lattice values after one more iteration, in ``spare`` if given."""
        if spare is None:
            new = self._zeros()
        else:
            new = spare
            for values in new:
                values.fill(0)
        self._run_ranges(update, lambda t: (*self._given(old, t), *new))
        merge_and_blur(self._rows, new, False, self.num_threads)
        return new

    def _zeros(self) -> list[np.ndarray]:
        """Lattice values of both kernels, all 0."""
        return [rows.zeros() for rows in self._rows]

    def _split_pixels(self) -> list[tuple[int, int]]:
        """Ranges of active pixels with nearly equal numbers of (pixel, group) pairs."""
        ptr = self._pixels.group_ptr
        parts = max(1, min(self.num_threads, len(ptr) - 1))
        cuts = np.searchsorted(ptr, [ptr[-1] * i // parts for i in range(1, parts)])
        edges = [0, *cuts.tolist(), len(ptr) - 1]
        return list(zip(edges[:-1], edges[1:], strict=True))

    def _given(self, values: list[np.ndarray] | None, thread: int) -> tuple:
        """Arguments that every kernel takes: the model, and the blurred lattice values so far."""
        kernels = [rows.of_thread[thread] for rows in self._rows] or [_no_kernel()] * 2
        first = values is None
        old = [np.zeros(1, np.float32)] * 2 if values is None else values
        return (self._pixels, self._groups, self._unary, *kernels, first, *old)

    def _run_ranges(self, function, arguments) -> None:
        """Runs a kernel over all ranges of active pixels; ``arguments(t)`` for thread t."""
        run_tasks(
            [(function, (a, b, *arguments(t))) for t, (a, b) in enumerate(self._ranges)],
            self.num_threads,
        )

    # -- answers ---------------------------------------------------------------------------------

    def best_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) int64 most probable label of each pixel and (N,) float32 its marginal."""
        best = np.zeros(self.num_pixels, np.int32)
        confidence = np.ones(self.num_pixels, np.float32)
        self._run_ranges(best_labels, lambda t: (*self._given(self._final, t), best, confidence))
        labels, marginal = np.empty(self.num_pixels, np.int64), np.empty_like(confidence)
        labels[self._order], marginal[self._order] = best, confidence
        return labels, marginal

    def marginals(self) -> np.ndarray:
        """(L, N) float32."""
        marginals = np.zeros((self.num_labels, self.num_pixels), np.float32)
        if self._sparse:
            marginals[0] = 1
        self._run_ranges(
            write_marginals, lambda t: (*self._given(self._final, t), self._order, marginals)
        )
        return marginals

    def log_prob(self, labels: np.ndarray) -> np.ndarray:
        """(N,) float32 log-probability of (N,) int64 labels, 0 for a negative one.

        Where a label was dropped, minus the log-normaliser of the pixel (0 at inactive pixels).
        """
        out = np.zeros(self.num_pixels, np.float32)
        in_order = labels[self._order]
        self._run_ranges(label_log_prob, lambda t: (*self._given(self._final, t), in_order, out))
        result = np.empty_like(out)
        result[self._order] = out
        return result

    def dropped(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Where (N,) labels were dropped, and where pixels have nothing left but the background.

        None if there is no dropped label among them.
        """
        if not self._sparse:
            return None
        in_order = labels[self._order]
        marked = in_order > 0
        find_dropped(self._pixels, self._groups, in_order, marked)
        if not marked.any():
            return None
        certain = np.ones(self.num_pixels, bool)
        certain[self._pixels.index] = False
        dropped, inactive = np.empty_like(marked), np.empty_like(certain)
        dropped[self._order], inactive[self._order] = marked, certain
        return dropped, inactive

    @property
    def active_fraction(self) -> float:
        """Share of the (pixel, label) pairs that take part in the inference."""
        widths = np.add.reduceat(self._groups.label != NO_LABEL, self._groups.start)
        widths = widths[self._pixels.groups].sum()
        inactive = self.num_pixels - len(self._pixels.index)
        return float(widths + inactive) / (self.num_pixels * self.num_labels)

    # -- backward --------------------------------------------------------------------------------

    def backward_log_prob(self, labels: np.ndarray, grad: np.ndarray) -> Gradient:
        """Gradient of sum(grad * log_prob(labels)); both (N,)."""
        seed = (1, labels[self._order], grad[self._order].astype(np.float32), _NO_PLANES)
        return self._backward(seed)

    def backward_marginals(self, grad: np.ndarray) -> Gradient:
        """Gradient of sum(grad * marginals()), grad (L, N)."""
        return self._backward((2, _NO_LABELS, _NO_NUMBERS, np.ascontiguousarray(grad, np.float32)))

    def _backward(self, seed: tuple) -> Gradient:
        part_grad = np.zeros_like(self._unary.part_prob)
        coefficients = np.zeros((len(self._ranges), 3))
        strengths = np.zeros(2)
        grads: list[np.ndarray] = [np.zeros(1, np.float32)] * 2
        spare: list[np.ndarray] = []
        for iteration in range(self.problem.num_iterations, -1, -1):
            values = self._values_before(iteration)
            last = values is None
            new = [np.zeros(1, np.float32)] * 2 if last else spare or self._zeros()
            for each in spare:
                each.fill(0)

            def arguments(t, values=values, last=last, new=new, seed=seed, grads=grads):
                sources = (*seed, self._order, *grads, last, *new)
                return (*self._given(values, t), *sources, part_grad, coefficients[t])

            self._run_ranges(pullback, arguments)
            if last:
                break
            merge_own(self._rows, new, self.num_threads)
            for m, size in enumerate(rows.main_size for rows in self._rows):
                strengths[m] += float(np.dot(new[m][:size], values[m][:size]))
            blur(self._rows, new, True, self.num_threads)
            spare = grads if seed[0] == 0 else []
            grads = new
            seed = (0, _NO_LABELS, _NO_NUMBERS, _NO_PLANES)
        return self._collect(part_grad, coefficients.sum(axis=0), strengths)

    def _values_before(self, iteration: int) -> list[np.ndarray] | None:
        """Blurred lattice values that the marginals of an iteration were made from."""
        wanted = iteration - 1
        if wanted < 0:
            return None
        if iteration == self.problem.num_iterations:
            return self._final
        if self._interval == 1:
            return self._kept[wanted]
        if wanted not in self._kept and wanted not in self._recomputed:
            start = wanted - wanted % self._interval - 1
            values = self._kept.get(start)
            self._recomputed.clear()
            for at in range(start + 1, wanted + 1):
                values = self._recomputed[at] = self._iterate(values)
        return self._kept[wanted] if wanted in self._kept else self._recomputed[wanted]

    @property
    def _recomputed(self) -> dict[int, list[np.ndarray]]:
        return self.__dict__.setdefault("_recomputed_values", {})

    def _collect(
        self, part_grad: np.ndarray, coefficients: np.ndarray, strengths: np.ndarray
    ) -> Gradient:
        """Gradients of w1 and w2 from those of a = w2 + w1 s [k in B]."""
        problem = self.problem
        background, detections, weighted = coefficients
        box = 0.0
        if problem.box_weight:
            box = (weighted - problem.global_weight * detections) / problem.box_weight
            box += problem.background_score * background
        global_ = background + detections if problem.global_weight else 0.0
        planes = np.empty_like(problem.part_prob)
        planes[:, self._order] = part_grad.T
        return Gradient(planes, float(box), float(global_), tuple(strengths.tolist()))


_NO_LABELS = np.zeros(1, np.int64)
_NO_NUMBERS = np.zeros(1, np.float32)
_NO_PLANES = np.zeros((1, 1), np.float32)


@lru_cache(maxsize=8)
def spatial_lattice(
    height: int, width: int, theta: float, *, normalization: str, num_threads: int
) -> Lattice:
    """The lattice of the spatial kernel, which all images of a size share."""
    return build_lattice(height, width, theta, normalization=normalization, num_threads=num_threads)


@lru_cache(maxsize=8)
def _everywhere(num_pixels: int) -> Pixels:
    """Every pixel, with the one group of all labels."""
    return pixels_with_one_group(np.arange(num_pixels))


def _box_pattern(boxes: np.ndarray, order: np.ndarray, height: int, width: int) -> np.ndarray:
    """(N,) int32 numbers that are the same for pixels between the same edges of boxes."""
    left, top, right, bottom = boxes
    columns, rows = np.unique([left, right]), np.unique([top, bottom])
    column_code = np.searchsorted(columns, np.arange(width), side="right").astype(np.int32)
    row_code = np.searchsorted(rows, np.arange(height), side="right").astype(np.int32)
    code = row_code[:, None] * np.int32(len(columns) + 1) + column_code
    return code.ravel()[order]


def _no_kernel() -> PixelKernel:
    """Stands in for a Gaussian kernel where there are no iterations."""
    corner = np.zeros((1, 6), np.float32)
    number = np.zeros(1, np.float32)
    position = np.zeros((1, 1), np.uint32)
    return PixelKernel(
        corner.astype(np.int32), corner, number, number, position, position, 0.0, 0.0
    )
