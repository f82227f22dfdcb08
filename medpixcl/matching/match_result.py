"""What a matcher found in one image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from medpixcl.coordinates import apply_affine
from medpixcl.matching.pose import view_in_mm
from medpixcl.views import View


@dataclass(frozen=True)
class MatchResult:
    """The K landmarks found in one image; a landmark that the template lacks is NaN.

    Attributes:
        voxels: Positions in the query image in voxels, array order, not rounded, shape (K, D).
        scores: Similarity at the position, 0 to 1, shape (K,).
        ratios: Highest peak beyond the exclusion radius divided by the score, shape (K,): small is certain; 1 or more
            means that another place looks as good.
        cycle_mm: Distance in the template between the landmark and the best match of the found position, shape (K,).
        residual_mm: Distance from the position that the other landmarks predict, shape (K,); NaN without geometry.
        flags: ``""``, ``"unsure"``, ``"no geometry"`` or ``"missing"`` for each landmark.
        covariance_mm2: Covariance along the array axes, in mm^2, of the upper half of the similarity around the
            position, shape (K, D, D); :mod:`medpixcl.landmarks.regions` uses its shape, not its size.

    Where a matcher refines what it found (``coarse_side``), the positions and covariances are those of the grey values;
    scores, ratios, cycle distances, residuals and flags stay those of the search before, which tells whether it is the
    right place at all.
    """

    voxels: Float[Tensor, "k d"]
    scores: Float[Tensor, " k"]
    ratios: Float[Tensor, " k"]
    cycle_mm: Float[Tensor, " k"]
    residual_mm: Float[Tensor, " k"]
    flags: tuple[str, ...]
    covariance_mm2: Float[Tensor, "k d d"]

    @property
    def unsure(self) -> Bool[Tensor, " k"]:
        """True for each landmark that is flagged as unsure, shape (K,)."""
        return torch.tensor([flag == "unsure" for flag in self.flags], device=self.voxels.device)

    def outside(self, view: View, spacing: Sequence[float], view_spacing: Sequence[float]) -> "MatchResult":
        """Convert landmarks found in a view of an image to the image.

        Args:
            view: The view.
            spacing: Size of a voxel of the image in mm.
            view_spacing: Size of a voxel in mm with which the view was searched.
        """
        turn = view_in_mm(view, spacing, view_spacing)[0].to(self.covariance_mm2)
        voxels = apply_affine(view.matrix.to(self.voxels), self.voxels)
        return replace(self, voxels=voxels, covariance_mm2=turn @ self.covariance_mm2 @ turn.T)


def among_all(there: Bool[Tensor, " k"], values: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "k ..."]:
    """Values of the landmarks that a template has, in rows among all; NaN in the others."""
    rows = values.new_full((len(there), *values.shape[1:]), torch.nan)
    rows[there] = values
    return rows
