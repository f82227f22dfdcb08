"""A neighbourhood of a pixel on the grid: ball or box, any spacing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """Point-symmetric neighbourhood, given by its chords along the last axis.

    Attributes:
        chords: Half length of the chord along the last axis at every offset along the other axes (one axis less than
            the image; the middle is offset 0), -1 where there is none. A chord of half length h has 2 h + 1 pixels.
    """

    chords: Int[np.ndarray, "*w"]

    @cached_property
    def half(self) -> list[int]:
        """Half lengths of the box around the window, one per axis."""
        return [(n - 1) // 2 for n in self.chords.shape] + [int(self.chords.max())]

    @cached_property
    def area(self) -> int:
        """Number of pixels."""
        return int((2 * self.chords + 1).clip(min=0).sum())

    @cached_property
    def is_box(self) -> bool:
        """True if all chords are equal."""
        return bool((self.chords == self.chords.flat[0]).all())

    @cached_property
    def corners(self) -> list[list[list[int]]]:
        """For every half length from 0 to the widest, the offsets of its chords counted from the window's corner."""
        return [np.argwhere(self.chords == half).tolist() for half in range(self.half[-1] + 1)]


def box_window(half: Sequence[int]) -> Window:
    """All offsets up to ``half`` along each axis.

    Example:
        >>> box_window([1, 2]).chords
        array([2, 2, 2])
    """
    return Window(np.full([2 * h + 1 for h in half[:-1]], half[-1], dtype=np.int64))


def ball_window(radius: float, spacing: Sequence[float], limit: Sequence[int]) -> Window:
    """All offsets o with ``|o * spacing| <= radius``, cut off beyond ``limit`` pixels along each axis.

    Example:
        >>> ball_window(2.0, [1.0, 1.0], [9, 9]).chords
        array([0, 1, 2, 1, 0])
    """
    half = [min(int(radius / step), most) for step, most in zip(spacing, limit, strict=True)]
    lines = [np.arange(-h, h + 1) * step for h, step in zip(half[:-1], spacing, strict=False)]
    rest = radius**2 - sum(line**2 for line in np.meshgrid(*lines, indexing="ij"))
    chords = np.floor(np.sqrt(rest.clip(min=0)) / spacing[-1]).astype(np.int64)
    return Window(np.where(rest < 0, -1, chords.clip(max=half[-1])))


def entropy_terms(area: int) -> Float[Tensor, " n"]:
    """``c log2 c`` for c from 0 to ``area``, float64.

    Example:
        >>> entropy_terms(2)
        tensor([0., 0., 2.], dtype=torch.float64)
    """
    number = torch.arange(area + 1, dtype=torch.float64)
    return torch.xlogy(number, number).div_(math.log(2))
