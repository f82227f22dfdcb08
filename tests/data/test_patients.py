"""Synthetic patients: nothing folds, and what an image shows at a point moves as the point does."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from medpixcl.coordinates import voxel_to_mm
from medpixcl.data.demo import STRAIN
from medpixcl.data.patients import PROPORTIONS, SIZES, Patient, draw_patient

CENTRE = (4.0, -6.0, 10.0)
SHAPE = (24, 20, 28)
AFFINE = torch.tensor(
    [[-4.0, 0.0, 0.0, 50.0], [0.0, 5.0, 0.0, -60.0], [0.0, 0.0, 3.0, -30.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)


def grid(step: float = 40.0) -> torch.Tensor:
    axis = torch.arange(-160.0, 161.0, step, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis, axis)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_folds_or_strains_more_than_the_bound(seed: int) -> None:
    patient = draw_patient((seed,), strain=STRAIN, centre_mm=CENTRE)
    points, small = grid(), 1e-4
    sides = [patient.to_ct(points + small * side) - patient.to_ct(points - small * side) for side in torch.eye(3)]
    jacobian = torch.stack(sides, dim=-1) / (2 * small)
    assert torch.linalg.det(jacobian).min() > 0
    strain = torch.linalg.matrix_norm(jacobian - torch.eye(3, dtype=torch.float64), ord=2)
    assert strain.max() <= patient.strain
    assert patient.strain <= STRAIN + 1 / SIZES[0] - 1 + PROPORTIONS
    assert strain.max() > 0.1  # the patient is another person


def test_a_patient_that_might_fold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"strain is up to 1\.\d\d; .*bend it less"):
        draw_patient((0,), strain=1.0, centre_mm=CENTRE)


@pytest.mark.parametrize("seed", range(3))
def test_points_go_to_the_ct_and_back(seed: int) -> None:
    patient = draw_patient((seed,), strain=0.65, centre_mm=CENTRE)
    points = grid()
    torch.testing.assert_close(patient.to_ct(patient.from_ct(points)), points, atol=1e-5, rtol=0)
    torch.testing.assert_close(patient.from_ct(patient.to_ct(points)), points, atol=1e-4, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_a_ball_of_the_ct_is_found_where_its_centre_goes(seed: int) -> None:
    """A small Gaussian ball, resampled as an image, has its centre of mass at the moved centre, between the voxels."""
    patient = draw_patient((seed,), strain=STRAIN, centre_mm=(-60.0, 40.0, 60.0))
    centre = torch.tensor([[11.3, 9.6, 13.2]], dtype=torch.float64)
    voxels = np.stack(np.indices(SHAPE), axis=-1)
    distance = np.linalg.norm((voxels - centre.numpy()[0]) * np.array([4.0, 5.0, 3.0]), axis=-1)
    ball = torch.from_numpy(np.exp(-0.5 * (distance / 6) ** 2)).float()[None, None]
    found = ndimage.center_of_mass(patient.resample(ball, AFFINE)[0, 0].numpy())
    found_mm = voxel_to_mm(torch.tensor([found], dtype=torch.float64), AFFINE)
    centre_mm = voxel_to_mm(centre, AFFINE)
    moved_mm = patient.from_ct(centre_mm)
    assert torch.linalg.vector_norm(moved_mm - centre_mm) > 1.5
    assert torch.linalg.vector_norm(found_mm - moved_mm) < 0.4


def test_a_wave_and_a_scaling_as_written() -> None:
    one = Patient(
        scaling=torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64),
        waves=torch.tensor([[0.0, 0.0, np.pi / 100]], dtype=torch.float64),
        amplitudes_mm=torch.tensor([[0.0, 5.0, 0.0]], dtype=torch.float64),
        phases=torch.zeros(1, dtype=torch.float64),
        centre_mm=torch.tensor([20.0, 0.0, 0.0], dtype=torch.float64),
    )
    there = one.to_ct(torch.tensor([[30.0, 1.0, 50.0], [20.0, 1.0, 100.0]], dtype=torch.float64))
    torch.testing.assert_close(there, torch.tensor([[31.0, 6.0, 50.0], [20.0, 1.0, 100.0]], dtype=torch.float64))
    assert one.strain == pytest.approx(0.1 + 0.05 * np.pi)


def test_no_strain_is_the_person_of_the_ct() -> None:
    same = draw_patient((3,), strain=0.0, centre_mm=CENTRE)
    volume = torch.rand(1, 1, *SHAPE)
    torch.testing.assert_close(same.resample(volume, AFFINE), volume, atol=1e-4, rtol=0)
    torch.testing.assert_close(same.from_ct(grid()), grid())


def test_every_seed_is_another_patient() -> None:
    first, again, other = (draw_patient(seed, strain=0.4, centre_mm=CENTRE) for seed in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(first.to_ct(grid()), again.to_ct(grid()))
    assert torch.linalg.vector_norm(first.to_ct(grid()) - other.to_ct(grid()), dim=1).mean() > 3
