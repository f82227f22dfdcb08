"""Rows that hold a position in pixels and one in mm: both must be the same place."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.data.landmarks.row import LandmarkRow

TOLERANCE_MM = 0.01
"""Distance in mm, beyond the rounding of the written numbers, below which two positions are one place."""


def why_apart(row: LandmarkRow, px_mm: Float[Tensor, " d"], mm: Float[Tensor, " d"], spacing_mm: float) -> str | None:
    """Explain why the position in pixels of a row is not its position in mm; None if both are one place.

    Args:
        row: Landmark with both positions.
        px_mm: Its position in pixels, as a position in mm of the image.
        mm: Its position in mm, in the same frame.
        spacing_mm: Largest size in mm of a pixel of the image.
    """
    distance = float(torch.linalg.vector_norm(px_mm - mm))
    if distance <= _tolerance_mm(row, spacing_mm):
        return None
    return f"{_both(row)}, which are {distance:.2f} mm apart in this image; {_ADVICE}"


def why_unlike(rows: Sequence[LandmarkRow]) -> tuple[LandmarkRow, str] | None:
    """Find the landmark of an image whose two positions do not fit those of the others; None if all fit.

    Without the image nothing says where a pixel lies. All pixels of an image are taken to mm by one affine map though,
    so the best one must leave no more than the rounding of the numbers.

    Args:
        rows: Landmarks of one image.

    Returns:
        The landmark that fits least, and the explanation; None also for fewer than two more landmarks with both
        positions than there are axes.
    """
    both = [row for row in rows if row.px is not None and row.mm is not None and len(row.px) == len(row.mm)]
    if not both or len({len(row.px or ()) for row in both}) > 1 or len(both) < len(both[0].px or ()) + 2:
        return None
    px, mm = (torch.tensor([getattr(row, unit) for row in both], dtype=torch.float64) for unit in ("px", "mm"))
    known = torch.cat([px, torch.ones_like(px[:, :1])], dim=1)
    inverse = torch.linalg.pinv(known)
    affine = inverse @ mm
    left = torch.linalg.vector_norm(mm - known @ affine, dim=1)
    scale = float(torch.linalg.matrix_norm(affine[:-1], ord=2))
    allowed = torch.tensor([_tolerance_mm(row, scale) for row in both], dtype=torch.float64)
    if left.norm() <= allowed.norm():  # a projection makes errors of rounding no larger
        return None
    free = (1 - (known * inverse.T).sum(dim=1)).clamp_min(1e-12).sqrt()
    odd = both[int((left / free).argmax())]
    return odd, f"{_both(odd)}, which does not fit the other landmarks of the image; {_ADVICE}"


_ADVICE = "after an edit of one, empty the cells of the other, and check the pixel size if no landmark was edited."


def _both(row: LandmarkRow) -> str:
    at = {unit: ", ".join(f"{value:g}" for value in getattr(row, unit)) for unit in ("px", "mm")}
    return f"lies at ({at['px']}) in pixels and at ({at['mm']}) in mm"


def _tolerance_mm(row: LandmarkRow, spacing_mm: float) -> float:
    rounding = (row.px_rounding * spacing_mm + row.mm_rounding) * len(row.px or ()) ** 0.5
    return TOLERANCE_MM + rounding
