"""Views against analytic positions, scipy and images whose values are known everywhere."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from medpixcl.coordinates import apply_affine, voxel_positions
from medpixcl.views import (
    View,
    ViewRanges,
    affine_view,
    coordinate_map,
    reach,
    resample,
    rotation_matrix,
    smooth_field,
    view_positions,
)
from tests.geometry import SHAPES, oblique_affine, random_points

DIMS = pytest.mark.parametrize("dims", [2, 3])
SPACING = {2: (0.5, 1.25), 3: (2.0, 0.5, 1.25)}


def turned_view(dims: int, **options) -> View:
    """Crop of an anisotropic image: turned, enlarged, mirrored along the first axis."""
    shape = SHAPES[dims]
    given = {
        "shape": [18, 20, 22][:dims],
        "centre": [n / 2 + 1.3 for n in shape],
        "spacing_mm": SPACING[dims],
        "rotation_degrees": [17.0] if dims == 2 else [17.0, -11.0, 8.0],
        "scale": 1.2,
        "flip": [True, False, False][:dims],
    }
    return affine_view(**(given | options))


def elastic_view(dims: int) -> View:
    control = torch.randn(dims, *[5] * dims, generator=torch.Generator().manual_seed(4))
    view = turned_view(dims)
    return View(matrix=view.matrix, shape=view.shape, displacement=1.5 * control)


def positions_of(view: View) -> torch.Tensor:
    displacement = None if view.displacement is None else view.displacement[None]
    return view_positions(view.matrix[None], view.shape, displacement)


class TestRotation:
    def test_three_axes_equal_scipy(self):
        angles = [17.0, -40.0, 77.0]
        expected = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        np.testing.assert_allclose(rotation_matrix(angles).numpy(), expected, atol=1e-12)

    def test_quarter_turn_in_the_plane(self):
        torch.testing.assert_close(
            rotation_matrix([90.0]) @ torch.tensor([1.0, 0.0], dtype=torch.float64),
            torch.tensor([0.0, 1.0], dtype=torch.float64),
        )

    def test_turn_in_the_plane_is_that_about_the_last_axis(self):
        torch.testing.assert_close(rotation_matrix([0.0, 0.0, 25.0])[:2, :2], rotation_matrix([25.0]))


class TestAffineView:
    @DIMS
    def test_plain_crop(self, dims):
        still = {2: [0.0], 3: [0.0, 0.0, 0.0]}[dims]
        view = affine_view(shape=[5] * dims, centre=[9.0] * dims, spacing_mm=SPACING[dims], rotation_degrees=still)
        assert torch.equal(positions_of(view)[0], voxel_positions([5] * dims) + 7)

    @DIMS
    def test_middle_of_the_view_shows_the_centre(self, dims):
        view = turned_view(dims)
        middle = torch.tensor([[(n - 1) / 2 for n in view.shape]], dtype=torch.float64)
        expected = torch.tensor([[n / 2 + 1.3 for n in SHAPES[dims]]], dtype=torch.float64)
        torch.testing.assert_close(apply_affine(view.matrix, middle), expected)

    @DIMS
    @pytest.mark.parametrize("pixel_mm", [None, 0.8], ids=["own pixels", "0.8 mm"])
    def test_rigid_up_to_the_scale_in_mm(self, dims, pixel_mm):
        """The steps of the view, in mm, are perpendicular and of the length asked for, whatever the spacing."""
        pixel = SPACING[dims] if pixel_mm is None else [pixel_mm] * dims
        view = turned_view(dims, pixel_mm=None if pixel_mm is None else pixel, scale=1.6)
        steps = torch.diag(torch.tensor(SPACING[dims]).double()) @ view.matrix[:dims, :dims]
        expected = torch.diag((torch.tensor(pixel).double() / 1.6) ** 2)
        torch.testing.assert_close(steps.T @ steps, expected, atol=1e-12, rtol=1e-7)
        assert torch.linalg.det(steps) < 0  # mirrored along one axis

    def test_quarter_turn_of_an_anisotropic_image(self):
        """Rows 1 mm, columns 2 mm apart: one view row, 1 mm, is half a column after a quarter turn."""
        view = affine_view(shape=(3, 3), centre=(10.0, 10.0), spacing_mm=(1.0, 2.0), rotation_degrees=(90.0,))
        torch.testing.assert_close(positions_of(view)[0, 0, 1], torch.tensor([10.0, 9.5]))
        torch.testing.assert_close(positions_of(view)[0, 1, 0], torch.tensor([12.0, 10.0]))

    @DIMS
    def test_locate_is_the_inverse(self, dims):
        view = turned_view(dims)
        pixels = random_points(view.shape, 20)
        torch.testing.assert_close(view.locate(apply_affine(view.matrix, pixels)), pixels, rtol=0, atol=1e-10)

    def test_a_deformed_view_has_no_inverse(self):
        with pytest.raises(ValueError, match=r"^a deformed view has no closed inverse: take .* its coordinate map$"):
            elastic_view(2).locate(torch.zeros(1, 2))


class TestReach:
    @DIMS
    @pytest.mark.parametrize("elastic_mm", [0.0, 4.0])
    def test_every_voxel_that_counts_lies_in_the_part(self, dims, elastic_mm):
        """Corners of the cells that the views interpolate in, as far as the image has them."""
        state, size = np.random.RandomState(0), torch.tensor(SHAPES[dims])
        ranges = ViewRanges([9] * dims, 40.0, (0.7, 1.4), 0.5, elastic_mm)
        for _ in range(30):
            centres = [state.uniform(-3, np.array(SHAPES[dims]) + 3) for _ in range(2)]
            views = [ranges.sample(state, centre, np.array(SPACING[dims])) for centre in centres]
            part = reach(views, SHAPES[dims])
            start, stop = (torch.tensor([getattr(one, end) for one in part]) for end in ("start", "stop"))
            assert ((start >= 0) & (start < stop) & (stop <= size)).all()
            positions = torch.cat([positions_of(view).flatten(0, -2) for view in views])
            for voxel in (positions.floor(), positions.ceil()):
                held = ((voxel >= start) & (voxel < stop)) | (voxel < 0) | (voxel >= size)
                assert held.all()

    @DIMS
    def test_part_of_a_small_view_is_small(self, dims):
        """A plain crop needs its own pixels; one more on each side is allowed for rounding."""
        view = affine_view(shape=[5] * dims, centre=[9.0] * dims, spacing_mm=SPACING[dims])
        assert reach([view], [20] * dims) == (slice(6, 13),) * dims

    @DIMS
    def test_view_of_a_part(self, dims):
        start = [3, 1, 2][:dims]
        found = positions_of(elastic_view(dims).of_part(start)) + torch.tensor(start)
        torch.testing.assert_close(found, positions_of(elastic_view(dims)), rtol=0, atol=1e-4)


class TestSmoothField:
    def test_plane_equals_bicubic(self):
        control = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
        expected = F.interpolate(control, size=(17, 30), mode="bicubic", align_corners=True)
        torch.testing.assert_close(smooth_field(control, (17, 30)), expected, rtol=1e-4, atol=1e-5)

    def test_volume_passes_through_its_control_points(self):
        control = torch.randn(1, 3, 5, 5, 5, generator=torch.Generator().manual_seed(0))
        field = smooth_field(control, (9, 13, 17))
        torch.testing.assert_close(field[:, :, ::2, ::3, ::4], control, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("axis", [2, 3, 4])
    def test_volume_without_change_along_an_axis_equals_the_plane(self, axis):
        control = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))
        volume = control.unsqueeze(axis).expand(-1, -1, *[5] * 3)
        sizes = [11, 12, 13]
        plane = smooth_field(control, [size for place, size in enumerate(sizes) if place != axis - 2])
        found = smooth_field(volume, sizes)
        torch.testing.assert_close(found, plane.unsqueeze(axis).expand_as(found), rtol=1e-4, atol=1e-5)


class TestViewPositions:
    @DIMS
    def test_affine(self, dims):
        view = turned_view(dims)
        found = positions_of(view)[0]
        for index in np.ndindex(*view.shape):
            if sum(index) % 7 == 0:
                expected = view.matrix.numpy() @ [*index, 1]
                assert found[index].tolist() == pytest.approx(expected[:-1], abs=1e-4)

    @DIMS
    def test_deformed_is_affine_plus_displacement(self, dims):
        view = elastic_view(dims)
        bend = positions_of(view) - view_positions(view.matrix[None], view.shape)
        expected = smooth_field(view.displacement[None], view.shape).movedim(1, -1)
        torch.testing.assert_close(bend, expected, rtol=0, atol=1e-4)
        corner = (0,) * dims
        assert bend[0][corner].tolist() == pytest.approx(view.displacement[(slice(None), *corner)].tolist(), abs=1e-4)


class TestResample:
    @DIMS
    @pytest.mark.parametrize(("mode", "order"), [("bilinear", 1), ("nearest", 0)])
    def test_equals_scipy(self, dims, mode, order):
        """Over the border too, where both fade to zero."""
        image = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, *SHAPES[dims])))
        view = turned_view(dims, scale=0.5)
        positions = positions_of(view).double().expand(2, *view.shape, dims)
        assert (positions < 0).any()
        found = resample(image, positions, mode=mode)
        for b in range(2):
            for c in range(3):
                where = positions[b].movedim(-1, 0).numpy()
                expected = map_coordinates(image[b, c].numpy(), where, order=order, mode="grid-constant")
                np.testing.assert_allclose(found[b, c].numpy(), expected, atol=1e-9)

    @DIMS
    @pytest.mark.parametrize("make", [turned_view, elastic_view])
    def test_image_and_coordinate_map_stay_in_step(self, dims, make):
        """An image whose value is its position in mm (linear, so interpolation is exact) shows the coordinate map."""
        affine = oblique_affine(dims).float()
        shape = SHAPES[dims]
        ramps = apply_affine(affine, voxel_positions(shape).flatten(0, -2)).T.reshape(1, dims, *shape)
        positions = positions_of(make(dims))
        coords = coordinate_map(positions, affine[None], shape)
        shown = resample(ramps, positions)
        valid = coords[:, -1:].bool().expand_as(shown)
        assert valid.float().mean() > 0.7
        torch.testing.assert_close(shown[valid], coords[:, :-1][valid], rtol=0, atol=2e-3)

    @DIMS
    @pytest.mark.parametrize("make", [turned_view, elastic_view])
    def test_blob_is_shown_where_the_coordinate_map_says(self, dims, make):
        """A blob round a point: every pixel has the value that its distance in mm to the point gives."""
        spacing = torch.tensor(SPACING[dims])
        affine, width = torch.diag(torch.tensor([*SPACING[dims], 1.0])), 5.0 * spacing.max()
        point = (torch.tensor(SHAPES[dims]) / 2 + 2.0) * spacing

        def blob(mm: torch.Tensor) -> torch.Tensor:
            return torch.exp(-((mm - point) ** 2).sum(-1) / (2 * width**2))

        image = blob(voxel_positions(SHAPES[dims]) * spacing)[None, None]
        positions = positions_of(make(dims))
        coords = coordinate_map(positions, affine[None], SHAPES[dims])
        shown, valid = resample(image, positions)[0, 0], coords[0, -1].bool()
        predicted = blob(coords[0, :-1].movedim(0, -1))
        bound = ((spacing / width) ** 2 / 8).sum()  # of linear interpolation: second derivative at most 1 / width^2
        assert (shown - predicted)[valid].abs().max() <= bound + 1e-5
        assert predicted[valid].max() > 0.98


class TestCoordinateMap:
    @DIMS
    def test_position_and_validity(self, dims):
        affine, view = oblique_affine(dims), turned_view(dims, scale=0.4)
        coords = coordinate_map(positions_of(view), affine.float()[None], SHAPES[dims])[0]
        assert coords.isfinite().all()
        last = np.array(SHAPES[dims]) - 1
        seen = 0
        for index in list(np.ndindex(*view.shape))[::5]:
            voxel = (view.matrix.numpy() @ [*index, 1])[:-1]
            mm = (affine.numpy() @ [*voxel, 1])[:-1]
            found = coords[(slice(None), *index)]
            assert found[:-1].tolist() == pytest.approx(mm, abs=2e-3)
            if abs(voxel).min() > 1e-3 and abs(voxel - last).min() > 1e-3:
                inside = bool((voxel > 0).all() and (voxel < last).all())
                assert found[-1].item() == inside
                seen += inside
        assert 0 < seen < np.prod(view.shape) / 5


def test_plane_equals_volume_with_a_depth_of_one():
    """The same view in 2D, and in 3D of an image with one slice: positions, images, coordinate maps."""
    plane = turned_view(2)
    volume = affine_view(
        shape=(1, *plane.shape),
        centre=(0.0, *[n / 2 + 1.3 for n in SHAPES[2]]),
        spacing_mm=(3.0, *SPACING[2]),
        rotation_degrees=(17.0, 0.0, 0.0),
        pixel_mm=(3.0 * 1.2, *SPACING[2]),
        scale=1.2,
        flip=(False, True, False),
    )
    bend = 1.5 * torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(4))
    bend_volume = torch.cat([torch.zeros(1, 5, 5), bend])[:, None].expand(3, 5, 5, 5)
    image = torch.rand(1, 1, *SHAPES[2], generator=torch.Generator().manual_seed(1))
    for flat, deep in ((None, None), (bend[None], bend_volume[None])):
        here = view_positions(plane.matrix[None], plane.shape, flat)
        there = view_positions(volume.matrix[None], volume.shape, deep)
        torch.testing.assert_close(there[:, 0, ..., 1:], here, rtol=0, atol=1e-4)
        assert (there[..., 0] == 0).all()
        torch.testing.assert_close(
            resample(image[:, :, None], there)[:, :, 0], resample(image, here), rtol=1e-3, atol=1e-4
        )
        affine = oblique_affine(2).float()
        deep_affine = torch.eye(4)
        deep_affine[1:, 1:] = affine
        flat_map = coordinate_map(here, affine[None], SHAPES[2])
        deep_map = coordinate_map(there, deep_affine[None], (1, *SHAPES[2]))
        torch.testing.assert_close(deep_map[:, 1:, 0], flat_map, rtol=1e-5, atol=1e-3)
