"""Entropy of the bin numbers in a window round every pixel, in plain torch operations on any device.

One bin after the other: indicator, sum over the window, ``c log2 c`` added up. Integer sums are exact, and strips of
the first axis keep the working set in the cache of a CPU.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

STRIP_ELEMENTS = {"cpu": 1 << 18, "other": 1 << 26}
"""Pixels of one strip: a few arrays of that size fit in a core's cache, or keep a GPU busy."""


def window_entropy(bins: Int[Tensor, "*s"], count: int, chords: Int[Tensor, "*w"]) -> Float[Tensor, "*s"]:
    """Shannon entropy in bits of the bin numbers in a window, clipped at the borders.

    Args:
        bins: Bin number of every pixel; ``count`` marks a pixel that does not count.
        count: Number of bins.
        chords: The window, symmetric, with one axis less than ``bins``: its half length along the last axis for every
            offset along the other axes (the middle is offset 0), -1 where the window is empty.

    Returns:
        float32; 0 at pixels that do not count.
    """
    half = [(n - 1) // 2 for n in chords.shape] + [int(chords.max())]
    padded = F.pad(bins, [pad for h in reversed(half) for pad in (h, h)], value=count)
    entropy = torch.empty(bins.shape, dtype=torch.float32, device=bins.device)
    limit = STRIP_ELEMENTS["cpu" if bins.device.type == "cpu" else "other"]
    rows = max(1, limit // max(1, math.prod(padded.shape[1:])))
    for start in range(0, bins.shape[0], rows):
        stop = min(start + rows, bins.shape[0])
        entropy[start:stop] = _strip_entropy(padded[start : stop + 2 * half[0]], count, chords)
    return entropy.masked_fill_(bins == count, 0.0)


def _strip_entropy(padded: Int[Tensor, "*p"], count: int, chords: Int[Tensor, "*w"]) -> Float[Tensor, "*s"]:
    """Entropy over the valid part of a padded strip."""
    area = int((2 * chords + 1).clamp(min=0).sum())
    dtype = torch.int16 if area < 1 << 15 else torch.int32
    box = bool((chords == chords.flatten()[0]).all())
    sides = [*chords.shape, 2 * int(chords.max()) + 1]

    def window_sum(inside: Tensor) -> Tensor:
        return _box_sum(inside.to(dtype), sides) if box else _chord_sum(inside.to(dtype), chords)

    population = window_sum(padded != count).to(torch.float32).clamp_(min=1)
    spread = torch.zeros_like(population)
    for value in padded.unique().tolist():
        if value != count:
            counts = window_sum(padded == value).to(torch.float32)
            spread += torch.xlogy(counts, counts)
    return (population.log() - spread / population).mul_(1 / math.log(2)).clamp_(min=0)


def _box_sum(values: Int[Tensor, "*p"], sides: list[int]) -> Int[Tensor, "*s"]:
    """Sums over a box, axis by axis; the result is shorter by side - 1."""
    for axis, side in enumerate(sides):
        values = _run_sum(values, axis, side)
    return values


def _run_sum(values: Int[Tensor, "*p"], axis: int, length: int) -> Int[Tensor, "*q"]:
    """Sums of ``length`` neighbours along an axis by doubling: log2(length) additions, none of them dependent."""
    size = values.shape[axis] - length + 1
    total, begin, run = None, 0, 1
    while True:
        if length & run:
            part = values.narrow(axis, begin, size)
            total = part if total is None else total + part
            begin += run
        if 2 * run > length:
            return values if total is None else total
        values = values.narrow(axis, 0, values.shape[axis] - run) + values.narrow(axis, run, values.shape[axis] - run)
        run *= 2


def _chord_sum(values: Int[Tensor, "*p"], chords: Int[Tensor, "*w"]) -> Int[Tensor, "*s"]:
    """Sums over any symmetric window: runs along the last axis, one length after the other, added over the offsets."""
    widest = int(chords.max())
    shape = [n - w + 1 for n, w in zip(values.shape, [*chords.shape, 2 * widest + 1], strict=True)]
    total = values.new_zeros(shape)
    run = values[..., widest : widest + shape[-1]]
    for half in range(widest + 1):
        if half:
            run = run + values[..., widest - half :][..., : shape[-1]] + values[..., widest + half :][..., : shape[-1]]
        for offset in _offsets(chords, half):
            total += run[tuple(slice(o, o + n) for o, n in zip(offset, shape[:-1], strict=True))]
    return total


def _offsets(chords: Int[Tensor, "*w"], half: int) -> Iterator[list[int]]:
    """Offsets, counted from the corner of the window, where it has this half length."""
    yield from (chords == half).nonzero().tolist()
