"""Informativeness of pixels: entropy of the grey levels around them, classes, and weights for drawing pixels.

Reference: Quan et al., "IGU-Aug: Information-guided unsupervised augmentation and pixel-wise contrastive learning for
medical image analysis", arXiv 2211.07118, IEEE TMI 44(1), 2025.
"""

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from medpixcl._kernels import entropy_torch
from medpixcl._kernels.window import Window, ball_window, box_window
from medpixcl._typing import Number

PART_PIXELS = 1 << 18
"""Pixels binned at a time, so that the steps between stay in cache."""


def local_entropy(
    image: Float[Tensor, "b 1 *s"],
    *,
    radius: Number = 10,
    footprint: Literal["ball", "box"] = "ball",
    spacing: Sequence[Number] | None = None,
    bins: int = 32,
    value_range: Sequence[Number] | None = None,
    mask: Bool[Tensor, "b 1 *s"] | None = None,
    backend: Literal["auto", "numba", "torch"] = "auto",
) -> Float[Tensor, "b 1 *s"]:
    """Shannon entropy of the grey levels in a window around every pixel, in bits.

    ``H = log2 n - (1/n) sum_g c_g log2 c_g`` with ``c_g`` the number of window pixels in bin ``g`` and ``n`` their sum.
    The window is clipped at the borders of the image: only pixels inside the image, and inside ``mask``, count.

    Args:
        image: Images of one channel, shape (B, 1, H, W) or (B, 1, D, H, W).
        radius: Radius of the window, in pixels, or in mm if ``spacing`` is given.
        footprint: ``ball``: offsets o with ``|o| <= radius`` (a disk in 2D); ``box``: offsets with every ``|o_i| <=
            radius``.
        spacing: Size of a pixel along each array axis in mm.
        bins: Number of grey levels: ``floor((v - low) / (high - low) * bins)``, clipped.
        value_range: (low, high), or None for the least and greatest value of each image (inside its mask). With
            ``(0, 255)`` and 256 bins the levels of 8-bit data are its values.
        mask: True where a pixel counts; elsewhere the entropy is 0.
        backend: ``numba`` for compiled loops on a CPU, ``torch`` for any device, ``auto`` for the fastest there is.

    Returns:
        Plain float32 tensor, shape of ``image``; exactly 0 for a constant window, at most ``log2(bins)``.

    Raises:
        ValueError: If an argument is out of range, or a pixel that counts is not finite.

    Reference: arXiv 2211.07118, equation of the image-information entropy (IIE).

    Example:
        >>> stripes = torch.tensor([0.0, 1.0]).repeat(4).expand(1, 1, 8, 8)
        >>> local_entropy(stripes, radius=1, footprint="box")[0, 0, 4, :4]
        tensor([1.0000, 0.9183, 0.9183, 0.9183])
    """
    _check(image, bins, value_range, mask)
    window = _window(radius, footprint, spacing, image.shape[2:])
    window_entropy = _kernel(backend, image.device)
    picture = image.detach().as_subclass(Tensor)  # a MetaTensor would slow down every operation
    counted = None if mask is None else mask.as_subclass(Tensor)
    entropy = torch.empty(image.shape, dtype=torch.float32, device=image.device)
    for index in range(image.shape[0]):
        levels = _grey_levels(picture[index, 0], bins, value_range, None if counted is None else counted[index, 0])
        window_entropy(levels, bins, window, entropy[index, 0])
    return entropy if counted is None else entropy.masked_fill_(~counted, 0.0)


def _check(image: Tensor, bins: int, value_range: Sequence[Number] | None, mask: Tensor | None) -> None:
    """Refuse arguments that do not fit together."""
    if image.ndim not in (4, 5) or image.shape[1] != 1:
        raise ValueError(f"image has shape {tuple(image.shape)}; expected (B, 1, H, W) or (B, 1, D, H, W).")
    if mask is not None and mask.shape != image.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}; expected that of the image, {tuple(image.shape)}.")
    if not 1 <= bins < 1 << 15:
        raise ValueError(f"bins is {bins}; expected 1 to 32767 grey levels.")
    if value_range is not None:
        low, high = value_range
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"value_range is ({low}, {high}); expected two finite numbers, low < high.")


def _kernel(backend: str, device: torch.device) -> Callable[[Tensor, int, Window, Tensor], None]:
    """Function that works out the entropy of bin numbers and fills the last argument."""
    if backend not in ("auto", "numba", "torch"):
        raise ValueError(f"backend is {backend!r}; expected 'auto', 'numba' or 'torch'.")
    compiled = _compiled_kernel() if device.type == "cpu" and backend != "torch" else None
    if compiled is None and backend == "numba":
        raise ValueError(
            "backend is 'numba', which needs an image on the CPU and the package numba; use backend='auto' or 'torch', "
            "or install medpixcl[fast]."
        )
    return compiled or entropy_torch.window_entropy


def _compiled_kernel() -> Callable[[Tensor, int, Window, Tensor], None] | None:
    """The loops compiled by numba; None where it is missing, or is installed for another numpy."""
    if find_spec("numba") is None:
        return None
    try:
        from medpixcl._kernels import entropy_numba
    except ImportError:
        return None
    return entropy_numba.compiled_window_entropy


def _window(radius: Number, footprint: str, spacing: Sequence[Number] | None, shape: Sequence[int]) -> Window:
    """Neighbourhood of a pixel; never wider than the image."""
    if footprint not in ("ball", "box"):
        raise ValueError(f"footprint is {footprint!r}; expected 'ball' or 'box'.")
    steps = [1.0] * len(shape) if spacing is None else [float(step) for step in spacing]
    if len(steps) != len(shape) or not all(0 < step < math.inf for step in steps):
        raise ValueError(f"spacing is {tuple(steps)}; expected {len(shape)} positive sizes in mm, one per axis.")
    if not 0 <= radius < math.inf:
        raise ValueError(f"radius is {radius}; expected a finite number that is not negative.")
    reach = radius * (1 + 1e-9)  # a pixel on the rim counts in spite of rounding
    limit = [size - 1 for size in shape]
    if footprint == "ball":
        return ball_window(reach, steps, limit)
    return box_window([min(int(reach / step), most) for step, most in zip(steps, limit, strict=True)])


def _grey_levels(
    image: Float[Tensor, "*s"], bins: int, value_range: Sequence[Number] | None, mask: Bool[Tensor, "*s"] | None
) -> Integer[Tensor, "*s"]:
    """Bin number of every pixel; ``bins`` where the mask is False."""
    levels = torch.empty(image.shape, dtype=torch.uint8 if bins < 256 else torch.int16, device=image.device)
    least, greatest = _bounds(image, mask)
    if least > greatest:
        return levels.fill_(bins)
    low, high = (least, greatest) if value_range is None else value_range
    values = image if mask is None else image.masked_fill(~mask, low)
    span = (high - low) or 1.0
    for part, level in zip(values.flatten().split(PART_PIXELS), levels.view(-1).split(PART_PIXELS), strict=True):
        level.copy_((part.to(_precision(part)) - low).div_(span).mul_(bins).clamp_(0, bins - 1))
    return levels if mask is None else levels.masked_fill_(~mask, bins)


def _precision(image: Tensor) -> torch.dtype:
    """Number type in which grey levels are worked out."""
    return torch.promote_types(image.dtype, torch.float32)


def _bounds(image: Float[Tensor, "*s"], mask: Bool[Tensor, "*s"] | None) -> tuple[float, float]:
    """Least and greatest value of the pixels that count; (inf, -inf) if none does."""
    if mask is None:
        least, greatest = image.aminmax()
    elif mask.any():
        least, greatest = image.masked_fill(~mask, math.inf).amin(), image.masked_fill(~mask, -math.inf).amax()
    else:
        return math.inf, -math.inf
    # NaN passes through the extremes; a range beyond the number type would give NaN below.
    if not bool((greatest.to(_precision(image)) - least).isfinite()):
        raise ValueError(
            "image has NaN or infinite pixels (or a range too wide for its number type); expected finite values: "
            "fill these pixels, or leave them out by mask."
        )
    return least.item(), greatest.item()


def classify_informativeness(
    entropy: Float[Tensor, "b 1 *s"],
    *,
    cuts: Sequence[Number] | None = (2.0, 4.0),
    quantiles: Sequence[Number] | None = None,
    foreground: Bool[Tensor, "b 1 *s"] | None = None,
) -> Int[Tensor, "b 1 *s"]:
    """Classify every pixel: 0 low, 1 medium, 2 high; a pixel on a cut belongs to the upper class.

    Absolute cuts depend on bit depth and window (2 and 4 bits are those of the paper for 256 levels, disk radius 10);
    quantiles of the foreground follow the image.

    Args:
        entropy: Local entropy in bits, shape (B, 1, *spatial).
        cuts: Two bounds in bits, ascending; None when ``quantiles`` is given.
        quantiles: Two shares of the foreground of each image, ascending, between 0 and 1.
        foreground: True for the pixels whose quantiles are taken; by default those with ``entropy > 0``.

    Returns:
        Classes, int64, shape of ``entropy``.

    Raises:
        ValueError: If not exactly one of ``cuts`` and ``quantiles`` is given, or they are not two ascending numbers.

    Example:
        >>> classify_informativeness(torch.tensor([[[[0.0, 2.0, 5.0]]]]))
        tensor([[[[0, 1, 2]]]])
    """
    if (cuts is None) == (quantiles is None):
        raise ValueError("cuts and quantiles exclude each other; give one of them and set the other to None.")
    if cuts is not None:
        bounds = torch.tensor(_ascending_pair("cuts", cuts, -math.inf, math.inf)).to(entropy)
        return torch.bucketize(entropy, bounds, right=True)
    shares = _ascending_pair("quantiles", quantiles or (), 0.0, 1.0)
    chosen = entropy > 0 if foreground is None else foreground
    rows = zip(entropy.flatten(1), chosen.flatten(1), strict=True)
    return torch.stack([_classify_by_share(values, kept, shares) for values, kept in rows]).view(entropy.shape)


def _ascending_pair(name: str, values: Sequence[Number], least: float, most: float) -> list[float]:
    """Two ascending numbers within bounds."""
    if len(values) != 2 or not least <= values[0] <= values[1] <= most:
        bounds = "" if math.isinf(most) else f" between {least:g} and {most:g}"
        raise ValueError(f"{name} is {tuple(values)}; expected two ascending numbers{bounds}.")
    return [float(value) for value in values]


def _classify_by_share(
    entropy: Float[Tensor, " n"], foreground: Bool[Tensor, " n"], shares: list[float]
) -> Int[Tensor, " n"]:
    """Classes of one image by quantiles of its foreground; all low without a foreground."""
    values = entropy[foreground].sort().values
    if values.numel() == 0:
        return torch.zeros_like(entropy, dtype=torch.int64)
    position = torch.tensor(shares, dtype=torch.float64, device=entropy.device) * (values.numel() - 1)
    below = position.floor().long()
    above = position.ceil().long()
    bounds = torch.lerp(values[below], values[above], (position - below).to(values))
    return torch.bucketize(entropy, bounds, right=True)


def sampling_weights(
    entropy: Float[Tensor, "b 1 *s"],
    *,
    exponent: Number = 0.3,
    class_ratios: Sequence[Number] | None = None,
    classes: Int[Tensor, "b 1 *s"] | None = None,
) -> Float[Tensor, "b 1 *s"]:
    """Compute the weight of every pixel for drawing: ``entropy ** exponent``, summing to 1 over each image.

    Exponent 0 draws all pixels equally often (``0 ** 0 = 1``); any positive exponent leaves out pixels without entropy.

    Args:
        entropy: Local entropy in bits, shape (B, 1, *spatial).
        exponent: Exponent of the entropy, not negative; 0.3 in the paper.
        class_ratios: Total weight of each class (low, medium, high), in any scale; the weight of an absent class (no
            pixel with a weight) goes to the others in proportion.
        classes: Class of every pixel from :func:`classify_informativeness`; give it together with ``class_ratios``.

    Returns:
        Weights, shape of ``entropy``. An image in which nothing has a weight is drawn from uniformly.

    Raises:
        ValueError: If ``exponent`` or a ratio is negative, or only one of ``class_ratios`` and ``classes`` is given.

    Reference: arXiv 2211.07118, section on pixel sampling (w = IIE^0.3).

    Example:
        >>> sampling_weights(torch.tensor([[[[0.0, 1.0, 3.0]]]]), exponent=1)
        tensor([[[[0.0000, 0.2500, 0.7500]]]])
    """
    if not 0 <= exponent < math.inf:
        raise ValueError(f"exponent is {exponent}; expected a finite number that is not negative.")
    if (class_ratios is None) != (classes is None):
        raise ValueError("class_ratios and classes go together; give both or none.")
    weights = entropy.pow(exponent).flatten(1)
    if class_ratios is not None and classes is not None:
        weights = weights * _class_factors(weights, classes.flatten(1), class_ratios)
    total = weights.sum(dim=1, keepdim=True)
    weights = torch.where(total > 0, weights / total, 1 / weights.shape[1])
    return weights.view_as(entropy)


def _class_factors(
    weights: Float[Tensor, "b n"], classes: Int[Tensor, "b n"], ratios: Sequence[Number]
) -> Float[Tensor, "b n"]:
    """Factor of every pixel that gives each class its share of the total weight."""
    if len(ratios) != 3 or not all(0 <= ratio < math.inf for ratio in ratios) or sum(ratios) <= 0:
        raise ValueError(f"class_ratios is {tuple(ratios)}; expected three numbers (low, medium, high), not all zero.")
    totals = weights.new_zeros(weights.shape[0], 3).scatter_add_(1, classes, weights)
    factors = torch.where(totals > 0, weights.new_tensor(list(ratios)) / totals, 0.0)
    return factors.gather(1, classes)
