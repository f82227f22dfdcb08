"""How radiographs are developed."""

import numpy as np
import pytest
import torch

from medpixcl.data.exposure import Exposure, develop


def test_developing_keeps_the_order_of_densities_and_the_noise_follows_the_photons() -> None:
    ramp = torch.linspace(0, 6, 64).expand(1, 1, 64, 64)
    plain = Exposure(photons=1e12, detail=1.0, window=(0.0, 100.0))
    grey = develop(ramp, plain, 1.7).float()
    torch.testing.assert_close(grey, (ramp / 6 * 255).round(), atol=1.0, rtol=0)
    flat = torch.full((1, 1, 64, 64), 2.0)
    flat[..., 0, 0], flat[..., 0, 1] = 0.0, 4.0  # fixes the window
    for photons in (1e3, 1e4):
        noisy = develop(flat, Exposure(photons=photons, detail=1.0, window=(0.0, 100.0)), 1.7)
        assert noisy[..., 1:, :].float().std().item() / 255 * 4 == pytest.approx((np.exp(2) / photons) ** 0.5, rel=0.1)
