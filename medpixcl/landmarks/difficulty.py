"""Difficulty of found landmarks, from the detection alone: it tells how far off they may be, on unlike images too.

The difficulty of a landmark rises where the heatmap is spread out (low confidence) and where the position contradicts
those of the other landmarks; that of an image is the mean over its landmarks. Covariances of heatmaps grow less than
the errors do on images unlike the training images; :func:`widened` makes up for it.

Reference: Papadopoulos et al., Regression Conformal Prediction with Nearest Neighbours, JAIR 40 (2011) 815-840
(nonconformity normalised by an estimate of the difficulty).
"""

from jaxtyping import Float
from torch import Tensor

LEAST_CONFIDENCE = 0.05
"""Confidence below which the difficulty no longer rises."""
LARGEST_DEVIATION = 10.0
"""Deviation from the shape, in standard deviations, above which the difficulty no longer rises."""
WIDENING_OWN, WIDENING_IMAGE = 0.5, 1.0
"""Exponents of the widening by the difficulty of the landmark and by that of its image. Chosen on cephalograms."""


def difficulty(
    confidence: Float[Tensor, "*n k"], deviations: Float[Tensor, "*n k"] | None = None
) -> Float[Tensor, "*n k"]:
    """Compute the difficulty of landmarks: ``-log(confidence) + log(1 + deviations^2) / 2``; NaN where missing.

    Args:
        confidence: Confidence of each landmark, 0 to 1, shape (..., K).
        deviations: Distance of each landmark from the position that the others predict, in standard deviations, shape
            (..., K); None if no shape is known.

    Example:
        >>> import torch
        >>> difficulty(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 1.0]))
        tensor([0.0000, 1.0397], dtype=torch.float64)
    """
    own = -confidence.double().clamp_min(LEAST_CONFIDENCE).log()
    if deviations is None:
        return own
    return own + deviations.double().clamp_max(LARGEST_DEVIATION).square().log1p() / 2


def image_difficulty(difficulties: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """Mean difficulty of the landmarks of images (..., K); NaN if none was found."""
    return difficulties.nanmean(dim=-1)


def widened(covariance: Float[Tensor, "*n k d d"], difficulties: Float[Tensor, "*n k"]) -> Float[Tensor, "*n k d d"]:
    """Covariances of landmarks (..., K, D, D) in mm^2, larger by their difficulty and that of their image."""
    whole = image_difficulty(difficulties)[..., None]
    factor = (WIDENING_OWN * difficulties + WIDENING_IMAGE * whole).exp()
    return covariance.double() * factor.square()[..., None, None]
