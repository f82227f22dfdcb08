"""The keys that are negatives of an anchor, and the shift of their logits by distance."""

from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Negatives:
    """Rules by position, applied to one block of anchors at a time so that no anchors-by-keys matrix is kept.

    Positions are all in one unit (cells or mm), the same as that of radius, window and 1 / slope; the shift is in
    units of the cosine. Every rule acts within one image; without image numbers, all keys are of one image.

    Attributes:
        key_positions: Position of each key, shape (M, D); the position of an anchor is that of its positive.
        key_images: Image number of each key, shape (M,).
        exclusion_radius: Distance from the positive below which keys do not count.
        window: Count only keys whose offset from the positive is in ``[-window, window)`` along every axis.
        distance_slope: Growth of the shift with distance from the positive.
        distance_cap: Maximum shift of the cosine.
    """

    key_positions: Float[Tensor, "m d"] | None = None
    key_images: Int[Tensor, " m"] | None = None
    exclusion_radius: float = 0.0
    window: int | None = None
    distance_slope: float = 0.0
    distance_cap: float = 0.0

    @property
    def active(self) -> bool:
        """Whether any rule is set."""
        return self.window is not None or self.exclusion_radius > 0 or self.distance_slope > 0

    def check(self) -> None:
        """Raise ValueError where the rules make no sense."""
        if self.active and self.key_positions is None:
            raise ValueError("window, exclusion_radius and distance_slope need positions; give key_positions.")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window is {self.window}; it must be at least 1, or None for all keys.")
        if min(self.exclusion_radius, self.distance_slope, self.distance_cap) < 0:
            raise ValueError("exclusion_radius, distance_slope and distance_cap must not be negative.")
        if self.distance_slope > 0 and self.distance_cap == 0:
            raise ValueError("distance_cap is 0, so distance_slope would change nothing; give a cap, such as 0.8.")

    def apply(self, logits: Float[Tensor, "r m"], targets: Int[Tensor, "r 1"], temperature: float) -> None:
        """Shift the logits of a block of anchors, and set those of keys that do not count to -inf; in place.

        Args:
            logits: Logits of the anchors of the block, shape (R, M).
            targets: Index of the positive, which always counts, shape (R, 1).
            temperature: Number that divides the shift.
        """
        if not self.active or self.key_positions is None:
            return
        positions, own = self.key_positions.to(logits), targets.squeeze(1)
        centres = positions[own]
        elsewhere = None if self.key_images is None else self.key_images[own, None] != self.key_images
        dropped = torch.zeros_like(logits, dtype=torch.bool)
        if self.exclusion_radius > 0 or self.distance_slope > 0:
            distance = torch.cdist(centres, positions, compute_mode="donot_use_mm_for_euclid_dist")
            if self.exclusion_radius > 0:
                dropped = _within_image(elsewhere, distance < self.exclusion_radius)
            if self.distance_slope > 0:
                shift = distance.mul_(self.distance_slope).clamp_(max=self.distance_cap)
                logits.add_(_within_image(elsewhere, shift), alpha=1 / temperature)
        if self.window is not None:
            dropped |= _outside(self.window, centres, positions)
            if elsewhere is not None:
                dropped |= elsewhere
        logits.masked_fill_(dropped.scatter_(1, targets, False), -torch.inf)


def _within_image(elsewhere: Bool[Tensor, "r m"] | None, values: Shaped[Tensor, "r m"]) -> Shaped[Tensor, "r m"]:
    """``values``, set to 0 in place where anchor and key are of different images."""
    return values if elsewhere is None else values.masked_fill_(elsewhere, 0)


def _outside(window: int, centres: Float[Tensor, "r d"], positions: Float[Tensor, "m d"]) -> Bool[Tensor, "r m"]:
    """True where the offset of a position from a centre is not in ``[-window, window)`` along some axis."""
    beyond = [
        condition
        for centre, position in zip(centres.unsqueeze(2).unbind(1), positions.unbind(1), strict=True)
        for condition in (position < centre - window, position >= centre + window)
    ]
    return reduce(Tensor.logical_or_, beyond)
