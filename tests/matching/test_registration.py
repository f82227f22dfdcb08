"""Registration against a known deformation: points of a template that lie elsewhere in a bent, turned copy of it."""

from collections.abc import Callable

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from torch import Tensor
from torch.nn.functional import grid_sample

from medpixcl.coordinates import flip_ras_lps, voxel_to_mm, working_affine
from medpixcl.matching.registration import carry_affine, carry_convexadam, carry_elastix
from tests.geometry import monai_affine, oblique_affine
from tests.tiny import run_apart

SIZE = {2: (72, 64), 3: (48, 56, 44)}
Places = tuple[MetaTensor, MetaTensor, Tensor, Tensor]


def smooth(shape: tuple[int, ...], sigma: float, generator: torch.Generator) -> Tensor:
    field = GaussianFilter(len(shape), sigma)(torch.randn(1, 1, *shape, generator=generator))[0, 0]
    return field / field.std()


def bent_copy(dims: int, bend: float) -> Places:
    """A textured ball, a copy that is turned by 6 degrees, moved and bent by so many voxels, and points of both, mm."""
    generator = torch.Generator().manual_seed(3)
    shape = SIZE[dims]
    voxels = torch.stack(torch.meshgrid(*[torch.arange(float(n)) for n in shape], indexing="ij"), dim=-1)
    size = torch.tensor(shape) - 1.0
    away = torch.linalg.vector_norm((2 * voxels / size - 1), dim=-1)
    values = (smooth(shape, 2.5, generator) + 4) * (away < 0.8)
    turn = torch.eye(dims)
    turn[:2, :2] = torch.tensor([[0.9945, -0.1045], [0.1045, 0.9945]])
    steps = torch.stack([smooth(shape, 7.0, generator) for _ in shape], dim=-1)
    source = (voxels - size / 2) @ turn.T + size / 2 + bend * steps + torch.tensor([1.5, -1.0, 0.5])[:dims]
    copy = grid_sample(values[None, None], (2 * source / size - 1).flip(-1)[None], align_corners=True)[0, 0]
    inside = torch.nonzero(away < 0.55)
    chosen = inside[torch.randperm(len(inside), generator=generator)[:25]]
    affine = monai_affine(oblique_affine(dims))
    template, image = MetaTensor(values[None], affine=affine), MetaTensor(copy[None], affine=affine)
    there, here = chosen.double(), source[tuple(chosen.T)].double()
    to_mm = working_affine(template)
    return template, image, *(flip_ras_lps(voxel_to_mm(points, to_mm)) for points in (here, there))


def error(places: Places, carry: Callable[[MetaTensor, MetaTensor, Tensor], Tensor]) -> float:
    template, image, points, true = places
    return float(torch.linalg.vector_norm(carry(template, image, points) - true, dim=1).mean())


@pytest.mark.parametrize("dims", [2, 3])
def test_affine_undoes_a_turn(dims: int) -> None:
    """Voxels are 0.5 to 1.4 mm; unregistered the points are off by more than one."""
    places = bent_copy(dims, 0.0)
    assert error(places, lambda template, image, points: points) > 1
    assert error(places, carry_affine) < 0.15


def test_convexadam_follows_a_bend() -> None:
    places = bent_copy(3, 1.5)
    stiff, bent = error(places, carry_affine), error(places, carry_convexadam)
    assert stiff > 1
    assert bent < 0.6 * stiff


@pytest.mark.slow
def test_elastix_follows_a_bend() -> None:
    places = bent_copy(2, 1.5)
    assert error(places, carry_elastix) < 0.75 * error(places, carry_affine)


def test_an_affine_registration_repeats_itself() -> None:
    """To the last bit; threads that add up in any order do not."""
    template, image, points, _ = bent_copy(2, 1.5)
    first, *others = (carry_affine(template, image, points) for _ in range(8))
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.slow
def test_elastix_where_there_are_several_cores() -> None:
    """It ended the process; and it repeats itself."""
    script = """
import torch
from tests.matching.test_registration import bent_copy, carry_elastix
torch.set_num_threads(2)
template, image, points, _ = bent_copy(2, 1.5)
assert torch.equal(*(carry_elastix(template, image, points) for _ in range(2)))
"""
    run_apart("-c", script)
