"""Pixel InfoNCE: each anchor must find its positive among all keys."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medpixcl.losses.chunked import AnchorInfoNCE, Places, Setting, SummedInfoNCE


def pixel_info_nce(
    anchors: Float[Tensor, "n c"],
    keys: Float[Tensor, "m c"],
    targets: Int[Tensor, " n"],
    *,
    temperature: float = 0.07,
    anchor_positions: Float[Tensor, "n d"] | None = None,
    key_positions: Float[Tensor, "m d"] | None = None,
    anchor_images: Int[Tensor, " n"] | None = None,
    key_images: Int[Tensor, " m"] | None = None,
    exclusion_radius: float = 0.0,
    window: int | None = None,
    distance_slope: float = 0.0,
    distance_cap: float = 0.0,
    clamp: bool = False,
    valid: Bool[Tensor, " n"] | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    chunk: int = 512,
) -> Tensor:
    """InfoNCE of anchors against keys, in memory linear in their number.

    The loss of an anchor with positive ``t`` is ``-log(exp(l_t) / sum_j exp(l_j))`` over the keys ``j`` that count,
    with ``l_j = (cosine_j + min(slope * d_j, cap)) / temperature`` and ``d_j`` the Euclidean distance between key j
    and the place of the anchor's positive; keys of other images get no shift. The positive always counts.

    CC2D is ``clamp=True, temperature=1`` with a window or all cells of the image as keys. CC2D v2 is
    ``temperature=0.1, distance_slope=0.07, distance_cap=0.8`` with positions in cells.

    Args:
        anchors: Query vectors, shape (N, C); they are normalised here.
        keys: Candidate vectors, shape (M, C); they are normalised here.
        targets: Shape (N,), index of each anchor's positive among the keys.
        temperature: Divides the cosine.
        anchor_positions: Shape (N, D), where each anchor's positive lies, in the unit of radius and window (cells or
            mm); by default at the key that is its target.
        key_positions: Shape (M, D), where each key lies, in the same unit and axis order.
        anchor_images: Shape (N,), image number of each anchor's positive; by default that of its target. Window,
            shift and exclusion act within one image only.
        key_images: Shape (M,), image number of each key; without it, all keys are of one image.
        exclusion_radius: Keys of the same image that are nearer than this to the positive are no negatives.
        window: Only keys of the same image whose offset from the positive is in ``[-window, window)`` along every
            axis count.
        distance_slope: Growth of the shift with distance, in cosine per unit of position.
        distance_cap: Largest shift, in units of the cosine.
        clamp: Clamp the cosine to [0, 1].
        valid: Shape (N,), anchors that count; all by default. The others may hold anything.
        reduction: ``"mean"`` over the anchors that count (exactly 0 when there are none), ``"sum"``, or ``"none"``
            (shape (N,), 0 where not valid; its gradient costs one more matrix product).
        chunk: Number of anchors worked on at a time.

    Returns:
        The loss in float32 (float64 for inputs in float64), with a gradient for anchors and keys.

    Raises:
        ValueError: If shapes do not fit, the temperature is not positive, or positions are missing.

    References:
        arXiv 2103.04527 (CC2D), arXiv 2203.01687 (distance shift of CC2D v2).

    Example:
        >>> pixel_info_nce(torch.eye(3), torch.eye(3), torch.arange(3), temperature=1.0)
        tensor(0.5514)
    """
    if valid is not None:
        chosen = valid.nonzero().squeeze(1)
        anchors, targets = anchors[chosen], targets[chosen]
        anchor_positions = None if anchor_positions is None else anchor_positions[chosen]
        anchor_images = None if anchor_images is None else anchor_images[chosen]
    if key_positions is not None and anchor_positions is None:
        anchor_positions = key_positions[targets]
    if key_images is not None and anchor_images is None:
        anchor_images = key_images[targets]
    places = Places(
        anchor_positions=anchor_positions,
        key_positions=key_positions,
        anchor_images=anchor_images,
        key_images=key_images,
        exclusion_radius=exclusion_radius,
        window=window,
        distance_slope=distance_slope,
        distance_cap=distance_cap,
    )
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it divides the cosine and must be greater than 0.")
    setting = Setting(temperature, clamp, chunk, places)
    if reduction == "none":
        losses = AnchorInfoNCE.apply(anchors, keys, targets, setting)
        return losses if valid is None else losses.new_zeros(len(valid)).index_put((chosen,), losses)
    wanted = tuple(torch.is_grad_enabled() and vectors.requires_grad for vectors in (anchors, keys))
    total = SummedInfoNCE.apply(anchors, keys, targets, setting, wanted)
    return total / max(len(anchors), 1) if reduction == "mean" else total
