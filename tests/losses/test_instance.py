"""Instance contrast against a cross-entropy written out."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from medpixcl.losses.instance import InstanceContrastLoss


def test_is_the_cross_entropy_of_the_other_view():
    """NT-Xent: of 2B vectors each must pick its other view among all but itself."""
    output = torch.randn(5, 2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = output.transpose(0, 1).flatten(0, 1).numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    logits = rows @ rows.T / 0.3
    losses = [logsumexp(np.delete(logits[i], i)) - logits[i, (i + 5) % 10] for i in range(10)]
    assert InstanceContrastLoss(0.3)(output).item() == pytest.approx(np.mean(losses), rel=1e-6)


def test_one_image_leaves_nothing_to_contrast():
    with pytest.raises(ValueError, match="batches of at least 2 images"):
        InstanceContrastLoss()(torch.zeros(1, 2, 4))
