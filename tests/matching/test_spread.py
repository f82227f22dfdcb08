"""How far the similarity spreads around a match: on maps whose similarity is known everywhere."""

import pytest
import torch
from torch import Tensor

from medpixcl.landmarks.regions import calibrate_regions, covered, semi_axes
from medpixcl.matching import LandmarkMatcher
from tests.reference.heatmaps import covariance

STRIDE = 2
CELLS = {2: (24, 26), 3: (18, 20, 22)}
SPACING = [0.8, 1.1, 0.9]


def bump(centres: list[list[float]], widths: list[float]) -> Tensor:
    """Unit vectors, (1, K + 1, *cells), whose component K is a Gaussian round the centre K, given in cells."""
    dims = len(widths)
    grid = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in CELLS[dims]], indexing="ij"))
    maps = []
    for centre in centres:
        away = (grid - torch.tensor(centre).view(-1, *[1] * dims)) / torch.tensor(widths).view(-1, *[1] * dims)
        maps.append(0.9 * (-away.square().sum(0) / 2).exp())
    rest = (1 - torch.stack(maps).square().sum(0)).clamp_min(0).sqrt()
    return torch.stack([*maps, rest])[None]


@pytest.mark.parametrize("mode", ["argmax", "consistent"])
@pytest.mark.parametrize("dims", [2, 3])
def test_spread_of_the_similarity(dims: int, mode: str) -> None:
    """In mm^2, of the upper half of the map within four cells of the match, cell by cell; NaN where missing."""
    widths, spacing = [1.6, 2.4, 2.0][:dims], SPACING[:dims]
    centres = [[6.0] * dims, [12.0, 14.0, 11.0][:dims]]
    template = bump(centres, [0.5] * dims)
    points = torch.tensor([*centres, [torch.nan] * dims]) * STRIDE + 0.5
    image = torch.zeros(1, 1, *[n * STRIDE for n in CELLS[dims]])
    matcher = LandmarkMatcher(mode=mode).fit(lambda _: [template], [STRIDE], image, points, spacing)
    query = bump(centres, widths)
    found = matcher.match([query]).covariance_mm2
    assert found[2].isnan().all()
    vectors = torch.nn.functional.normalize(template[(0, slice(None), *torch.tensor(centres).long().T)].T, dim=1)
    for number, centre in enumerate(centres):
        similarity = torch.einsum("c,c...->...", vectors[number], query[0]).clamp_min(0).double()
        near = torch.zeros_like(similarity)
        window = tuple(slice(int(c) - 4, int(c) + 5) for c in centre)
        near[window] = (similarity[window] - (similarity[window].min() + similarity[window].max()) / 2).clamp_min(0)
        peak = tuple(int(i) for i in torch.unravel_index(near.argmax(), near.shape))
        wanted = covariance(near, peak, 9, STRIDE, spacing)
        torch.testing.assert_close(found[number].double(), wanted, rtol=1e-3, atol=1e-3)


def test_matches_get_regions() -> None:
    """Wide similarity, wide region: one scale for all matches, and the share that was asked for lies inside."""
    generator = torch.Generator().manual_seed(0)
    image, points = torch.zeros(1, 1, 48, 52), torch.tensor([[24.5, 26.5]])
    template = bump([[12.0, 13.0]], [1.0, 1.0])
    matcher = LandmarkMatcher(mode="argmax").fit(lambda _: [template], [STRIDE], image, points, [1.0, 1.0])
    spreads, aways = [], []
    for _ in range(60):
        widths = (1 + 2 * torch.rand(2, generator=generator)).tolist()
        result = matcher.match([bump([[12.0, 13.0]], widths)])
        spreads.append(result.covariance_mm2)
        aways.append(torch.randn(1, 2, generator=generator) * STRIDE * torch.tensor(widths))
    spread, away = torch.stack(spreads), torch.stack(aways)
    made = calibrate_regions(away[:40], spread[:40], ["a"], coverage=0.8)
    regions = made.regions_of(["a"], spread[40:])
    assert 0.5 <= float(covered(away[40:], regions).mean()) <= 1, "0.8 of 20, five standard deviations"
    assert semi_axes(regions)[0].max() > 1.5 * semi_axes(regions)[0].min()
