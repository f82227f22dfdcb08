"""The InfoNCE loss and its gradient, one block of anchors at a time, in memory linear in anchors and keys.

The full matrix of logits is never kept. For a scalar loss the forward pass also computes the gradient, while a block
of logits is at hand, so the whole cost is three matrix products; per-anchor losses compute it anew in backward.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from medpixcl.losses.negatives import Negatives

SHORTEST = 1e-12
"""Length up to which a vector has no direction: its cosine with every vector is 0, and so is its gradient."""

LOGITS_AT_ONCE = 2**22
"""Largest number of logits in memory (16 MiB in float32), unless that leaves fewer than ``FEWEST`` anchors."""

FEWEST = 64
"""Smallest number of anchors worked on at a time."""


@dataclass(frozen=True)
class Setting:
    """Settings for turning cosines into logits, and the number of anchors per block.

    Attributes:
        temperature: Number that divides the cosine.
        clamp: Whether the cosine is clamped to [0, 1].
        chunk: Largest number of anchors worked on at a time.
        negatives: Rules that choose the negatives of an anchor.
    """

    temperature: float
    clamp: bool
    chunk: int
    negatives: Negatives

    def block_size(self, keys: int) -> int:
        """Number of anchors worked on at a time, against so many keys."""
        return min(self.chunk, max(FEWEST, LOGITS_AT_ONCE // max(keys, 1)))


class Result(NamedTuple):
    """Losses of all anchors and, where asked for, the gradient of their weighted sum."""

    losses: Float[Tensor, " n"]
    anchor_gradient: Float[Tensor, "n c"] | None
    key_gradient: Float[Tensor, "m c"] | None


def sweep(
    anchors: Float[Tensor, "n c"],
    keys: Float[Tensor, "m c"],
    targets: Int[Tensor, " n"],
    setting: Setting,
    *,
    weights: Float[Tensor, " n"] | None = None,
    wanted: tuple[bool, bool] = (False, False),
) -> Result:
    """Go once over the anchors, block by block, in float32 or wider.

    With ``l`` the logits of one anchor and ``e = exp(l - max l)``, its loss is ``max l - l_t + log sum e`` and its
    gradient with respect to ``l`` is ``e / sum e``, less 1 at the target t.

    Args:
        anchors: Vectors of the anchors, shape (N, C), any floating type.
        keys: Vectors of the keys, shape (M, C).
        targets: Index of each anchor's positive among the keys, shape (N,).
        setting: Temperature, clamp, block size, negatives.
        weights: Factor of each anchor's loss in the gradient, shape (N,); 1 by default.
        wanted: Whether the gradient of the anchors, and that of the keys, is computed.
    """
    dtype = torch.promote_types(torch.promote_types(anchors.dtype, keys.dtype), torch.float32)
    unit_keys, factor = _normalised(keys.to(dtype))
    result = Result(
        losses=unit_keys.new_empty(len(anchors)),
        anchor_gradient=torch.empty_like(anchors, dtype=dtype) if wanted[0] else None,
        key_gradient=torch.zeros_like(unit_keys) if wanted[1] else None,
    )
    _fill(result, anchors, unit_keys, targets, setting, weights)
    if result.key_gradient is not None:
        _through_normalisation(result.key_gradient, unit_keys, factor)
    return result


def _fill(
    result: Result, anchors: Tensor, unit_keys: Tensor, targets: Tensor, setting: Setting, weights: Tensor | None
) -> None:
    """Write losses and gradients block by block; that of the keys is left with respect to the unit vectors."""
    wanted = result.anchor_gradient is not None or result.key_gradient is not None
    size = setting.block_size(len(unit_keys))
    buffer = unit_keys.new_empty(min(size, len(anchors)), len(unit_keys))
    for start in range(0, len(anchors), size):
        rows = slice(start, min(start + size, len(anchors)))
        unit, factor = _normalised(anchors[rows].to(unit_keys))
        scaled = unit / setting.temperature
        logits = torch.mm(scaled, unit_keys.T, out=buffer[: len(unit)])
        result.losses[rows], scale = _exponentiate(logits, targets[rows, None], setting, wanted=wanted)
        if weights is not None:
            scale *= weights[rows, None]
        if result.anchor_gradient is not None:
            gradient = torch.mm(logits, unit_keys).mul_(scale / setting.temperature)
            result.anchor_gradient[rows] = _through_normalisation(gradient, unit, factor)
        if result.key_gradient is not None:
            result.key_gradient.addmm_(logits.T, scaled.mul_(scale))


def _exponentiate(logits: Tensor, target: Tensor, setting: Setting, *, wanted: bool) -> tuple[Tensor, Tensor]:
    """Turn scaled cosines (R, M), in place, into the gradient of the losses with respect to them times ``sum e``.

    Returns:
        Losses (R,) and ``1 / sum e`` (R, 1).
    """
    passing = None
    if setting.clamp:
        # A cosine is above 1 by rounding only.
        passing = logits >= 0 if wanted else None
        logits.clamp_(0, 1 / setting.temperature)
    setting.negatives.apply(logits, target, setting.temperature)
    top = logits.amax(dim=1, keepdim=True)
    target_logit = logits.gather(1, target)
    target_exp = (target_logit - top).exp_()
    # The sum leaves the target out: its gradient, minus the sum of the others, then keeps all its digits.
    rest = logits.sub_(top).exp_().scatter_(1, target, 0.0).sum(dim=1, keepdim=True)
    losses = top - target_logit + torch.log1p(rest + (target_exp - 1))
    logits.scatter_(1, target, -rest)
    if passing is not None:
        # Five times as fast as masked_fill_ where signs alternate.
        logits.mul_(passing)
    return losses.squeeze(1), 1 / (rest + target_exp)


def _normalised(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (N, C) of unit length, and the factors (N, 1) that made them so, 0 for one without direction."""
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    factor = torch.where(length > SHORTEST, 1 / length, 0)
    return vectors * factor, factor


def _through_normalisation(gradient: Tensor, unit: Tensor, factor: Tensor) -> Tensor:
    """Gradient with respect to the vectors from that with respect to their unit vectors, in place."""
    along = torch.linalg.vecdot(gradient, unit).unsqueeze(1)
    return gradient.addcmul_(along, unit, value=-1).mul_(factor)


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
        wanted = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        with torch.autocast(anchors.device.type, enabled=False):
            result = sweep(anchors, keys, targets, ctx.setting, weights=outer, wanted=wanted)
        gradients = [
            None if gradient is None else gradient.to(like.dtype)
            for gradient, like in ((result.anchor_gradient, anchors), (result.key_gradient, keys))
        ]
        return *gradients, None, None
