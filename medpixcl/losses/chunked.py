"""The InfoNCE loss and its gradient, one block of anchors at a time, in memory linear in anchors and keys.

The full matrix of logits is never kept. For a scalar loss the gradient is made in the forward pass, while a block of
logits is at hand, so that three matrix products are the whole cost; per-anchor losses make theirs anew in backward.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

SHORTEST = 1e-12
"""A vector shorter than this has no direction: its cosine with everything is 0, and so is its gradient."""


@dataclass(frozen=True)
class Places:
    """Where positives and keys lie: which keys count for an anchor, and by how much its logits are shifted.

    Positions share one unit (cells or mm) with radius, window and 1 / slope; the shift is in units of the cosine.
    """

    anchor_positions: Float[Tensor, "n d"] | None = None
    key_positions: Float[Tensor, "m d"] | None = None
    anchor_images: Int[Tensor, " n"] | None = None
    key_images: Int[Tensor, " m"] | None = None
    exclusion_radius: float = 0.0
    window: int | None = None
    distance_slope: float = 0.0
    distance_cap: float = 0.0

    @property
    def biased(self) -> bool:
        """Whether distance shifts the logits."""
        return self.distance_slope != 0 and self.distance_cap != 0

    @property
    def active(self) -> bool:
        """Whether any position matters."""
        return self.biased or self.window is not None or self.exclusion_radius > 0

    def apply(self, logits: Float[Tensor, "r m"], targets: Int[Tensor, " r"], rows: slice, temperature: float) -> None:
        """Shift the logits of some anchors by distance and set those of keys that do not count to -inf, in place."""
        if not self.active:
            return
        same = self._same_image(rows)
        dropped = torch.zeros_like(logits, dtype=torch.bool)
        if self.biased or self.exclusion_radius > 0:
            distance = self._distance(rows)
            if self.biased:
                shift = (distance * self.distance_slope).clamp_(max=self.distance_cap).div_(temperature)
                logits += shift if same is None else shift.mul_(same)
            if self.exclusion_radius > 0:
                near = distance < self.exclusion_radius
                dropped |= near if same is None else near & same
        if self.window is not None:
            dropped |= self._outside_window(rows)
            if same is not None:
                dropped |= ~same
        logits.masked_fill_(dropped.scatter_(1, targets[:, None], False), -torch.inf)

    def _same_image(self, rows: slice) -> Bool[Tensor, "r m"] | None:
        if self.anchor_images is None or self.key_images is None:
            return None
        return self.anchor_images[rows, None] == self.key_images

    def _distance(self, rows: slice) -> Float[Tensor, "r m"]:
        assert self.anchor_positions is not None
        assert self.key_positions is not None
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(self.anchor_positions[rows], self.key_positions, compute_mode=exact)

    def _outside_window(self, rows: slice) -> Bool[Tensor, "r m"]:
        assert self.anchor_positions is not None
        assert self.key_positions is not None
        assert self.window is not None
        outside = torch.zeros((), dtype=torch.bool, device=self.key_positions.device)
        for centre, position in zip(self.anchor_positions[rows].T, self.key_positions.T, strict=True):
            offset = position - centre[:, None]
            outside = (offset < -self.window) | (offset >= self.window) | outside
        return outside


@dataclass(frozen=True)
class Setting:
    """How cosines become logits, and how many anchors are worked on at a time."""

    temperature: float
    clamp: bool
    chunk: int
    places: Places


class Result(NamedTuple):
    """Losses of all anchors and, where asked for, the gradient of their weighted sum."""

    losses: Float[Tensor, " n"]
    anchor_gradient: Float[Tensor, "n c"] | None
    key_gradient: Float[Tensor, "m c"] | None


def normalised(vectors: Float[Tensor, "n c"], dtype: torch.dtype) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n 1"]]:
    """Vectors of unit length, and the factors that made them so (0 for a vector without direction)."""
    vectors = vectors.to(dtype)
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    factor = torch.where(length > SHORTEST, 1 / length, 0)
    return vectors * factor, factor


def through_normalisation(
    gradient: Float[Tensor, "n c"], unit: Float[Tensor, "n c"], factor: Float[Tensor, "n 1"]
) -> Float[Tensor, "n c"]:
    """Gradient with respect to the vectors from that with respect to their unit vectors; changes it in place."""
    along = torch.linalg.vecdot(gradient, unit).unsqueeze(1)
    return gradient.addcmul_(along, unit, value=-1).mul_(factor)


def blocks(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size``."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def sweep(
    anchors: Float[Tensor, "n c"],
    keys: Float[Tensor, "m c"],
    targets: Int[Tensor, " n"],
    setting: Setting,
    *,
    weights: Float[Tensor, " n"] | None = None,
    wanted: tuple[bool, bool] = (False, False),
) -> Result:
    """Go once over the anchors, block by block.

    With ``l`` the logits of one anchor and ``e = exp(l - max l)``, its loss is ``max l - l_t + log sum e`` and its
    gradient with respect to ``l`` is ``e / sum e`` less 1 at the target.

    Args:
        anchors: Shape (N, C), any floating type.
        keys: Shape (M, C).
        targets: Shape (N,), index of each positive among the keys.
        setting: Temperature, clamp, block size, positions.
        weights: Shape (N,), factor of each anchor's loss in the gradient; 1 by default.
        wanted: Whether the gradient of the anchors, and of the keys, is wanted.
    """
    dtype = torch.promote_types(torch.promote_types(anchors.dtype, keys.dtype), torch.float32)
    unit_keys, key_factor = normalised(keys, dtype)
    losses = unit_keys.new_empty(len(anchors))
    anchor_gradient = torch.empty_like(anchors, dtype=dtype) if wanted[0] else None
    key_gradient = torch.zeros_like(unit_keys) if wanted[1] else None
    buffer = unit_keys.new_empty(min(setting.chunk, len(anchors)), len(keys))
    for rows in blocks(len(anchors), setting.chunk):
        unit, factor = normalised(anchors[rows], dtype)
        target, scaled = targets[rows, None], unit / setting.temperature
        logits = torch.mm(scaled, unit_keys.T, out=buffer[: len(unit)])
        losses[rows], inverse_sum = _exponentiate(logits, target, rows, setting, gradient=any(wanted))
        scale = inverse_sum if weights is None else inverse_sum * weights[rows, None]
        if anchor_gradient is not None:
            slope = torch.mm(logits, unit_keys).mul_(scale / setting.temperature)
            anchor_gradient[rows] = through_normalisation(slope, unit, factor)
        if key_gradient is not None:
            key_gradient.addmm_(logits.T, scaled.mul_(scale))
    if key_gradient is not None:
        through_normalisation(key_gradient, unit_keys, key_factor)
    return Result(losses, anchor_gradient, key_gradient)


def _exponentiate(
    logits: Tensor, target: Tensor, rows: slice, setting: Setting, *, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Losses (R,) of a block and 1 / sum e (R, 1); turns scaled cosines into ``sum e`` times the gradient, in place."""
    blocked = None
    if setting.clamp:
        upper = 1 / setting.temperature
        blocked = (logits < 0).logical_or_(logits > upper) if gradient else None
        logits.clamp_(0, upper)
    setting.places.apply(logits, target[:, 0], rows, setting.temperature)
    top = logits.amax(dim=1, keepdim=True)
    target_logit = logits.gather(1, target)
    logits.sub_(top).exp_()
    target_exp = logits.gather(1, target)
    # The target is left out of the sum: its gradient, minus the sum of the others, then keeps all its digits.
    rest = logits.scatter_(1, target, 0.0).sum(dim=1, keepdim=True)
    losses = (top - target_logit) + torch.log1p(rest + (target_exp - 1))
    if gradient:
        logits.scatter_(1, target, -rest)
        if blocked is not None:
            logits.masked_fill_(blocked, 0.0)
    return losses.squeeze(1), 1 / (rest + target_exp)


class SummedInfoNCE(torch.autograd.Function):
    """Sum of the losses of all anchors; the gradient is made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, keys: Tensor, targets: Tensor, setting: Setting, wanted: tuple[bool, bool]
    ) -> Tensor:
        """Sum of the losses; ``wanted`` says for which of anchors and keys a gradient will be asked."""
        with torch.autocast(anchors.device.type, enabled=False):
            result = sweep(anchors, keys, targets, setting, wanted=wanted)
        ctx.save_for_backward(result.anchor_gradient, result.key_gradient)
        ctx.dtypes = anchors.dtype, keys.dtype
        return result.losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients that the forward pass made."""
        gradients = [
            None if saved is None else (saved * outer).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *gradients, None, None, None


class AnchorInfoNCE(torch.autograd.Function):
    """Loss of every anchor; the gradient is made in backward, where the weight of each anchor is known."""

    @staticmethod
    def forward(ctx: Any, anchors: Tensor, keys: Tensor, targets: Tensor, setting: Setting) -> Tensor:
        """Losses, shape (N,)."""
        ctx.save_for_backward(anchors, keys, targets)
        ctx.setting = setting
        with torch.autocast(anchors.device.type, enabled=False):
            return sweep(anchors, keys, targets, setting).losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Go over the anchors again, with the weight of each."""
        anchors, keys, targets = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:2]
        with torch.autocast(anchors.device.type, enabled=False):
            result = sweep(anchors, keys, targets, ctx.setting, weights=outer, wanted=wanted)
        gradients = [
            None if gradient is None else gradient.to(like.dtype)
            for gradient, like in ((result.anchor_gradient, anchors), (result.key_gradient, keys))
        ]
        return *gradients, None, None
