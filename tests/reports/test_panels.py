import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from medpixcl.reports.panels import as_array, grey_levels, panels

ORIENTATIONS = ["RAS", "LPS", "LAS", "PSR", "SLA", "IPR"]


def oriented_affine(codes: str, shape: tuple[int, int, int]) -> np.ndarray:
    """RAS+ affine of an array of ``shape`` whose axes run towards ``codes``, 1 x 2 x 3 mm from left to head."""
    transform = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    axes = [int(np.flatnonzero(transform[:, 0] == axis)[0]) for axis in range(3)]
    canonical_shape = tuple(np.array(shape)[[int(transform[axis, 0]) for axis in range(3)]])
    assert sorted(axes) == [0, 1, 2]
    return np.diag([1.0, 2.0, 3.0, 1.0]) @ inv_ornt_aff(transform, canonical_shape)


class TestVolumes:
    @pytest.mark.parametrize("codes", ORIENTATIONS)
    def test_upright_whatever_the_orientation(self, codes: str, rng: np.random.Generator) -> None:
        """nibabel's canonical array, seen with the patient's right at the left and the head up."""
        volume = rng.random((5, 6, 7)).astype(np.float32)
        affine = oriented_affine(codes, volume.shape)
        assert "".join(nibabel.aff2axcodes(affine)) == codes
        canonical = np.asarray(nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine)).dataobj)
        axial, coronal, sagittal = panels(volume, affine=affine)
        for panel, through in ((axial, 2), (coronal, 1), (sagittal, 0)):
            expected = canonical.mean(axis=through).T[::-1, ::-1]
            np.testing.assert_allclose(panel.picture, grey_levels(expected), atol=1e-6)
        assert [panel.view.title for panel in (axial, coronal, sagittal)] == ["axial", "coronal", "sagittal"]
        assert [panel.view.ends for panel in (axial, coronal, sagittal)] == ["RLAP", "RLSI", "APSI"]
        assert (axial.spacing, coronal.spacing, sagittal.spacing) == ((2, 1), (3, 1), (3, 2))

    @pytest.mark.parametrize("codes", ORIENTATIONS)
    def test_points_lie_on_what_they_mark(self, codes: str) -> None:
        volume = np.zeros((5, 6, 7), dtype=np.float32)
        volume[1, 4, 5] = 1
        for panel in panels(volume, affine=oriented_affine(codes, volume.shape)):
            column, row = panel.place(np.array([[1.0, 4.0, 5.0]], dtype=np.float32))[0]
            assert np.unravel_index(panel.picture.argmax(), panel.picture.shape) == (row, column)

    def test_without_affine_taken_as_ras_and_not_named(self, rng: np.random.Generator) -> None:
        volume = rng.random((5, 6, 7)).astype(np.float32)
        named, plain = panels(volume, affine=np.diag([1.0, 2.0, 3.0, 1.0])), panels(volume, spacing=(1.0, 2.0, 3.0))
        for one, other in zip(named, plain, strict=True):
            np.testing.assert_array_equal(one.picture, other.picture)
            assert one.spacing == other.spacing
            assert other.view.title == other.view.ends == ""

    def test_same_as_a_picture_with_a_depth_of_one(self, rng: np.random.Generator) -> None:
        picture = rng.random((5, 6)).astype(np.float32)
        axial = panels(picture[..., None])[0]
        np.testing.assert_array_equal(axial.picture, panels(picture)[0].picture.T[::-1, ::-1])


class TestPictures:
    def test_rows_run_down(self) -> None:
        (panel,) = panels(np.arange(6.0).reshape(2, 3), spacing=(2.0, 0.5))
        assert panel.picture[1, 2] == 1
        assert panel.size_mm == (4.0, 1.5)
        assert panel.place(np.array([[1.0, 2.0]])).tolist() == [[2.0, 1.0]]

    def test_affine_gives_the_spacing(self) -> None:
        (panel,) = panels(np.eye(3), affine=np.array([[0, -0.5, 0], [-2, 0, 0], [0, 0, 1.0]]))
        assert panel.spacing == (2.0, 0.5)

    @pytest.mark.parametrize("shape", [(3,), (1, 2, 3, 4)])
    def test_wrong_axes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=f"image of {len(shape)} axes"):
            panels(np.zeros(shape))


class TestGreyLevels:
    def test_outliers_saturate_and_nan_is_black(self) -> None:
        levels = grey_levels(np.array([np.nan, -1e6, *np.linspace(0, 1, 998), 1e6]))
        assert levels[0] == levels[1] == 0
        assert levels[-1] == 1
        assert levels[500] == pytest.approx(0.5, abs=0.01)

    def test_constant(self) -> None:
        assert grey_levels(np.full((2, 2), 7.0)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    "data",
    [
        torch.arange(4).bfloat16(),
        MetaTensor(torch.arange(4.0)),
        torch.arange(4.0, requires_grad=True),
        np.arange(4, dtype=np.uint16),
        np.arange(4.0)[::-1][::-1],
        np.arange(3, -1, -1)[::-1],
    ],
    ids=["bfloat16", "MetaTensor", "gradient", "uint16", "view", "negative stride"],
)
def test_as_array(data: torch.Tensor | np.ndarray) -> None:
    array = as_array(data)
    assert type(array) is np.ndarray
    assert array.dtype == np.float32
    assert array.tolist() == [0, 1, 2, 3]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
