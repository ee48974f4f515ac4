"""The Triton kernels of the mean-field: update and its pullback, sums of rows, blur.

Rows of L labels are padded to R = 4 ceil(L / 4) columns, so that a thread moves 16 bytes at a time;
what is in the padding is 0 everywhere and stays so. Offsets of rows are 64-bit, since rows x labels
may pass 2^31. No kernel needs atomics, so results are the same at every run.

A pixel's share in a vertex around it is its barycentric weight there, times a factor of the pixel
and the Gaussian kernel: normalisation, support, the kernel's weight.

Shape letters: N pixels, L labels, K Gaussian kernels; of all of them together M lattice vertices
and C corners (the vertices around a pixel).
"""

import triton
import triton.language as tl

__all__ = ["blur", "pullback", "sum_rows", "update"]


@triton.jit
def _tile(array, stride_row, stride_label, row, label):
    """Addresses of some rows and labels of an array."""
    row, label = row.to(tl.int64)[:, None], label.to(tl.int64)[None, :]
    return array + row * stride_row + label * stride_label


@triton.jit
def _inside(row, label, num_rows, num_labels):
    """Which of the addresses of a tile are there."""
    return (row < num_rows)[:, None] & (label < num_labels)[None, :]


@triton.jit
def _columns(L):
    """Of a padded row."""
    return (L + 3) // 4 * 4


@triton.jit
def _add_messages(
    total, values, vertex, weight, kernel_of, factor, pixel, label, N, L, CORNERS: tl.constexpr
):
    """Adds to the (pixel, label) tile ``total`` what the pixels slice from the lattice.

    values: (M, R); vertex, weight: (C, N); kernel_of: (C,); factor: (K, N).
    """
    exists = pixel < N
    inside = _inside(pixel, label, N, _columns(L))
    for corner in tl.static_range(CORNERS):
        at = corner * N.to(tl.int64) + pixel
        row = tl.load(vertex + at, mask=exists, other=0)
        share = tl.load(weight + at, mask=exists, other=0.0)
        at = tl.load(kernel_of + corner) * N.to(tl.int64) + pixel
        share *= tl.load(factor + at, mask=exists, other=0.0)
        tile = _tile(values, _columns(L), 1, row, label)
        total += share[:, None] * tl.load(tile, mask=inside, other=0.0)
    return total


@triton.jit
def _softmax(
    unary, values, vertex, weight, kernel_of, factor, pixel, label, N, L, CORNERS: tl.constexpr
):
    """Softmax of -U + messages: shifted logits, their exponentials, and the sums of these.

    unary: addresses of the (pixel, label) tile. Beyond L logits are -inf, exponentials 0.
    """
    inside = _inside(pixel, label, N, L)
    logits = -tl.load(unary, mask=inside, other=float("inf"))
    # A row beyond the image must not be all -inf: inf - inf is no number.
    logits = tl.where((pixel < N)[:, None], logits, 0.0)
    logits = _add_messages(
        logits, values, vertex, weight, kernel_of, factor, pixel, label, N, L, CORNERS
    )
    logits -= tl.max(logits, axis=1)[:, None]
    exponentials = tl.exp(logits)
    return logits, exponentials, tl.sum(exponentials, axis=1)[:, None]


@triton.jit(do_not_specialize=["N", "L"])
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
    kernel_of,
    factor_out,
    N,
    L,
    LOG: tl.constexpr,
    CORNERS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Slices, normalises: out = softmax(-U + sum_m w_m K_m Q), one program per BLOCK_N pixels.

    out: (N, L) log-marginals with strides if LOG, else (N, R) marginals.
    unary: (N, L) with strides.
    values: (M, R) blurred lattice values; None where CORNERS = 0: no messages.
    vertex, weight: (C, N) corners of each pixel and their weights, C = CORNERS.
    kernel_of: (C,) kernel of each corner.
    factor_out: (K, N) factors after filtering, with w.
    """
    pixel = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    label = tl.arange(0, BLOCK_L)
    tile = _tile(unary, unary_stride_n, unary_stride_l, pixel, label)
    logits, exponentials, total = _softmax(
        tile, values, vertex, weight, kernel_of, factor_out, pixel, label, N, L, CORNERS
    )
    if LOG:
        tile = _tile(out, out_stride_n, out_stride_l, pixel, label)
        inside = _inside(pixel, label, N, L)
        tl.store(tile, logits - tl.log(total), mask=inside)
    else:
        tile = _tile(out, _columns(L), 1, pixel, label)
        inside = _inside(pixel, label, N, _columns(L))
        tl.store(tile, exponentials / total, mask=inside)


@triton.jit(do_not_specialize=["N", "L"])
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
    kernel_of,
    factor_out,
    source,
    source_stride_n,
    source_stride_l,
    factor_in,
    N,
    L,
    SEED: tl.constexpr,
    CORNERS: tl.constexpr,
    SOURCE_CORNERS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Gradient of the logits of an iteration, whose marginals are remade as ``update`` made them.

    With SEED, ``source`` is the (N, L) gradient of the log-marginals, with strides; otherwise the
    (M, R) gradient of the splatted marginals, which is sliced from SOURCE_CORNERS corners with
    ``factor_in`` (K, N), the factors before filtering, with w.

    out: (N, R) gradient of the logits; not written for the first iteration (CORNERS = 0), where the
    logits come from the unary alone.
    grad_unary: (N, L) with strides; set with SEED, else added to.
    """
    pixel = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    label = tl.arange(0, BLOCK_L)
    tile = _tile(unary, unary_stride_n, unary_stride_l, pixel, label)
    _, exponentials, total = _softmax(
        tile, values, vertex, weight, kernel_of, factor_out, pixel, label, N, L, CORNERS
    )
    marginals = exponentials / total
    inside = _inside(pixel, label, N, L)
    if SEED:
        tile = _tile(source, source_stride_n, source_stride_l, pixel, label)
        grad = tl.load(tile, mask=inside, other=0.0)
        grad -= marginals * tl.sum(grad, axis=1)[:, None]
    else:
        grad = tl.zeros([BLOCK_N, BLOCK_L], tl.float32)
        grad = _add_messages(
            grad, source, vertex, weight, kernel_of, factor_in, pixel, label, N, L, SOURCE_CORNERS
        )
        grad = marginals * (grad - tl.sum(marginals * grad, axis=1)[:, None])
    if CORNERS > 0:
        tile = _tile(out, _columns(L), 1, pixel, label)
        tl.store(tile, grad, mask=_inside(pixel, label, N, _columns(L)))
    tile = _tile(grad_unary, grad_unary_stride_n, grad_unary_stride_l, pixel, label)
    if SEED:
        tl.store(tile, -grad, mask=inside)
    else:
        tl.store(tile, tl.load(tile, mask=inside, other=0.0) - grad, mask=inside)


@triton.jit(do_not_specialize=["num_rows", "N", "L"])
def sum_rows(
    out,
    rows,
    start,
    pair,
    weight,
    kernel_of,
    factor,
    num_rows,
    N,
    L,
    SPLAT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """out[v] = sum of rows[e] over start[v] <= e < start[v + 1], in that order.

    With SPLAT the sum is over pairs, pair[e] = corner * N + pixel, of the pixel's share times
    rows[pixel]; all pairs of v are of one Gaussian kernel. One program per BLOCK_M rows of ``out``
    and BLOCK_L labels.

    out: (num_rows, R); start: (num_rows + 1,); weight: (C, N); kernel_of: (C,); factor: (K, N).
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    label = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    columns = _columns(L)
    exists, in_row = row < num_rows, (label < columns)[None, :]
    first = tl.load(start + row, mask=exists, other=0)
    last = tl.load(start + row + 1, mask=exists, other=0)
    if SPLAT:
        corner = tl.load(pair + first, mask=exists, other=0) // N
        factor += tl.load(kernel_of + corner, mask=exists, other=0) * N.to(tl.int64)
    total = tl.zeros([BLOCK_M, BLOCK_L], tl.float32)
    for step in range(tl.max(last - first, axis=0)):
        entry = first + step
        valid = entry < last
        if SPLAT:
            at = tl.load(pair + entry, mask=valid, other=0)
            source = at % N
            share = tl.load(weight + at, mask=valid, other=0.0)
            share *= tl.load(factor + source, mask=valid, other=0.0)
        else:
            source = entry
            share = valid.to(tl.float32)
        tile = _tile(rows, columns, 1, source, label)
        total += share[:, None] * tl.load(tile, mask=valid[:, None] & in_row, other=0.0)
    tl.store(_tile(out, columns, 1, row, label), total, mask=exists[:, None] & in_row)


@triton.jit(do_not_specialize=["direction", "num_rows", "L"])
def blur(
    out,
    values,
    neighbours,
    direction,
    num_rows,
    L,
    BLOCK_M: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """[1/2 1 1/2] along one direction, from ``values`` to ``out``, both (M, R).

    neighbours: (directions, 2, M), M where there is none.
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    label = tl.program_id(1) * BLOCK_L + tl.arange(0, BLOCK_L)
    columns = _columns(L)
    inside = _inside(row, label, num_rows, columns)
    total = tl.load(_tile(values, columns, 1, row, label), mask=inside, other=0.0)
    for side in tl.static_range(2):
        at = (direction * 2 + side) * num_rows.to(tl.int64) + row
        neighbour = tl.load(neighbours + at, mask=row < num_rows, other=num_rows)
        tile = _tile(values, columns, 1, neighbour, label)
        found = _inside(neighbour, label, num_rows, columns)
        total += 0.5 * tl.load(tile, mask=found, other=0.0)
    tl.store(_tile(out, columns, 1, row, label), total, mask=inside)
