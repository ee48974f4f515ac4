"""The Triton kernels of the mean-field: update and its pullback, weighted sums of rows, blur.

Rows of L labels are padded to a multiple of four floats ("quads"), so that a thread moves 16 bytes
at a time; what is in the padding is 0 everywhere and stays so. Offsets of rows are 64-bit, since
rows x labels may pass 2^31. No kernel needs atomics, so results are the same at every run.

Shape letters: N pixels, L labels, M lattice vertices (of all kernels together), C corners (the
vertices around a pixel, likewise).
"""

import triton
import triton.language as tl

__all__ = ["blur", "pullback", "sum_rows", "update"]


@triton.jit
def _add_messages(
    total, values, vertex, weight, pixel, exists, label, num_pixels, quads, CORNERS: tl.constexpr
):
    """Adds to the (pixel, label) tile ``total`` what the pixels slice from the lattice.

    values: (M, 4 quads); vertex, weight: (C, N).
    """
    for corner in tl.static_range(CORNERS):
        at = corner * num_pixels.to(tl.int64) + pixel
        row = tl.load(vertex + at, mask=exists, other=0).to(tl.int64)
        share = tl.load(weight + at, mask=exists, other=0.0)
        offset = row[:, None] * (quads * 4) + label[None, :]
        inside = exists[:, None] & (label < quads * 4)[None, :]
        total += share[:, None] * tl.load(values + offset, mask=inside, other=0.0)
    return total


@triton.jit
def _softmax(
    unary,
    stride_n,
    stride_l,
    values,
    vertex,
    weight,
    pixel,
    exists,
    label,
    num_pixels,
    num_labels,
    quads,
    CORNERS: tl.constexpr,
):
    """Softmax of -U + messages: shifted logits, their exponentials, and the sums of these.

    unary: (N, L) with strides. Beyond L logits are -inf, exponentials 0.
    """
    inside = exists[:, None] & (label < num_labels)[None, :]
    offset = pixel.to(tl.int64)[:, None] * stride_n + label.to(tl.int64)[None, :] * stride_l
    logits = -tl.load(unary + offset, mask=inside, other=float("inf"))
    # A row beyond the image must not be all -inf: inf - inf is no number.
    logits = tl.where(exists[:, None], logits, 0.0)
    logits = _add_messages(
        logits, values, vertex, weight, pixel, exists, label, num_pixels, quads, CORNERS
    )
    logits -= tl.max(logits, axis=1)[:, None]
    exponentials = tl.exp(logits)
    return logits, exponentials, tl.sum(exponentials, axis=1)[:, None]


@triton.jit(do_not_specialize=["num_pixels", "num_labels", "quads"])
def update(
    out,
    out_stride_n,
    out_stride_l,
    unary,
    unary_stride_n,
    unary_stride_l,
    values,
    vertex,
    weight,
    num_pixels,
    num_labels,
    quads,
    LOG: tl.constexpr,
    CORNERS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Slices, normalises: out = softmax(-U + sum_m w_m K_m Q), one program per BLOCK_N pixels.

    out: (N, L) log-marginals with strides if LOG, else (N, 4 quads) marginals.
    unary: (N, L) with strides.
    values: (M, 4 quads) blurred lattice values; None where CORNERS = 0: no messages.
    vertex, weight: (C, N) corners of each pixel and their weights with all factors, C = CORNERS.
    """
    pixel = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    label = tl.arange(0, BLOCK_L)
    exists = pixel < num_pixels
    logits, exponentials, total = _softmax(
        unary,
        unary_stride_n,
        unary_stride_l,
        values,
        vertex,
        weight,
        pixel,
        exists,
        label,
        num_pixels,
        num_labels,
        quads,
        CORNERS,
    )
    if LOG:
        offset = pixel.to(tl.int64)[:, None] * out_stride_n
        offset += label.to(tl.int64)[None, :] * out_stride_l
        inside = exists[:, None] & (label < num_labels)[None, :]
        tl.store(out + offset, logits - tl.log(total), mask=inside)
    else:
        offset = pixel.to(tl.int64)[:, None] * (quads * 4) + label[None, :]
        inside = exists[:, None] & (label < quads * 4)[None, :]
        tl.store(out + offset, exponentials / total, mask=inside)


@triton.jit(do_not_specialize=["num_pixels", "num_labels", "quads"])
def pullback(
    out,
    grad_unary,
    grad_unary_stride_n,
    grad_unary_stride_l,
    unary,
    unary_stride_n,
    unary_stride_l,
    values,
    vertex,
    weight,
    source,
    source_stride_n,
    source_stride_l,
    source_vertex,
    source_weight,
    num_pixels,
    num_labels,
    quads,
    SEED: tl.constexpr,
    CORNERS: tl.constexpr,
    SOURCE_CORNERS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Gradient of the logits of an iteration, whose marginals are remade as ``update`` made them.

    With SEED, ``source`` is the (N, L) gradient of the log-marginals, with strides; otherwise the
    (M, 4 quads) gradient of the splatted marginals, which is sliced with ``source_vertex`` and
    ``source_weight``, both (C, N), C = SOURCE_CORNERS.

    out: (N, 4 quads) gradient of the logits; not written for the first iteration (CORNERS = 0),
    where the logits come from the unary alone.
    grad_unary: (N, L) with strides; set with SEED, else added to.
    """
    pixel = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    label = tl.arange(0, BLOCK_L)
    exists = pixel < num_pixels
    _, exponentials, total = _softmax(
        unary,
        unary_stride_n,
        unary_stride_l,
        values,
        vertex,
        weight,
        pixel,
        exists,
        label,
        num_pixels,
        num_labels,
        quads,
        CORNERS,
    )
    marginals = exponentials / total
    wide_pixel, wide_label = pixel.to(tl.int64)[:, None], label.to(tl.int64)[None, :]
    inside = exists[:, None] & (label < num_labels)[None, :]
    if SEED:
        offset = wide_pixel * source_stride_n + wide_label * source_stride_l
        grad = tl.load(source + offset, mask=inside, other=0.0)
        grad -= marginals * tl.sum(grad, axis=1)[:, None]
    else:
        grad = _add_messages(
            tl.zeros([BLOCK_N, BLOCK_L], tl.float32),
            source,
            source_vertex,
            source_weight,
            pixel,
            exists,
            label,
            num_pixels,
            quads,
            SOURCE_CORNERS,
        )
        grad = marginals * (grad - tl.sum(marginals * grad, axis=1)[:, None])
    if CORNERS > 0:
        offset = wide_pixel * (quads * 4) + label[None, :]
        padded = exists[:, None] & (label < quads * 4)[None, :]
        tl.store(out + offset, grad, mask=padded)
    offset = wide_pixel * grad_unary_stride_n + wide_label * grad_unary_stride_l
    if SEED:
        tl.store(grad_unary + offset, -grad, mask=inside)
    else:
        before = tl.load(grad_unary + offset, mask=inside, other=0.0)
        tl.store(grad_unary + offset, before - grad, mask=inside)


@triton.jit(do_not_specialize=["num_rows", "quads"])
def sum_rows(
    out,
    rows,
    start,
    index,
    weight,
    num_rows,
    quads,
    INDEXED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """out[v] = sum of weight[e] rows[index[e]] over start[v] <= e < start[v + 1]; in that order.

    Without INDEXED the sum of rows[e]. One program per BLOCK_M rows of ``out`` and BLOCK_L labels.

    out: (num_rows, 4 quads); start: (num_rows + 1).
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    label = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    exists, in_row = row < num_rows, (label < quads * 4)[None, :]
    first = tl.load(start + row, mask=exists, other=0)
    last = tl.load(start + row + 1, mask=exists, other=0)
    total = tl.zeros([BLOCK_M, BLOCK_L], tl.float32)
    for step in range(tl.max(last - first, axis=0)):
        entry = first + step
        valid = entry < last
        if INDEXED:
            source = tl.load(index + entry, mask=valid, other=0).to(tl.int64)
            factor = tl.load(weight + entry, mask=valid, other=0.0)
        else:
            source = entry.to(tl.int64)
            factor = valid.to(tl.float32)
        offset = source[:, None] * (quads * 4) + label[None, :]
        tile = tl.load(rows + offset, mask=valid[:, None] & in_row, other=0.0)
        total += factor[:, None] * tile
    offset = row.to(tl.int64)[:, None] * (quads * 4) + label[None, :]
    tl.store(out + offset, total, mask=exists[:, None] & in_row)


@triton.jit(do_not_specialize=["direction", "num_rows", "quads"])
def blur(
    out,
    values,
    neighbours,
    direction,
    num_rows,
    quads,
    BLOCK_M: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """[1/2 1 1/2] along one direction, from ``values`` to ``out``, both (M, 4 quads).

    neighbours: (directions, 2, M), M where there is none.
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    label = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    exists, in_row = row < num_rows, (label < quads * 4)[None, :]
    here = row.to(tl.int64)[:, None] * (quads * 4) + label[None, :]
    total = tl.load(values + here, mask=exists[:, None] & in_row, other=0.0)
    for side in tl.static_range(2):
        at = (direction * 2 + side) * num_rows.to(tl.int64) + row
        neighbour = tl.load(neighbours + at, mask=exists, other=num_rows)
        offset = neighbour.to(tl.int64)[:, None] * (quads * 4) + label[None, :]
        found = (neighbour < num_rows)[:, None] & in_row
        total += 0.5 * tl.load(values + offset, mask=found, other=0.0)
    tl.store(out + here, total, mask=exists[:, None] & in_row)
