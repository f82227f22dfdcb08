"""Entropy, bin by bin, over blocks that fit in the cache: the fast way for few bins.

A window sum is a sum of shifted flat arrays (the rows of a block joined up, halo included), which the compiler turns
into vector instructions of 8 and 16 bits; then ``c log2 c`` comes from a table. Bins that a block lacks cost nothing.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Integer

from medpixcl._kernels.compiled import compiled
from medpixcl._kernels.window import Window, entropy_terms

BLOCK = (16, 64, 64)
"""Smallest size of a block along each axis; wider windows need wider blocks."""


def entropy_bin_by_bin(
    levels: Integer[np.ndarray, "d h w"], count: int, window: Window, entropy: Float32[np.ndarray, "d h w"]
) -> None:
    """Fill ``entropy``; ``levels`` are below 256, and pixels of level ``count`` do not count."""
    half = window.half
    block = [min(n, max(least, 2 * h)) for n, least, h in zip(levels.shape, BLOCK, half, strict=True)]
    tails = [-n % step for n, step in zip(levels.shape, block, strict=True)]
    padded = np.pad(levels, [(h, h + tail) for h, tail in zip(half, tails, strict=True)], constant_values=count)
    pixels = int(np.prod([n + 2 * h for n, h in zip(block, half, strict=True)]))
    narrow = window.area < 1 << 16 and half[2] < 128
    fine = np.zeros((3, pixels), np.uint8 if narrow else np.uint32)
    coarse = np.zeros((3, pixels), np.uint16 if narrow else np.uint32)
    table = entropy_terms(window.area).float().numpy()
    _run_blocks(padded, count, window.chords, window.is_box, table, tuple(block), fine, coarse, entropy)


@compiled
@no_type_check
def _run_blocks(padded, count, chords, is_box, table, block, fine, coarse, entropy):
    depth, rows, width = block
    sizes = (depth + chords.shape[0] - 1, rows + chords.shape[1] - 1, width + 2 * chords.max())
    levels = np.empty(sizes, padded.dtype)
    flat = levels.ravel()
    counts = np.zeros((depth, rows, sizes[2]), coarse.dtype)
    spread = np.zeros(counts.shape, np.float32)
    for z in range(0, entropy.shape[0], depth):
        for y in range(0, entropy.shape[1], rows):
            for x in range(0, entropy.shape[2], width):
                _cut_out(padded, z, y, x, levels)
                present = _present(flat)
                spread.fill(0)
                for value in range(count + 1):
                    if present[value]:
                        _mark(flat, value, fine[0])
                        if is_box:
                            _box_sum(fine, coarse, chords, sizes, counts)
                        else:
                            _ball_sum(fine, chords, sizes, counts)
                        if value < count:
                            _add_terms(counts.ravel(), table, spread.ravel())
                if not present[count]:
                    counts.fill(0)
                _finish(counts, spread, table, z, y, x, width, entropy)


@compiled
@no_type_check
def _cut_out(padded, z, y, x, levels):
    for i in range(levels.shape[0]):
        for j in range(levels.shape[1]):
            _copy(padded[z + i, y + j][x:], levels[i, j])


@compiled
@no_type_check
def _present(levels):
    """Mark the levels that occur."""
    found = np.zeros(256, np.bool_)
    for level in levels:
        found[level] = True
    return found


@compiled
@no_type_check
def _box_sum(fine, coarse, chords, sizes, counts):
    """Marked pixels (in ``fine[0]``) in the window of every pixel of a block; rows keep the halo at their end.

    Sums along the last axis, over rows, over planes; each shortens the valid part of the flat arrays.
    """
    plane = sizes[1] * sizes[2]
    valid = fine.shape[1] - 2 * chords.max()
    _run_sum(fine[0], fine[1], fine[2], 2 * chords.max() + 1, 1, valid)
    _copy(fine[2][:valid], coarse[0])
    for side, step in ((chords.shape[1], sizes[2]), (chords.shape[0], plane)):
        if side > 1:
            valid -= (side - 1) * step
            _run_sum(coarse[0], coarse[1], coarse[2], side, step, valid)
            _copy(coarse[2][:valid], coarse[0])
    for z in range(counts.shape[0]):
        _copy(coarse[0][z * plane : valid], counts[z].ravel())


@compiled
@no_type_check
def _run_sum(values, spare, total, length, step, size):
    """``total[i]``: sum of ``values[i + k * step]`` for ``k < length``, by sums of 1, 2, 4, ... Destroys the others."""
    begin, run = 0, 1
    while True:
        if length & run:
            part = values[begin * step : begin * step + size]
            if begin == 0:
                _copy(part, total)
            else:
                _add(part, total)
            begin += run
        if 2 * run > length:
            return
        rest = size + (length - 2 * run) * step
        _sum(values[:rest], values[run * step : run * step + rest], spare[:rest])
        values, spare = spare, values
        run *= 2


@compiled
@no_type_check
def _ball_sum(fine, chords, sizes, counts):
    """Runs along the last axis, one length after the other, added at all offsets that have it."""
    counts.fill(0)
    widest = chords.max()
    marks, valid = fine[0], fine.shape[1] - 2 * widest
    run = fine[1][:valid]
    _copy(marks[widest:], run)
    for half in range(widest + 1):
        if half > 0:
            _add_two(marks[widest - half :], marks[widest + half :], run)
        for k in range(chords.size // 2 + 1):
            if chords[k // chords.shape[1], k % chords.shape[1]] == half:
                _add_opposite(run, k, chords.shape, sizes, counts)


@compiled
@no_type_check
def _add_opposite(run, k, chords_shape, sizes, counts):
    """Add the runs at the k-th offset and at the point opposite to it."""
    last = chords_shape[0] * chords_shape[1] - 1 - k
    first_row = k // chords_shape[1] * sizes[1] + k % chords_shape[1]
    last_row = last // chords_shape[1] * sizes[1] + last % chords_shape[1]
    for z in range(counts.shape[0]):
        one = run[(z * sizes[1] + first_row) * sizes[2] :]
        two = run[(z * sizes[1] + last_row) * sizes[2] :]
        if last == k:
            _add(one, counts[z].ravel())
        else:
            _add_two(one, two, counts[z].ravel())


@compiled
@no_type_check
def _mark(levels, value, marks):
    for i in range(marks.size):
        marks[i] = levels[i] == value


@compiled
@no_type_check
def _copy(a, out):
    for i in range(min(a.size, out.size)):
        out[i] = a[i]


@compiled
@no_type_check
def _add(a, out):
    for i in range(min(a.size, out.size)):
        out[i] += a[i]


@compiled
@no_type_check
def _add_two(a, b, out):
    for i in range(min(b.size, out.size)):
        out[i] += out.dtype.type(a[i]) + out.dtype.type(b[i])


@compiled
@no_type_check
def _sum(a, b, out):
    for i in range(out.size):
        out[i] = a[i] + b[i]


@compiled
@no_type_check
def _add_terms(counts, table, spread):
    for i in range(spread.size):
        spread[i] += table[counts[i]]


@compiled
@no_type_check
def _finish(left_out, spread, table, z, y, x, width, entropy):
    """``log2 n - spread / n``, n the area but for the ``left_out``.

    Both terms come from one table, so a window of one bin gives exactly 0.
    """
    for i in range(min(left_out.shape[0], entropy.shape[0] - z)):
        for j in range(min(left_out.shape[1], entropy.shape[1] - y)):
            missing, terms, out = left_out[i, j], spread[i, j], entropy[z + i, y + j][x:]
            for k in range(min(width, out.size)):
                n = table.size - 1 - missing[k]
                out[k] = max(table[n] - terms[k], np.float32(0)) / np.float32(max(n, 1))
