"""Slices through a point: the right plane, the right way up, and the point where it is seen."""

import nibabel
import numpy as np
import pytest
from scipy.ndimage import center_of_mass, map_coordinates
from scipy.stats import special_ortho_group

from medpixcl.reports.cuts import MarkedVolume, cuts_through
from medpixcl.reports.panels import grey_levels, panels
from tests.reports.test_panels import ORIENTATIONS, oriented_affine

SHAPE = (30, 28, 26)
MIDDLE = np.array([[14.3, 13.8, 12.6]])


def marked(values: np.ndarray, codes: str = "RAS", points: np.ndarray = MIDDLE) -> MarkedVolume:
    return MarkedVolume(image=values.astype(np.float32), points=points, affine=oriented_affine(codes, values.shape))


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_the_slice_through_the_point(codes: str) -> None:
    """SciPy's interpolation of nibabel's canonical array, from right to left and from the head down."""
    volume = marked(np.random.default_rng(0).random(SHAPE), codes)
    affine = np.asarray(volume.affine)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.image, affine))
    middle = np.linalg.inv(canonical.affine) @ affine @ [*MIDDLE[0], 1]
    steps = 0.5 * (np.arange(11) - 5)
    cuts = cuts_through(volume, MIDDLE[0], side_mm=5.5, pixels=11)
    for cut, (title, down, right) in zip(cuts, (("axial", 1, 0), ("coronal", 2, 0), ("sagittal", 2, 1)), strict=True):
        places = np.broadcast_to(middle[:3, None, None], (3, 11, 11)).copy()
        places[down] -= steps[:, None] / (1, 2, 3)[down]
        places[right] -= steps / (1, 2, 3)[right]
        expected = map_coordinates(np.asarray(canonical.dataobj), places, order=1)
        assert cut.panel.view.title == title
        np.testing.assert_allclose(cut.panel.picture, grey_levels(expected, volume.grey_limits), atol=1e-4)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_point_stands_on_what_it_marks(codes: str) -> None:
    """A bright voxel in the planes of a slice that is centred elsewhere; a corner that none shows sets the greys."""
    values = np.zeros(SHAPE)
    values[:7, :7, :7] = values[14, 12, 13] = 1
    volume, spot = marked(values, codes), np.array([14.0, 12.0, 13.0])
    for axis in range(3):
        centre = spot + np.where(np.arange(3) == axis, 0, [2, -1, 1])
        for cut in cuts_through(volume, centre, side_mm=31.0, pixels=31):
            if {*cut.panel.view.axes, axis} == {0, 1, 2}:
                x, y = cut.place(spot)
                assert center_of_mass(cut.panel.picture) == pytest.approx([y, x], abs=1e-4)
                assert cut.sides_away(spot) == 0
                assert cut.sides_away(centre + 1) == pytest.approx(volume.spacing[axis] / 31, rel=1e-5)


def test_black_outside() -> None:
    volume = marked(np.arange(np.prod(SHAPE)).reshape(SHAPE))
    (axial, *_) = cuts_through(volume, np.array([0.0, 14.0, 13.0]), side_mm=10.0, pixels=10)
    assert (axial.panel.picture[:, -4:] == 0).all(), "x runs from the patient's right, and the image ends at 0"
    bright = cuts_through(volume, np.array([29.0, 14.0, 13.0]), side_mm=10.0, pixels=10)[0].panel.picture
    assert (bright[:, :4] == 0).all()
    assert (bright[:, 6:] > 0.8).all()


def test_size_follows_the_landmarks() -> None:
    """Twice the median distance from the middle, in mm: of a mouse in mm, of a man in cm."""
    corners = np.array([[x, y, z] for x in (5, 15) for y in (5, 15) for z in (5, 15)], dtype=float)
    man, mouse = (
        MarkedVolume(image=np.zeros((20, 20, 20)), points=corners, affine=np.diag([size, size, size, 1.0]))
        for size in (10.0, 1.0)
    )
    assert mouse.side_mm == pytest.approx(2 * np.sqrt(75))
    assert man.side_mm == pytest.approx(10 * mouse.side_mm)


def test_size_without_a_spread() -> None:
    """Of few landmarks half of the mean extent of 30, 56 and 78 mm, of landmarks at one place 16 voxels of 3 mm."""
    missing = np.full((5, 3), np.nan)
    assert marked(np.zeros(SHAPE), points=missing).side_mm == pytest.approx(max((30 + 56 + 78) / 6, 48))
    assert marked(np.zeros(SHAPE), points=np.ones((5, 3))).side_mm == pytest.approx(48)
    large = marked(np.zeros((60, 60, 60)), points=missing)
    assert large.side_mm == pytest.approx((60 + 120 + 180) / 6)


def test_section_of_an_ellipsoid() -> None:
    """Directions within the plane reach the border of the section where they reach that of the ellipsoid."""
    turn = special_ortho_group.rvs(3, random_state=np.random.default_rng(0))
    region = turn @ np.diag([36.0, 4.0, 9.0]) @ turn.T
    affine = np.diag([-0.5, 0.8, -1.2, 1.0])
    for panel in panels(np.random.default_rng(0).random((20, 18, 16)), affine=affine):
        outline = panel.section(region[None])[0]
        for angle in np.linspace(0, np.pi, 7):
            direction = np.zeros(3)
            direction[list(panel.view.axes)] = np.cos(angle), np.sin(angle)
            border = direction / np.sqrt(direction @ np.linalg.inv(region) @ direction)
            start, end = panel.place(np.stack([np.zeros(3), border / np.abs(np.diag(affine)[:3])]))
            assert (end - start) @ np.linalg.inv(outline) @ (end - start) == pytest.approx(1)
