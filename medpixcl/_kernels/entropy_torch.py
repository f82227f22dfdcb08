"""Entropy of the bin numbers in a window around every pixel, in plain torch operations on any device.

One bin after the other: indicator, sum over the window, ``c log2 c`` added up. Sums of whole numbers are exact, and
strips of the first axis keep the working set in the cache of a CPU.
"""

import math

import torch
from jaxtyping import Float, Float32, Integer, UInt8
from torch import Tensor
from torch.nn import functional as F

from medpixcl._kernels.window import Window, entropy_terms

STRIP_PIXELS = {"cpu": 1 << 18, "other": 1 << 26}
"""Pixels of one strip: a few arrays of this size fit in the cache of a core, or keep a GPU busy."""

FEW_BINS = 128
"""Up to this number of bins the sum over bins is exact enough in float32 (1e-5 bits in windows of 65536 pixels)."""


def window_entropy(bins: Integer[Tensor, "*s"], count: int, window: Window, out: Float32[Tensor, "*s"]) -> None:
    """Shannon entropy in bits of the bin numbers in a window, clipped at the borders.

    Args:
        bins: Bin number of every pixel; ``count`` marks a pixel that does not count.
        count: Number of bins.
        window: Neighbourhood of a pixel.
        out: Tensor that receives the entropy; 0 where nothing counts.
    """
    padded = F.pad(bins, [pad for h in reversed(window.half) for pad in (h, h)], value=count)
    table = entropy_terms(window.area).to(torch.float32 if count <= FEW_BINS else torch.float64).to(bins.device)
    limit = STRIP_PIXELS["cpu" if bins.device.type == "cpu" else "other"]
    rows = max(1, limit // max(1, math.prod(padded.shape[1:])))
    for start in range(0, bins.shape[0], rows):
        strip = out[start : start + rows]
        halo = 2 * window.half[0]
        strip.copy_(_strip_entropy(padded[start : start + len(strip) + halo], count, window, table).view(strip.shape))


def _strip_entropy(
    padded: Integer[Tensor, "*p"], count: int, window: Window, table: Float[Tensor, " n"]
) -> Float[Tensor, " m"]:
    """Entropy over the part of a padded strip that has its whole window inside, flattened."""
    marks = torch.empty(padded.shape, dtype=torch.uint8, device=padded.device)
    population = _window_sum(torch.ne(padded, count, out=marks), window).flatten().int()
    spread = table.new_zeros(population.shape)
    for value in torch.bincount(padded.flatten(), minlength=count)[:count].nonzero().flatten().tolist():
        counts = _window_sum(torch.eq(padded, value, out=marks), window)
        spread += table.index_select(0, counts.flatten().int())
    # Both terms come from one table, so a window of one bin gives exactly 0.
    return table.index_select(0, population).sub_(spread).div_(population.clamp_(min=1)).clamp_(min=0)


def _window_sum(marks: UInt8[Tensor, "*p"], window: Window) -> Integer[Tensor, "*s"]:
    """Number of marked pixels in the window; the result is shorter than the input by the halo."""
    wide = torch.int16 if window.area < 1 << 15 else torch.int32
    values = marks if window.half[-1] < 128 else marks.to(wide)
    if not window.is_box:
        return _chord_sum(values, window, wide)
    values = _run_sum(values, values.ndim - 1, 2 * window.half[-1] + 1).to(wide)
    for axis, side in enumerate(window.chords.shape):
        values = _run_sum(values, axis, side)
    return values


def _run_sum(values: Integer[Tensor, "*p"], axis: int, length: int) -> Integer[Tensor, "*q"]:
    """Sums of ``length`` neighbours along an axis, by sums of 1, 2, 4, ... neighbours."""
    size = values.shape[axis] - length + 1
    total, begin, run = None, 0, 1
    while True:
        if length & run:
            part = values.narrow(axis, begin, size)
            total = part if total is None else total + part
            begin += run
        if 2 * run > length:
            return values if total is None else total
        rest = values.shape[axis] - run
        values = values.narrow(axis, 0, rest) + values.narrow(axis, run, rest)
        run *= 2


def _chord_sum(values: Integer[Tensor, "*p"], window: Window, wide: torch.dtype) -> Integer[Tensor, "*s"]:
    """Sums over any window: runs along the last axis, one length after the other, added over their offsets."""
    widest = window.half[-1]
    shape = [n - 2 * h for n, h in zip(values.shape, window.half, strict=True)]
    total = torch.zeros(shape, dtype=wide, device=values.device)
    run = values.narrow(-1, widest, shape[-1])
    for half, corners in enumerate(window.corners):
        if half:
            run = run + values.narrow(-1, widest - half, shape[-1])
            run += values.narrow(-1, widest + half, shape[-1])
        for corner in corners:
            total += run[tuple(slice(begin, begin + n) for begin, n in zip(corner, shape[:-1], strict=True))]
    return total
