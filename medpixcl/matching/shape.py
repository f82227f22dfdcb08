"""Prediction of each landmark by the others: the template's shape, deformed smoothly.

The displacement of the landmarks from a similarity transform of the template is modelled as a Gaussian process per
axis: a common shift, a linear (affine) part, and a smooth part whose correlation falls with distance. Each found
position adds independent noise. All sizes are fractions of the template's spread, so the same numbers serve a skull and
a mouse head. The position of a landmark given all others, and its uncertainty, then follow in closed form.

Reference: Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), sections 2.2, 2.7 and 5.4.2
(leave-one-out prediction); Lange et al., JASA 84 (1989) 881-896 (weights of the t distribution).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.landmarks.geometry import NOISE, spread

SHIFT = 0.18
LINEAR = 0.1
SMOOTH = 0.11
REACH = 0.7
"""Standard deviations of shift, linear part and smooth part, and the smooth part's correlation length, in units of the
spread. Chosen on cephalograms; the result hardly moves between half and twice each."""


class ShapePrior:
    """Distribution of landmarks around those of a template that was fitted to the query.

    Args:
        expected: Landmarks of the template after a similarity transform into the query, shape (K, D), mm.
        cell_mm: Size of a cell in mm, a lower bound of the uncertainty of a position.
    """

    def __init__(self, expected: Float[Tensor, "k d"], cell_mm: float) -> None:
        self.expected = expected
        size = spread(expected).clamp_min(4 * cell_mm)
        inner = (expected - expected.mean(dim=0)) / size
        smooth = torch.exp(-torch.cdist(inner, inner).square() / (2 * REACH**2))
        self.covariance = size.square() * (SHIFT**2 + LINEAR**2 * inner @ inner.T + SMOOTH**2 * smooth)
        self.noise = (NOISE * size).square() + (cell_mm / 4) ** 2

    def leave_one_out(
        self, found: Float[Tensor, "k d"], weights: Float[Tensor, " k"]
    ) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
        """Predict each landmark from the positions of all the others.

        Args:
            found: Found positions in the query, shape (K, D), mm.
            weights: Weight of each landmark, 1 for full trust, shape (K,).

        Returns:
            Predictions (K, D) and their standard deviation along an axis (K), own noise included, mm.
        """
        inverse = torch.linalg.inv(self.covariance + torch.diag(self.noise / weights))
        diagonal = inverse.diagonal()
        predicted = found - inverse @ (found - self.expected) / diagonal[:, None]
        variance = (1 / diagonal - self.noise / weights).clamp_min(0) + self.noise
        return predicted, variance.sqrt()
