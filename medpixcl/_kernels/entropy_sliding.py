"""Entropy with one histogram that slides along the last axis: the cost does not grow with the number of bins.

The sum of ``c log2 c`` follows every pixel that enters or leaves, in fixed-point numbers, so it is free of drift.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int16, Int64, Integer

from medpixcl._kernels.compiled import compiled
from medpixcl._kernels.window import Window, entropy_terms

FRACTION_BITS = 32
"""Fraction bits of the fixed-point ``c log2 c``: windows of up to 2^26 pixels fit in 63 bits."""

SLAB_ROWS = 256
"""Rows padded at a time: a second copy of the whole image would be half as large as the map."""


def entropy_by_sliding(
    levels: Integer[np.ndarray, "d h w"], count: int, window: Window, entropy: Float32[np.ndarray, "d h w"]
) -> None:
    """Fill ``entropy``; pixels of level ``count`` do not count."""
    terms = (entropy_terms(window.area) * 2.0**FRACTION_BITS).round().long().numpy()
    for begin in range(0, levels.shape[1], SLAB_ROWS):
        slab = entropy[:, begin : begin + SLAB_ROWS]
        padded = _pad_rows(levels, begin, begin + slab.shape[1], window.half, count)
        enter, leave = _rim(window, padded.shape)
        _run_rows(padded, count, window.chords, enter, leave, terms, np.diff(terms), slab)


def _pad_rows(
    levels: Integer[np.ndarray, "d h w"], begin: int, end: int, half: list[int], count: int
) -> Int16[np.ndarray, "p q r"]:
    """Cut out some rows with the halo around them."""
    first, last = max(begin - half[1], 0), min(end + half[1], levels.shape[1])
    outside = (first - (begin - half[1]), end + half[1] - last)
    widths = [(half[0], half[0]), outside, (half[2], half[2])]
    return np.pad(levels[:, first:last].astype(np.int16), widths, constant_values=count)


def _rim(window: Window, shape: tuple[int, ...]) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Flat offsets, from the corner of the window, of the pixels that enter and that left when it moved by one."""
    plane, row = np.nonzero(window.chords >= 0)
    middle = (plane * shape[1] + row) * shape[2] + window.half[2]
    half = window.chords[plane, row]
    return middle + half, middle - half - 1


@compiled
@no_type_check
def _run_rows(padded, count, chords, enter, leave, terms, steps, entropy):
    depth, rows, columns = entropy.shape
    flat = padded.ravel()
    histogram = np.zeros(count + 1, np.int64)
    for z in range(depth):
        for y in range(rows):
            begin = (z * padded.shape[1] + y) * padded.shape[2]
            histogram[:] = 0
            _count_window(padded[z:, y:], chords, histogram)
            total = 0
            for number in histogram:
                total += terms[number]
            entropy[z, y, 0] = _entropy(histogram[count], total, terms)
            for x in range(1, columns):
                total = _slide(flat[begin + x - 1 :], enter, leave, histogram, total, steps)
                entropy[z, y, x] = _entropy(histogram[count], total, terms)


@compiled
@no_type_check
def _count_window(padded, chords, histogram):
    """Histogram of the first window of a row."""
    widest = chords.max()
    for z in range(chords.shape[0]):
        for y in range(chords.shape[1]):
            for x in range(widest - chords[z, y], widest + chords[z, y] + 1):
                histogram[padded[z, y, x]] += 1


@compiled
@no_type_check
def _slide(flat, enter, leave, histogram, total, steps):
    """Move the window by one pixel; ``flat`` begins one pixel before the corner, so that nothing counts from the end.

    Pixels of the same level that enter and leave on one chord cancel.
    """
    for k in range(enter.size):
        new = np.uint64(flat[np.uint64(enter[k] + 1)])
        old = np.uint64(flat[np.uint64(leave[k] + 1)])
        if new != old:
            number = histogram[new]
            total += steps[np.uint64(number)]
            histogram[new] = number + 1
            number = histogram[old] - 1
            total -= steps[np.uint64(number)]
            histogram[old] = number
    return total


@compiled
@no_type_check
def _entropy(left_out, total, terms):
    """``log2 n - (1/n) sum c log2 c``, without the pixels that do not count."""
    population = terms.size - 1 - left_out
    if population == 0:
        return np.float32(0)
    spread = total - terms[left_out]
    return np.float32(max(terms[population] - spread, 0) / (population * 2.0**FRACTION_BITS))
