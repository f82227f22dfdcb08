"""Coarse to fine: crops where they should be, positions through two grids, each landmark by its own crop."""

import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from medpixcl.coordinates import voxel_positions
from medpixcl.landmarks.heatmaps import encode_heatmaps
from medpixcl.networks.coarse_to_fine import CoarseToFineInferer, crops_around
from medpixcl.networks.inferers import LandmarkInferer
from medpixcl.networks.landmark import LandmarkNet

BOTH = pytest.mark.parametrize("dims", [2, 3])


class Seer(LandmarkNet):
    """Sees landmark k at the voxel whose value is k + 1 (the mean of them), to within the given error."""

    def __init__(self, landmarks: int, dims: int, error: float = 0.0, stride: int = 1, coarsest: int = 2) -> None:
        nn.Module.__init__(self)
        self.landmarks, self.spatial_dims, self.error = landmarks, dims, error
        self.stride, self.coarsest_stride = stride, coarsest

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for image in x[:, 0]:
            rows = []
            for number in range(self.landmarks):
                places = (image == number + 1).nonzero().float()
                there = places.mean(dim=0) if len(places) else torch.zeros(image.ndim)
                rows.append(there + self.error)
            maps.append(torch.stack(rows))
        cells = x.shape[2:]
        heatmaps = encode_heatmaps(torch.stack(maps), cells, stride=1, sigma_mm=1.0, spacing_mm=[1.0] * len(cells))
        offsets = torch.zeros(len(x), self.landmarks * len(cells), *cells)
        return torch.cat([heatmaps.clamp_min(1e-20).log(), offsets], dim=1)


@BOTH
def test_crops(dims: int) -> None:
    """Against slices of an image with numbered voxels, half a crop beyond each side."""
    shape, size = (7, 8, 9)[:dims], (3, 4, 5)[:dims]
    image = torch.arange(1.0, 1 + torch.Size(shape).numel()).reshape(1, *shape)
    centres = torch.tensor([[0.0] * dims, [3.2] * dims, [100.0] * dims])
    crops, matrices = crops_around(image, centres, size)
    assert crops.shape == (3, 1, *size)
    assert torch.equal(matrices[:, :-1, :-1], torch.eye(dims).expand(3, dims, dims))
    for crop, start, centre in zip(crops, matrices[:, :-1, -1].long().tolist(), centres, strict=True):
        for axis, (one, length) in enumerate(zip(start, size, strict=True)):
            middle = min(float(centre[axis]), shape[axis] - 1)
            assert abs(one + (length - 1) / 2 - middle) <= 0.5
        wanted = torch.zeros(1, *size)
        for place in torch.cartesian_prod(*[torch.arange(n) for n in size]).tolist():
            voxel = [a + b for a, b in zip(start, place, strict=True)]
            if all(0 <= v < n for v, n in zip(voxel, shape, strict=True)):
                wanted[(0, *place)] = image[(0, *voxel)]
        assert torch.equal(crop, wanted)


@BOTH
def test_positions_go_through_both_grids(dims: int) -> None:
    """The coarse network errs by a voxel; the fine one sees the voxels of half the size, on a shifted grid."""
    truth = torch.tensor([[9.0, 12, 10][:dims], [20.0, 17, 15][:dims]])  # fine voxels
    fine = torch.zeros(1, 1, *(32, 30, 28)[:dims])
    for number, place in enumerate(truth.long().tolist()):
        fine[(0, 0, *place)] = number + 1
    coarse = torch.zeros(1, 1, *(16, 16, 14)[:dims])
    for number, place in enumerate(truth.tolist()):
        coarse[(0, 0, *[round((value - 1) / 2) for value in place])] = number + 1
    affine_fine, affine_coarse = torch.eye(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    affine_fine[:dims, :dims] *= 0.5
    affine_coarse[:dims, 3] = 0.5
    images = [
        MetaTensor(pixels, affine=affine[None]) for pixels, affine in ((coarse, affine_coarse), (fine, affine_fine))
    ]
    network = Seer(2, dims, error=0.9)
    first = LandmarkInferer(network, [1.0] * dims, use_offsets=False)
    inferer = CoarseToFineInferer(first, Seer(2, dims), [12] * dims, crops_at_once=1)
    found = inferer(images[0], network, images[1])
    mm = found["points"][0] + 0.5  # of the coarse grid
    torch.testing.assert_close(mm, truth * 0.5, atol=0.02, rtol=0)
    moved = (found["points"] - first(images[0], network)["points"])[0].norm(dim=1)
    torch.testing.assert_close(found["spread_mm"][0], moved)
    assert (moved > 0.5).all()
    shape = torch.eye(dims) * 0.5**2  # of a Gaussian of one fine voxel, of 0.5 mm
    torch.testing.assert_close(found["covariance_mm2"][0], shape.expand(2, dims, dims), atol=0.005, rtol=0)


class Centre(Seer):
    """Sees every landmark at the centre of mass of the image."""

    def forward(self, x: Tensor) -> Tensor:
        cells, images = x.shape[2:], x[:, 0]
        places = voxel_positions(cells)
        mass = images[..., None].clamp_min(0)
        axes = list(range(1, 1 + len(cells)))
        middle = (mass * places).sum(dim=axes) / mass.sum(dim=axes).clamp_min(1e-6)
        points = middle[:, None].expand(-1, self.landmarks, -1)
        sigmas = [2.0, *[1.0] * (len(cells) - 1)]
        heatmaps = torch.exp(-((places - points[:, :, *[None] * len(cells)]) / torch.tensor(sigmas)).square() / 2)
        offsets = torch.zeros(len(x), self.landmarks * len(cells), *cells)
        return torch.cat([heatmaps.prod(dim=-1).clamp_min(1e-20).log(), offsets], dim=1)


class Given(LandmarkInferer):
    """Finds what it is told."""

    def __init__(self, network: LandmarkNet, points: Tensor) -> None:
        super().__init__(network, [1.0] * points.shape[1])
        self.points = points

    def __call__(self, inputs: Tensor, network: nn.Module, *args: object, **kwargs: object) -> dict[str, Tensor]:
        count, dims = self.points.shape
        return {
            "points": self.points[None].clone(),
            "confidence": torch.ones(1, count),
            "covariance_mm2": torch.eye(dims).expand(1, count, dims, dims),
        }


@BOTH
def test_the_shape_turns_the_crops_and_finds_the_lost(dims: int) -> None:
    """Blobs at a turned shape; one coarse landmark lies far outside its crop.

    The heatmaps are twice as wide along the first axis of the crops: in the image the covariance is turned with them.
    """
    generator = torch.Generator().manual_seed(0)
    shape = torch.cartesian_prod(*[torch.tensor([-11.0, 11.0])] * dims).double()
    shape = shape + 4 * torch.rand(shape.shape, generator=generator, dtype=torch.float64)
    turn = Rotation.from_euler("xyz", [0, 0, 35] if dims == 2 else [10, -20, 35], degrees=True).as_matrix()
    rotation = torch.from_numpy(turn[:dims, :dims])
    truth = (shape @ rotation.T + 32).float()
    places = voxel_positions([64] * dims)
    image = sum(torch.exp(-(places - place).square().sum(dim=-1) / (2 * 1.5**2)) for place in truth)[None, None]
    coarse = truth + 0.3 * torch.randn(truth.shape, generator=generator)
    coarse[0] += 15
    picture = MetaTensor(image, affine=torch.eye(4)[None])
    network = Centre(len(shape), dims)
    inferer = CoarseToFineInferer(
        Given(network, coarse), network, [16] * dims, radius=7, crops_at_once=3, shape_mm=shape.tolist()
    )
    found = inferer(picture, network, picture)
    torch.testing.assert_close(found["points"][0], truth, atol=0.05, rtol=0)
    wide = rotation @ torch.diag(torch.tensor([4.0, *[1.0] * (dims - 1)]).double()) @ rotation.T
    torch.testing.assert_close(
        found["covariance_mm2"][0], wide.float().expand(len(shape), dims, dims), atol=0.3, rtol=0
    )


def test_bad_arguments() -> None:
    coarse = LandmarkInferer(Seer(2, 2), [1.0, 1.0])
    with pytest.raises(ValueError, match="the fine network has 3 landmarks and the coarse one 2"):
        CoarseToFineInferer(coarse, Seer(3, 2), [8, 8])
    with pytest.raises(ValueError, match=r"crop_shape is \[8, 9\]; expected multiples"):
        CoarseToFineInferer(coarse, Seer(2, 2), [8, 9])
    with pytest.raises(ValueError, match="shape_mm has 1 landmarks and the networks have 2"):
        CoarseToFineInferer(coarse, Seer(2, 2), [8, 8], shape_mm=[[0.0, 0.0]])
    with pytest.raises(ValueError, match="carry no affines"):
        CoarseToFineInferer(coarse, Seer(2, 2), [8, 8])(torch.zeros(1, 1, 8, 8), Seer(2, 2), torch.zeros(1, 1, 8, 8))
