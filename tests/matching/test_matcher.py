"""The matcher as a whole, on smooth random embeddings whose warp is known."""

import pytest
import torch
from torch.nn import functional as F

from medpixcl.matching import LandmarkMatcher


def smooth_levels(shape: tuple[int, ...], strides: list[int], seed: int = 0) -> list[torch.Tensor]:
    """Unit vectors that change smoothly from cell to cell, one map (1, 8, *cells) per stride."""
    generator = torch.Generator().manual_seed(seed)
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    levels = []
    for stride in strides:
        cells = [n // stride for n in shape]
        coarse = torch.randn(1, 8, *[n // 2 + 1 for n in cells], generator=generator)
        levels.append(F.normalize(F.interpolate(coarse, size=cells, mode=mode), dim=1))
    return levels


@pytest.mark.parametrize("mode", ["argmax", "consistent"])
@pytest.mark.parametrize("shape", [(64, 80), (24, 32, 16)])
def test_an_image_matches_itself(shape: tuple[int, ...], mode: str, generator: torch.Generator) -> None:
    strides = [2, 4]
    points = torch.rand(6, len(shape), generator=generator) * (torch.tensor(shape) - 9) + 4
    points = ((points / 2).round() + 0.5) * 2 - 0.5
    matcher = LandmarkMatcher(mode=mode)
    matcher.fit(
        lambda image: smooth_levels(shape, strides), strides, torch.zeros(1, 1, *shape), points, [1.0] * len(shape)
    )
    result = matcher.match(torch.zeros(1, 1, *shape))
    assert (result.voxels - points).abs().max() < 1.0
    assert result.cycle_mm.max() <= 2.0  # one cell
    assert result.flags == ("",) * 6
