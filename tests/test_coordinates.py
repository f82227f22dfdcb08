"""Coordinates against ``nibabel``, ITK, scipy and positions worked out by hand."""

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from nibabel.affines import apply_affine as nibabel_apply, voxel_sizes
from scipy.ndimage import map_coordinates
from torch.nn import functional as F

from medpixcl.coordinates import (
    cell_to_voxel,
    flip_ras_lps,
    image_affine,
    inside,
    mm_to_voxel,
    sample_at,
    spacing_of,
    spatial_affine,
    voxel_positions,
    voxel_to_cell,
    voxel_to_grid,
    voxel_to_mm,
)
from tests.geometry import oblique_affine, random_points

SHAPES = pytest.mark.parametrize("shape", [(6, 9), (4, 7, 5), (1, 6, 9)], ids=str)


class TestAffine:
    @pytest.mark.parametrize("dims", [2, 3])
    def test_equals_nibabel(self, dims):
        affine, points = oblique_affine(dims), random_points((30,) * dims, 20)
        expected = nibabel_apply(affine.numpy(), points.numpy())
        np.testing.assert_allclose(voxel_to_mm(points, affine).numpy(), expected, rtol=1e-12)
        np.testing.assert_allclose(spacing_of(affine).numpy(), voxel_sizes(affine.numpy()), rtol=1e-12)

    @pytest.mark.parametrize("dims", [2, 3])
    def test_there_and_back(self, dims):
        affine, points = oblique_affine(dims), random_points((30,) * dims, 20)
        torch.testing.assert_close(mm_to_voxel(voxel_to_mm(points, affine), affine), points, rtol=0, atol=1e-10)

    def test_a_batch_is_mapped_one_by_one(self):
        affines = torch.stack([oblique_affine(3, seed=n) for n in range(3)])
        points = torch.stack([random_points((9, 9, 9), 5, seed=n) for n in range(3)])
        whole = mm_to_voxel(points, affines)
        for found, affine, part in zip(whole, affines, points, strict=True):
            torch.testing.assert_close(found, mm_to_voxel(part, affine))

    def test_part_that_acts_on_the_plane(self):
        affine = torch.arange(16.0).view(4, 4)
        assert spatial_affine(affine, 2).tolist() == [[0, 1, 3], [4, 5, 7], [12, 13, 15]]
        assert torch.equal(spatial_affine(affine, 3), affine)


class TestFrames:
    @pytest.mark.parametrize("dims", [2, 3])
    def test_lps_is_the_frame_of_itk(self, dims, tmp_path):
        """A NIfTI file (RAS) read by ITK (LPS) puts every voxel at the flipped position."""
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, :3] = torch.diag(torch.tensor([0.4, 1.5, 3.0], dtype=torch.float64))
        affine[:3, 3] = torch.tensor([-20.0, 35.0, 7.0])
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), affine.numpy()), tmp_path / "image.nii.gz")
        image = SimpleITK.ReadImage(str(tmp_path / "image.nii.gz"))
        points = random_points((4, 5, 6), 10)
        expected = torch.tensor([image.TransformContinuousIndexToPhysicalPoint(p) for p in points.tolist()])
        found = flip_ras_lps(voxel_to_mm(points, affine)[:, :dims])
        torch.testing.assert_close(found, expected.double()[:, :dims], rtol=0, atol=1e-5)

    def test_flip_is_its_own_inverse(self):
        points = random_points((5, 5, 5), 4)
        assert torch.equal(flip_ras_lps(flip_ras_lps(points)), points)

    def test_picture_lies_where_itk_puts_a_png(self, tmp_path):
        image = SimpleITK.GetImageFromArray(np.zeros((5, 8), np.uint8))
        image.SetSpacing((0.5, 0.2))  # x, y
        x, y = image.TransformIndexToPhysicalPoint((7, 3))
        mm = voxel_to_mm(torch.tensor([[3.0, 7.0]]), spatial_affine(image_affine((0.2, 0.5)), 2))
        assert flip_ras_lps(mm)[0].tolist() == pytest.approx([x, y])
        assert spacing_of(spatial_affine(image_affine((0.2, 0.5)), 2)).tolist() == pytest.approx([0.2, 0.5])


class TestGrid:
    @SHAPES
    def test_grid_sample_reads_the_voxel_that_is_meant(self, shape):
        """Every voxel of an image of distinct values, through torch's own sampling."""
        image = torch.arange(float(np.prod(shape))).view(1, 1, *shape)
        grid = voxel_to_grid(voxel_positions(shape)[None].flatten(1, -2), shape).view(1, *shape, len(shape))
        torch.testing.assert_close(F.grid_sample(image, grid, align_corners=False), image)

    def test_corners_of_the_image_are_one(self):
        edges = torch.tensor([[-0.5, -0.5], [3.5, 9.5]])  # outer edges of the first and the last pixel
        assert voxel_to_grid(edges, (4, 10)).tolist() == [[-1, -1], [1, 1]]
        assert voxel_to_grid(torch.tensor([[0.0, 9.5]]), (4, 10)).tolist() == [[1, -0.75]]  # x (column) first


class TestCells:
    @pytest.mark.parametrize("stride", [2, 4, (2, 3)], ids=str)
    def test_centre_of_a_cell_is_the_mean_of_its_voxels(self, stride):
        positions = voxel_positions((12, 12)).movedim(-1, 0)[None]
        means = F.avg_pool2d(positions, stride)[0].movedim(0, -1)
        cells = voxel_positions(means.shape[:2])
        torch.testing.assert_close(cell_to_voxel(cells, stride), means)
        torch.testing.assert_close(voxel_to_cell(means, stride), cells)

    def test_depth(self):
        assert cell_to_voxel(torch.zeros(1, 3), (1, 2, 4)).tolist() == [[0.0, 0.5, 1.5]]


class TestInside:
    def test_between_the_centres_of_the_outer_voxels(self):
        points = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.001, 4.0], [2.0, -0.001], [torch.nan, 1.0]])
        assert inside(points, (4, 5)).tolist() == [True, True, False, False, False]


class TestSampleAt:
    @SHAPES
    def test_equals_scipy(self, shape):
        image = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, *shape)))
        points = torch.stack([random_points(shape, 15, seed=n) for n in (2, 3)])
        found = sample_at(image, points)
        for b in range(2):
            for c in range(3):
                expected = map_coordinates(image[b, c].numpy(), points[b].T.numpy(), order=1)
                np.testing.assert_allclose(found[b, :, c].numpy(), expected, rtol=1e-9, atol=1e-9)

    def test_outside_takes_the_border(self):
        image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        assert sample_at(image, torch.tensor([[[-5.0, 0.0], [9.0, 9.0]]])).flatten().tolist() == [1.0, 4.0]

    def test_gradient(self):
        image = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
        points = random_points((4, 5), 3)[None]
        assert torch.autograd.gradcheck(lambda x: sample_at(x, points), (image,))
