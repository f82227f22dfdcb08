"""The inferer tells how far heatmaps spread, in mm along the image's axes, whatever view they come from."""

import pytest
import torch

from medpixcl.landmarks.heatmaps import encode_heatmaps
from medpixcl.networks import LandmarkNet
from medpixcl.networks.inferers import LandmarkInferer

SHAPES = {2: [76, 68], 3: [52, 44, 60]}
SPACING = {2: [0.5, 0.8], 3: [0.5, 0.8, 1.2]}
VIEWS = {"one": [[0.0, 1.0]], "three": [[0.0, 1.0], [25.0, 0.9], [-25.0, 1.1]]}


class Bright(torch.nn.Module):
    """A "network" whose heatmap is the image itself, at half the size; offsets 0."""

    def __init__(self, softmax: bool) -> None:
        super().__init__()
        self.softmax = softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dims = x.ndim - 2
        pool = torch.nn.functional.avg_pool2d if dims == 2 else torch.nn.functional.avg_pool3d
        cells = pool(x, 2)
        maps = cells.clamp_min(1e-12).log() if self.softmax else cells
        return torch.cat([maps, torch.zeros_like(cells).repeat(1, dims, *[1] * dims)], dim=1)


@pytest.mark.parametrize("activation", ["softmax", "none"])
@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize("dims", [2, 3])
def test_covariance_of_a_bright_dot(dims: int, views: str, activation: str) -> None:
    """Wide along the first axis, narrow along the last; half a voxel's variance comes from the pooling."""
    sigmas_mm = torch.tensor([2.0, 1.8, 1.6][:dims])
    spacing, shape = SPACING[dims], SHAPES[dims]
    stretched = [s / float(sigma) for s, sigma in zip(spacing, sigmas_mm, strict=True)]
    point = torch.tensor([[[n / 2 + 0.3 for n in shape]]])
    image = encode_heatmaps(point, shape, stride=1, sigma_mm=1.0, spacing_mm=stretched, normalise=False)
    definition = LandmarkNet(1, spatial_dims=dims, backbone="unet", channels=[4, 4, 4])
    inferer = LandmarkInferer(
        definition, spacing, VIEWS[views], radius=6, use_offsets=False, activation=activation, covariance_radius=10
    )
    found = inferer(image, Bright(activation == "softmax"))
    wanted = torch.diag(sigmas_mm.square() + 0.25 * torch.tensor(spacing).square())
    assert (found["points"] - point).abs().max() < 0.1
    torch.testing.assert_close(found["covariance_mm2"][0, 0], wanted, rtol=0.06, atol=0.06)


def test_views_that_disagree_spread() -> None:
    """By hand: three views whose middle one is right and the others 2 mm off along the columns to either side."""

    class Inferer(LandmarkInferer):
        def _one_view(self, images, network, degrees, scale):
            place = torch.tensor([[[5.0, 7.0 + degrees]]])
            return place, torch.ones(1, 1), torch.eye(2)[None, None]

    definition = LandmarkNet(1, backbone="unet", channels=[4, 4, 4])
    found = Inferer(definition, [1.0, 0.5], [[-4.0, 1.0], [0.0, 1.0], [4.0, 1.0]])(torch.zeros(1, 1, 8, 8), definition)
    torch.testing.assert_close(found["covariance_mm2"][0, 0], torch.tensor([[1.0, 0.0], [0.0, 1 + 8 / 3]]))
