"""Fused mean-field kernels: one visit of a pixel slices both kernels' messages, normalises, splats.

No array of N x L numbers exists. What lives between iterations are the *lattice values*, which are
few; unaries and marginals are made anew at each pixel from Q, the boxes and the messages, in a row
that stays in the cache.

The labels of a pixel are divided into *groups*; a pixel or a lattice vertex holds a row of numbers
for each of its groups. The exact CRF has one group with all labels. With dropped labels each part
is a group of its own (and the background another), and a pixel has rows for its active parts only.
Within a group the labels of one part stand together, a *block*.

Every kernel works on a range of the active pixels; ranges run on threads of their own. Where two
of them touch a vertex, the later one splats into a row of its own, which is added afterwards.

Shape letters: N pixels, K active pixels, D detections, P parts, L labels, G groups.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from instance_crf.crf.cpu.jit import kernel
from instance_crf.crf.cpu.lanes import exp, lane_sum, load, maximum, prefetch, repeat, store

__all__ = [
    "NO_LABEL",
    "PAD",
    "Groups",
    "PixelKernel",
    "Pixels",
    "Unary",
    "best_labels",
    "blur_all",
    "blur_rows",
    "bound_update",
    "find_dropped",
    "label_log_prob",
    "merge",
    "part_mass",
    "pixels_with_one_group",
    "pullback",
    "to_pixel_rows",
    "update",
    "write_marginals",
]


NO_LABEL = 0x7FFFFFFF
"""Stands in for the label of a pad."""
PAD = 8
"""Rows have a multiple of as many columns."""

_MODERATE = 40.0
_SMALLEST = np.float32(1e-30)
_LANES = np.uint64(8)
_LINE = np.uint64(16)
"""float32 in a cache line."""
_NEAR = np.uint64(64)
"""So much of a row is fetched ahead; the rest follows by itself."""
_AHEAD = 3
"""Pixels between a prefetch and its use."""
_CHAIN_AHEAD = 6
"""Rows of a blur between a prefetch and its use."""


class Pixels(NamedTuple):
    """The active pixels and their groups; indices are in the order of ``tile_order``."""

    index: np.ndarray
    """(K,) int32 which of the N pixels are active."""
    group_ptr: np.ndarray
    """(K + 1,) int64 where the groups of each active pixel start in ``groups``."""
    groups: np.ndarray
    """int16 groups of the active pixels, ascending for each."""


def pixels_with_one_group(index: np.ndarray) -> Pixels:
    """(K,) active pixels that all have the only group there is."""
    count = len(index)
    ptr = np.arange(count + 1, dtype=np.int64)
    return Pixels(index.astype(np.int32), ptr, np.zeros(count, np.int16))


class Groups(NamedTuple):
    """What the columns of a group's rows stand for.

    Rows are padded to a multiple of 8 columns, which the inner loops like. The potential of a pad
    is 0, and so is everything that is computed from it.
    """

    width: np.ndarray
    """(G,) int64 columns of a row, pads included."""
    start: np.ndarray
    """(G,) int64 where the columns of each group start in the following arrays over columns."""
    epsilon: np.ndarray
    """float32 epsilon of Eq. 1, 0 for pads."""
    label: np.ndarray
    """int32 label of each column, NO_LABEL for pads."""
    block_ptr: np.ndarray
    """(G + 1,) int64 where the blocks of each group start."""
    block_part: np.ndarray
    """int64 part of each block."""
    block_first: np.ndarray
    """int64 first detection of each block."""
    block_width: np.ndarray
    """int64 columns of each block."""
    group_of_label: np.ndarray
    """(L,) int32 group of each label."""
    column_of_label: np.ndarray
    """(L,) int32 column of each label in the row of its group."""
    max_row: int
    """Most columns of a pixel over all groups."""


class Unary(NamedTuple):
    """What Eq. 1 needs at a pixel: psi = a_i Q(j) + epsilon, a_i = w2 + w1 s_i [k in B_i]."""

    part_prob: np.ndarray
    """(N, P + 1) float32 Q."""
    x: np.ndarray
    """(N,) float32 column of the pixel."""
    y: np.ndarray
    """(N,) float32 row of the pixel."""
    pattern: np.ndarray
    """(N,) int32; pixels with the same number lie in the same boxes."""
    boxes: np.ndarray
    """(4, D) float32 first column, first row, and one beyond the last of each box."""
    inside: np.ndarray
    """(D,) float32 w1 s_i."""
    everywhere: float
    """w2, or 0 without the global term."""
    background: float
    """a of the background."""
    epsilon: float


class PixelKernel(NamedTuple):
    """One Gaussian kernel as the pixels see it."""

    vertex: np.ndarray
    """(N, F + 1) int32."""
    weight: np.ndarray
    """(N, F + 1) float32 barycentric weights."""
    weight_in: np.ndarray
    """(N,) float32."""
    weight_out: np.ndarray
    """(N,) float32."""
    position: np.ndarray
    """(M, G) uint32 where the row of a group starts in the lattice values of a vertex."""
    target: np.ndarray
    """(M, G) uint32 where it starts for what is splatted: a row of its own where threads meet."""
    strength: float
    """The weight w_m of the kernel."""
    limit: float
    """No message exceeds this: the weight times the largest row sum of the kernel."""


@kernel(inline=True)
def _inside(unary, p, d):
    """Whether pixel p lies in box d."""
    x, y, boxes = unary.x[p], unary.y[p], unary.boxes
    return (boxes[0, d] <= x) & (x < boxes[2, d]) & (boxes[1, d] <= y) & (y < boxes[3, d])


@kernel(inline=True)
def _coefficients(unary, groups, p, of_detection, coefficient):
    """a of every column at pixel p; that of pads is any number.

    Args:
        of_detection: (D + 8,) a of the detections, written.
        coefficient: eight more than there are columns: blocks are written eight at a time, each
            over the excess of the one before.
    """
    for d in range(unary.inside.shape[0]):
        inside = unary.inside[d] if _inside(unary, p, d) else np.float32(0)
        of_detection[d] = np.float32(unary.everywhere) + inside
    for g in range(groups.width.shape[0]):
        column = np.uint64(groups.start[g])
        for b in range(groups.block_ptr[g], groups.block_ptr[g + 1]):
            first = np.uint64(groups.block_first[b])
            width = np.uint64(groups.block_width[b])
            if groups.block_part[b] == 0:
                coefficient[column] = unary.background
            else:
                for c in range(np.uint64(0), width, _LANES):
                    store(coefficient, column + c, load(of_detection, first + c))
            column += width


@kernel(inline=True)
def _potential_row(unary, groups, pixels, k, coefficient, q, psi):
    """psi of the labels of active pixel k, given the coefficients; returns how many columns.

    Args:
        q: Q of the columns, 0 for pads, written. Eight more columns than a row has: blocks are
            written eight at a time, each over the excess of the one before.
    """
    p = pixels.index[k]
    end = np.uint64(0)
    for i in range(pixels.group_ptr[k], pixels.group_ptr[k + 1]):
        g = pixels.groups[i]
        at = np.uint64(groups.start[g])
        width = np.uint64(groups.width[g])
        column = end
        for b in range(groups.block_ptr[g], groups.block_ptr[g + 1]):
            value = repeat(unary.part_prob[p, groups.block_part[b]])
            block = np.uint64(groups.block_width[b])
            for c in range(np.uint64(0), block, _LANES):
                store(q, column + c, value)
            column += block
        store(q, column, repeat(np.float32(0)))
        for c in range(np.uint64(0), width, _LANES):
            value = load(coefficient, at + c) * load(q, end + c) + load(groups.epsilon, at + c)
            store(psi, end + c, value)
        end += width
    return end


@kernel(inline=True)
def _six_corners(one, p, factor):
    """Barycentric weights times a factor, and vertices, of pixel p in a bilateral lattice."""
    w, v = one.weight, one.vertex
    low = w[p, 0] * factor, w[p, 1] * factor, w[p, 2] * factor
    high = w[p, 3] * factor, w[p, 4] * factor, w[p, 5] * factor
    return low + high, (v[p, 0], v[p, 1], v[p, 2], v[p, 3], v[p, 4], v[p, 5])


@kernel(inline=True)
def _three_corners(one, p, factor):
    """The same in a spatial lattice."""
    w, v = one.weight, one.vertex
    return (w[p, 0] * factor, w[p, 1] * factor, w[p, 2] * factor), (v[p, 0], v[p, 1], v[p, 2])


@kernel(inline=True)
def _slice_row(pixels, groups, k, bilateral, spatial, values_b, values_s, backward, row):
    """Messages of the labels of active pixel k: both kernels, weighted and normalised.

    ``backward`` slices for the transposed kernels, whose factor before splatting comes after.
    """
    p = pixels.index[k]
    if backward:
        scale_b = np.float32(bilateral.strength) * bilateral.weight_in[p]
        scale_s = np.float32(spatial.strength) * spatial.weight_in[p]
    else:
        scale_b = np.float32(bilateral.strength) * bilateral.weight_out[p]
        scale_s = np.float32(spatial.strength) * spatial.weight_out[p]
    (w0, w1, w2, w3, w4, w5), (v0, v1, v2, v3, v4, v5) = _six_corners(bilateral, p, scale_b)
    (u0, u1, u2), (z0, z1, z2) = _three_corners(spatial, p, scale_s)
    at, to = bilateral.position, spatial.position
    end = np.uint64(0)
    for i in range(pixels.group_ptr[k], pixels.group_ptr[k + 1]):
        g = pixels.groups[i]
        b0, b1, b2 = np.uint64(at[v0, g]), np.uint64(at[v1, g]), np.uint64(at[v2, g])
        b3, b4, b5 = np.uint64(at[v3, g]), np.uint64(at[v4, g]), np.uint64(at[v5, g])
        s0, s1, s2 = np.uint64(to[z0, g]), np.uint64(to[z1, g]), np.uint64(to[z2, g])
        width = np.uint64(groups.width[g])
        for c in range(np.uint64(0), width, _LANES):
            one = w0 * load(values_b, b0 + c)
            two = w1 * load(values_b, b1 + c)
            three = u0 * load(values_s, s0 + c)
            one += w2 * load(values_b, b2 + c)
            two += w3 * load(values_b, b3 + c)
            three += u1 * load(values_s, s1 + c)
            one += w4 * load(values_b, b4 + c)
            two += w5 * load(values_b, b5 + c)
            three += u2 * load(values_s, s2 + c)
            store(row, end + c, one + two + three)
        end += width


@kernel(inline=True)
def _splat_row(pixels, groups, k, bilateral, spatial, scale_b, scale_s, new_b, new_s, row):
    """Adds a row of active pixel k, times the scales, to the lattice values of both kernels."""
    p = pixels.index[k]
    (w0, w1, w2, w3, w4, w5), (v0, v1, v2, v3, v4, v5) = _six_corners(bilateral, p, scale_b)
    (u0, u1, u2), (z0, z1, z2) = _three_corners(spatial, p, scale_s)
    at, to = bilateral.target, spatial.target
    start = np.uint64(0)
    for i in range(pixels.group_ptr[k], pixels.group_ptr[k + 1]):
        g = pixels.groups[i]
        b0, b1, b2 = np.uint64(at[v0, g]), np.uint64(at[v1, g]), np.uint64(at[v2, g])
        b3, b4, b5 = np.uint64(at[v3, g]), np.uint64(at[v4, g]), np.uint64(at[v5, g])
        s0, s1, s2 = np.uint64(to[z0, g]), np.uint64(to[z1, g]), np.uint64(to[z2, g])
        width = np.uint64(groups.width[g])
        for c in range(np.uint64(0), width, _LANES):
            value = load(row, start + c)
            store(new_b, b0 + c, load(new_b, b0 + c) + w0 * value)
            store(new_b, b1 + c, load(new_b, b1 + c) + w1 * value)
            store(new_b, b2 + c, load(new_b, b2 + c) + w2 * value)
            store(new_b, b3 + c, load(new_b, b3 + c) + w3 * value)
            store(new_b, b4 + c, load(new_b, b4 + c) + w4 * value)
            store(new_b, b5 + c, load(new_b, b5 + c) + w5 * value)
            store(new_s, s0 + c, load(new_s, s0 + c) + u0 * value)
            store(new_s, s1 + c, load(new_s, s1 + c) + u1 * value)
            store(new_s, s2 + c, load(new_s, s2 + c) + u2 * value)
        start += width


@kernel(inline=True)
def _is_scattered(one):
    """Whether neighbours have vertices of their own, so that rows are far from the processor."""
    return 4 * one.position.shape[0] > one.vertex.shape[0]


@kernel(inline=True)
def _prefetch_rows(pixels, groups, k, one, position, values):
    """Brings the rows of active pixel k near, as far as the processor does not by itself.

    Args:
        position: ``one.position`` of what is read, ``one.target`` of what is written.
    """
    p = pixels.index[k]
    for i in range(pixels.group_ptr[k], pixels.group_ptr[k + 1]):
        g = pixels.groups[i]
        near = min(np.uint64(groups.width[g]), _NEAR)
        for corner in range(one.vertex.shape[1]):
            row = np.uint64(position[one.vertex[p, corner], g])
            for line in range(np.uint64(0), near, _LINE):
                prefetch(values, row + line)


@kernel(inline=True)
def _largest(row, count):
    largest = row[0]
    for c in range(count):
        largest = max(largest, row[c])
    return largest


@kernel(inline=True)
def _message_row(pixels, groups, k, bilateral, spatial, first, old_b, old_s, count, message):
    """Messages of the labels of active pixel k, 0 at first."""
    if first:
        for c in range(np.uint64(0), count, _LANES):
            store(message, c, repeat(np.float32(0)))
    else:
        _slice_row(pixels, groups, k, bilateral, spatial, old_b, old_s, False, message)


@kernel(inline=True)
def _shift(message, count, limit):
    """What to subtract from messages so that no exponential overflows.

    Args:
        limit: what no message exceeds. If it is moderate, it serves as well as their maximum, and
            is there already.
    """
    return np.float32(limit) if limit < _MODERATE else _largest(message, count)


@kernel(inline=True)
def _marginal_row(psi, message, count, shift, marginal):
    """psi exp(message - shift): the marginals but for their sum, which is returned."""
    lanes = repeat(np.float32(0))
    for c in range(np.uint64(0), count, _LANES):
        value = load(psi, c) * exp(load(message, c) - shift)
        store(marginal, c, value)
        lanes += value
    return lane_sum(lanes)


@kernel
def update(
    start, end, pixels, groups, unary, bilateral, spatial, first, old_b, old_s, new_b, new_s
):
    """One mean-field iteration: marginals from the blurred lattice values, splatted anew.

    Args:
        first: whether there are no messages yet; then ``old_b`` and ``old_s`` are not read.
    """
    q = np.empty(groups.max_row + PAD, np.float32)
    psi = np.empty(groups.max_row, np.float32)
    message = np.empty(groups.max_row, np.float32)
    marginal = np.empty(groups.max_row, np.float32)
    of_detection = np.zeros(unary.inside.shape[0] + PAD, np.float32)
    coefficient = np.zeros(groups.epsilon.shape[0] + PAD, np.float32)
    limit = bilateral.limit + spatial.limit
    scattered = _is_scattered(bilateral)
    pattern = np.int32(-1)
    for k in range(start, end):
        p = pixels.index[k]
        if scattered and k + _AHEAD < end:
            _prefetch_rows(pixels, groups, k + _AHEAD, bilateral, bilateral.position, old_b)
            _prefetch_rows(pixels, groups, k + _AHEAD, bilateral, bilateral.target, new_b)
        if unary.pattern[p] != pattern:
            pattern = unary.pattern[p]
            _coefficients(unary, groups, p, of_detection, coefficient)
        count = _potential_row(unary, groups, pixels, k, coefficient, q, psi)
        _message_row(pixels, groups, k, bilateral, spatial, first, old_b, old_s, count, message)
        shift = _shift(message, count, limit)
        inverse = np.float32(1) / _marginal_row(psi, message, count, shift, marginal)
        in_b, in_s = bilateral.weight_in[p] * inverse, spatial.weight_in[p] * inverse
        _splat_row(pixels, groups, k, bilateral, spatial, in_b, in_s, new_b, new_s, marginal)


@kernel
def blur_rows(values, chains, start, end, base, stride):
    """[1/2 1 1/2] along the chains start..end of one direction, in place.

    Args:
        chains: rows along each direction, see Lattice; row r starts at ``base + stride * r``.
    """
    width = np.uint64(stride)
    origin = np.uint64(base)
    before = np.zeros(stride, np.float32)
    half = np.float32(0.5)
    stop = np.uint32(0xFFFFFFFF)
    for i in range(start, end):
        ahead = chains[min(i + _CHAIN_AHEAD, end - 1)]
        if ahead != stop:
            for line in range(np.uint64(0), min(width, _NEAR), _LINE):
                prefetch(values, origin + width * np.uint64(ahead) + line)
        if chains[i] == stop:
            for c in range(np.uint64(0), width, _LANES):
                store(before, c, repeat(np.float32(0)))
            continue
        here = origin + width * np.uint64(chains[i])
        if chains[i + 1] == stop:
            for c in range(np.uint64(0), width, _LANES):
                store(values, here + c, load(values, here + c) + half * load(before, c))
            continue
        there = origin + width * np.uint64(chains[i + 1])
        for c in range(np.uint64(0), width, _LANES):
            value = load(values, here + c)
            around = load(before, c) + load(values, there + c)
            store(before, c, value)
            store(values, here + c, value + half * around)


@kernel
def blur_all(values, chains, chain_ptr, base, stride, backward):
    """All directions, one after the other; in reverse for the transpose."""
    directions = chain_ptr.shape[0] - 1
    for step in range(directions):
        j = directions - 1 - step if backward else step
        blur_rows(values, chains, chain_ptr[j], chain_ptr[j + 1], base, stride)


@kernel
def merge(start, end, values, own, main, width):
    """Adds rows start..end of threads' own to the rows that they stand for."""
    for i in range(start, end):
        source, target = np.uint64(own[i]), np.uint64(main[i])
        for c in range(np.uint64(0), np.uint64(width[i]), _LANES):
            store(values, target + c, load(values, target + c) + load(values, source + c))


@kernel
def best_labels(
    start, end, pixels, groups, unary, bilateral, spatial, first, old_b, old_s, best, confidence
):
    """Most probable label of each active pixel and its marginal; ties go to the lower label."""
    q = np.empty(groups.max_row + PAD, np.float32)
    psi = np.empty(groups.max_row, np.float32)
    message = np.empty(groups.max_row, np.float32)
    marginal = np.empty(groups.max_row, np.float32)
    of_detection = np.zeros(unary.inside.shape[0] + PAD, np.float32)
    coefficient = np.zeros(groups.epsilon.shape[0] + PAD, np.float32)
    limit = bilateral.limit + spatial.limit
    scattered = not first and _is_scattered(bilateral)
    pattern = np.int32(-1)
    for k in range(start, end):
        p = pixels.index[k]
        if scattered and k + _AHEAD < end:
            _prefetch_rows(pixels, groups, k + _AHEAD, bilateral, bilateral.position, old_b)
        if unary.pattern[p] != pattern:
            pattern = unary.pattern[p]
            _coefficients(unary, groups, p, of_detection, coefficient)
        count = _potential_row(unary, groups, pixels, k, coefficient, q, psi)
        _message_row(pixels, groups, k, bilateral, spatial, first, old_b, old_s, count, message)
        shift = _shift(message, count, limit)
        inverse = np.float32(1) / _marginal_row(psi, message, count, shift, marginal)
        largest = _largest(marginal, count)
        winner = np.int32(NO_LABEL)
        at = np.uint64(0)
        for i in range(pixels.group_ptr[k], pixels.group_ptr[k + 1]):
            g = pixels.groups[i]
            labels = np.uint64(groups.start[g])
            width = np.uint64(groups.width[g])
            for c in range(width):
                label = groups.label[labels + c]
                winner = min(winner, label if marginal[at + c] >= largest else winner)
            at += width
        best[p] = winner
        confidence[p] = largest * inverse


@kernel
def write_marginals(
    start, end, pixels, groups, unary, bilateral, spatial, first, old_b, old_s, order, marginals
):
    """Writes the marginals of the active pixels to (L, N), N in the usual order of pixels."""
    run = 16
    q = np.empty(groups.max_row + PAD, np.float32)
    psi = np.empty(groups.max_row, np.float32)
    message = np.empty(groups.max_row, np.float32)
    marginal = np.empty(groups.max_row, np.float32)
    of_detection = np.zeros(unary.inside.shape[0] + PAD, np.float32)
    coefficient = np.zeros(groups.epsilon.shape[0] + PAD, np.float32)
    limit = bilateral.limit + spatial.limit
    scattered = not first and _is_scattered(bilateral)
    pattern = np.int32(-1)
    rows = np.empty((run, groups.max_row), np.float32)
    length = 0
    for k in range(start, end):
        p = pixels.index[k]
        if scattered and k + _AHEAD < end:
            _prefetch_rows(pixels, groups, k + _AHEAD, bilateral, bilateral.position, old_b)
        if unary.pattern[p] != pattern:
            pattern = unary.pattern[p]
            _coefficients(unary, groups, p, of_detection, coefficient)
        count = _potential_row(unary, groups, pixels, k, coefficient, q, psi)
        _message_row(pixels, groups, k, bilateral, spatial, first, old_b, old_s, count, message)
        shift = _shift(message, count, limit)
        inverse = np.float32(1) / _marginal_row(psi, message, count, shift, marginal)
        for c in range(count):
            rows[length, c] = marginal[c] * inverse
        length += 1
        # Neighbours with the same groups are written together: a label's values are adjacent.
        if (
            length == run
            or k + 1 == end
            or order[pixels.index[k + 1]] != order[p] + 1
            or not _same_groups(pixels, k, k + 1)
        ):
            _write_rows(pixels, groups, k, rows, length, order[p] + 1 - length, marginals)
            length = 0


@kernel(inline=True)
def _write_rows(pixels, groups, k, rows, length, target, marginals):
    """Writes rows of neighbours with the groups of active pixel k."""
    column = 0
    for i in range(pixels.group_ptr[k], pixels.group_ptr[k + 1]):
        g = pixels.groups[i]
        for c in range(groups.width[g]):
            label = groups.label[groups.start[g] + c]
            if label != NO_LABEL:
                for n in range(length):
                    marginals[label, target + n] = rows[n, column]
            column += 1


@kernel(inline=True)
def _same_groups(pixels, one, other):
    a, b = pixels.group_ptr[one], pixels.group_ptr[other]
    count = pixels.group_ptr[one + 1] - a
    if pixels.group_ptr[other + 1] - b != count:
        return False
    for i in range(count):
        if pixels.groups[a + i] != pixels.groups[b + i]:
            return False
    return True


@kernel
def find_dropped(pixels, groups, label, dropped):
    """Marks the pixels whose label, (N,) int64, was dropped; those without groups come marked."""
    for k in range(pixels.index.shape[0]):
        p = pixels.index[k]
        dropped[p] = label[p] >= 0 and _column(pixels, groups, k, label[p]) < 0


@kernel(inline=True)
def _column(pixels, groups, k, label):
    """Column of a label in the row of active pixel k, -1 if the label was dropped there."""
    wanted = groups.group_of_label[label]
    at = 0
    for i in range(pixels.group_ptr[k], pixels.group_ptr[k + 1]):
        g = pixels.groups[i]
        if g == wanted:
            return at + groups.column_of_label[label]
        at += groups.width[g]
    return -1


@kernel
def label_log_prob(
    start, end, pixels, groups, unary, bilateral, spatial, first, old_b, old_s, label, out
):
    """Log-probability of one label per active pixel; (N,) int64 labels, skipped where negative.

    Where the label was dropped, minus the logarithm of the pixel's normaliser.
    """
    q = np.empty(groups.max_row + PAD, np.float32)
    psi = np.empty(groups.max_row, np.float32)
    message = np.empty(groups.max_row, np.float32)
    marginal = np.empty(groups.max_row, np.float32)
    of_detection = np.zeros(unary.inside.shape[0] + PAD, np.float32)
    coefficient = np.zeros(groups.epsilon.shape[0] + PAD, np.float32)
    limit = bilateral.limit + spatial.limit
    scattered = not first and _is_scattered(bilateral)
    pattern = np.int32(-1)
    for k in range(start, end):
        p = pixels.index[k]
        if scattered and k + _AHEAD < end:
            _prefetch_rows(pixels, groups, k + _AHEAD, bilateral, bilateral.position, old_b)
        if label[p] < 0:
            continue
        if unary.pattern[p] != pattern:
            pattern = unary.pattern[p]
            _coefficients(unary, groups, p, of_detection, coefficient)
        count = _potential_row(unary, groups, pixels, k, coefficient, q, psi)
        _message_row(pixels, groups, k, bilateral, spatial, first, old_b, old_s, count, message)
        shift = _shift(message, count, limit)
        normaliser = np.log(_marginal_row(psi, message, count, shift, marginal)) + shift
        column = _column(pixels, groups, k, label[p])
        out[p] = -normaliser
        if column >= 0:
            out[p] += np.log(psi[column]) + message[column]


@kernel
def pullback(
    start,
    end,
    pixels,
    groups,
    unary,
    bilateral,
    spatial,
    first,
    old_b,
    old_s,
    seed,
    label,
    seed_label,
    seed_marginals,
    order,
    grad_b,
    grad_s,
    last,
    new_b,
    new_s,
    grad_part_prob,
    grad_coefficient,
):
    """Backward pass of one iteration: from the gradient of its marginals to the ones before.

    The marginals are made anew from the blurred lattice values ``old``. The gradient of the logits
    goes to Q and the coefficients of the unary, and is splatted for the transposed filters.

    Args:
        first: whether there were no messages yet.
        seed: where the gradient comes from: 0 reads the blurred lattice values ``grad_b`` and
            ``grad_s``; 1 is that of log-probabilities of ``label``, (N,), in ``seed_label``; 2 is
            that of marginals in ``seed_marginals``, (L, N) in the usual order of pixels.
        last: whether nothing comes before: then nothing is splatted.
        grad_part_prob: (N, P + 1) float32, added to.
        grad_coefficient: (3,) float64, added to: with respect to the coefficients of the
            background, of the detections (their sum), and the sum of coefficient times gradient
            of the detections.
    """
    q = np.empty(groups.max_row + PAD, np.float32)
    psi = np.empty(groups.max_row, np.float32)
    message = np.empty(groups.max_row, np.float32)
    grad = np.empty(groups.max_row, np.float32)
    share = np.empty(groups.max_row, np.float32)
    of_detection = np.zeros(unary.inside.shape[0] + PAD, np.float32)
    coefficient = np.zeros(groups.epsilon.shape[0] + PAD, np.float32)
    limit = bilateral.limit + spatial.limit
    scattered = not first and _is_scattered(bilateral)
    pattern = np.int32(-1)
    for k in range(start, end):
        p = pixels.index[k]
        if scattered and k + _AHEAD < end:
            _prefetch_rows(pixels, groups, k + _AHEAD, bilateral, bilateral.position, old_b)
            _prefetch_rows(pixels, groups, k + _AHEAD, bilateral, bilateral.target, new_b)
            if seed == 0:
                _prefetch_rows(pixels, groups, k + _AHEAD, bilateral, bilateral.position, grad_b)
        if seed == 1 and (label[p] < 0 or seed_label[p] == 0):
            continue
        if unary.pattern[p] != pattern:
            pattern = unary.pattern[p]
            _coefficients(unary, groups, p, of_detection, coefficient)
        count = _potential_row(unary, groups, pixels, k, coefficient, q, psi)
        _message_row(pixels, groups, k, bilateral, spatial, first, old_b, old_s, count, message)
        if seed == 0:
            _slice_row(pixels, groups, k, bilateral, spatial, grad_b, grad_s, True, grad)
        elif seed == 1:
            for c in range(np.uint64(0), count, _LANES):
                store(grad, c, repeat(np.float32(0)))
        else:
            _read_row(pixels, groups, k, seed_marginals, order[p], grad)

        # The gradient of the logits is that of psi times psi, and psi is a factor of the marginal.
        shift = _shift(message, count, limit)
        sum_ = repeat(np.float32(0))
        dot = repeat(np.float32(0))
        for c in range(np.uint64(0), count, _LANES):
            factor = exp(load(message, c) - shift)
            marginal = load(psi, c) * factor
            store(share, c, factor)
            sum_ += marginal
            dot += marginal * load(grad, c)
        inverse = np.float32(1) / lane_sum(sum_)
        mean = lane_sum(dot) * inverse if seed != 1 else seed_label[p]
        for c in range(np.uint64(0), count, _LANES):
            store(share, c, load(share, c) * inverse * (load(grad, c) - mean))
        if seed == 1:
            column = _column(pixels, groups, k, label[p])
            if column >= 0:
                share[column] += seed_label[p] / max(psi[column], _SMALLEST)
        if not last:
            for c in range(np.uint64(0), count, _LANES):
                store(grad, c, load(share, c) * load(psi, c))
            out_b, out_s = bilateral.weight_out[p], spatial.weight_out[p]
            _splat_row(pixels, groups, k, bilateral, spatial, out_b, out_s, new_b, new_s, grad)
        _unary_pullback(
            unary, groups, pixels, k, coefficient, q, share, grad_part_prob, grad_coefficient
        )


@kernel(inline=True)
def _read_row(pixels, groups, k, planes, pixel, row):
    """Numbers of the labels of active pixel k from (L, N) planes; 0 for pads."""
    column = 0
    for i in range(pixels.group_ptr[k], pixels.group_ptr[k + 1]):
        g = pixels.groups[i]
        for c in range(groups.start[g], groups.start[g] + groups.width[g]):
            label = groups.label[c]
            row[column] = planes[label, pixel] if label != NO_LABEL else np.float32(0)
            column += 1


@kernel(inline=True)
def _unary_pullback(
    unary, groups, pixels, k, coefficient, q, share, grad_part_prob, grad_coefficient
):
    """Gradient with respect to Q and a of psi = a Q + epsilon.

    Args:
        share: gradient with respect to psi; overwritten.
    """
    p = pixels.index[k]
    end = np.uint64(0)
    lanes = repeat(np.float32(0))
    weighted = repeat(np.float32(0))
    # Background is the first column of the first group, which every pixel has.
    background = share[0] * q[0]
    for i in range(pixels.group_ptr[k], pixels.group_ptr[k + 1]):
        g = pixels.groups[i]
        at = np.uint64(groups.start[g])
        width = np.uint64(groups.width[g])
        for c in range(np.uint64(0), width, _LANES):
            value = load(share, end + c)
            product = value * load(coefficient, at + c)
            lanes += value * load(q, end + c)
            weighted += product * load(q, end + c)
            store(share, end + c, product)
        column = end
        for b in range(groups.block_ptr[g], groups.block_ptr[g + 1]):
            block = np.float32(0)
            for c in range(column, column + np.uint64(groups.block_width[b])):
                block += share[c]
            grad_part_prob[p, groups.block_part[b]] += block
            column += np.uint64(groups.block_width[b])
        end += width
    grad_coefficient[0] += background
    grad_coefficient[1] += lane_sum(lanes) - background
    grad_coefficient[2] += lane_sum(weighted) - background * np.float32(unary.background)


@kernel
def to_pixel_rows(start, end, planes, order, rows):
    """(C, N) planes in the usual order of pixels to (N, C) rows in the given order."""
    for p in range(start, end):
        for c in range(planes.shape[0]):
            rows[p, c] = planes[c, order[p]]


@kernel
def part_mass(start, end, unary, first, last, mass):
    """Share of background and of each part, all detections together, in the normalised unary.

    Args:
        first, last: (P + 1,) int64 range of detections that own each part.
        mass: (N, P + 1 or more) float32, written.
    """
    channels = first.shape[0]
    sums = np.zeros(channels, np.float32)
    pattern = np.int32(-1)
    for p in range(start, end):
        if unary.pattern[p] != pattern:
            pattern = unary.pattern[p]
            for part in range(1, channels):
                if part > 1 and first[part] == first[part - 1] and last[part] == last[part - 1]:
                    sums[part] = sums[part - 1]
                    continue
                sums[part] = 0
                for d in range(first[part], last[part]):
                    sums[part] += np.float32(unary.everywhere)
                    if _inside(unary, p, d):
                        sums[part] += unary.inside[d]
        total = np.float32(unary.background) * unary.part_prob[p, 0] + np.float32(unary.epsilon)
        mass[p, 0] = total
        for part in range(1, channels):
            count = np.float32(last[part] - first[part])
            value = sums[part] * unary.part_prob[p, part] + count * np.float32(unary.epsilon)
            mass[p, part] = value
            total += value
        inverse = np.float32(1) / total
        for part in range(channels):
            mass[p, part] *= inverse


@kernel
def bound_update(
    start,
    end,
    pixels,
    groups,
    mass,
    bilateral,
    spatial,
    first,
    old_b,
    old_s,
    last,
    new_b,
    new_s,
    highest,
):
    """One iteration of the bounds: of the background from below, of each part from above.

    Messages are never negative and grow with the marginals that are filtered. So with m_0 the
    message of the background's lower bound, m_j that of the upper bound of part j, and e the shares
    of ``part_mass``,

    * background >= e_0 exp(m_0) / (e_0 exp(m_0) + sum_j e_j exp(m_j)),
    * part j <= e_j exp(m_j) / (e_0 exp(m_0) + e_j exp(m_j) + sum of the other e).

    Args:
        last: whether the bounds are needed no more for another iteration.
        mass, highest: (N, W) float32 with the P + 1 columns padded to W; ``highest`` is raised to
            the bounds.
    """
    width = np.uint64(groups.max_row)
    message = np.zeros(groups.max_row, np.float32)
    bound = np.zeros(groups.max_row, np.float32)
    limit = np.float32(bilateral.limit + spatial.limit)
    scattered = _is_scattered(bilateral)
    for k in range(start, end):
        p = pixels.index[k]
        if scattered and k + _AHEAD < end:
            _prefetch_rows(pixels, groups, k + _AHEAD, bilateral, bilateral.position, old_b)
            _prefetch_rows(pixels, groups, k + _AHEAD, bilateral, bilateral.target, new_b)
        row = np.uint64(p) * width
        if first:
            for c in range(np.uint64(0), width, _LANES):
                store(bound, c, load(mass, row + c))
        else:
            _slice_row(pixels, groups, k, bilateral, spatial, old_b, old_s, False, message)
            shift = _shift(message, width, limit)
            scaled_sum = _marginal_row(mass[p], message, width, shift, bound)
            scaled = bound[0]
            background = scaled + np.float32(1e-30)
            others = np.float32(1) - mass[p, 0]
            unmoved = exp(repeat(-shift))
            for c in range(np.uint64(0), width, _LANES):
                value = load(bound, c)
                rest = (others - load(mass, row + c)) * unmoved
                store(bound, c, value / (value + rest + background))
            bound[0] = scaled / scaled_sum
        for c in range(np.uint64(0), width, _LANES):
            store(highest, row + c, maximum(load(highest, row + c), load(bound, c)))
        if not last:
            in_b, in_s = bilateral.weight_in[p], spatial.weight_in[p]
            _splat_row(pixels, groups, k, bilateral, spatial, in_b, in_s, new_b, new_s, bound)
