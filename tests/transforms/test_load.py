"""Images in mm, and resampling that keeps every point where it is."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image
from skimage.registration import phase_cross_correlation

from medpixcl.coordinates import (
    apply_affine,
    flip_ras_lps,
    image_affine,
    mm_to_voxel,
    sample_at,
    spacing_of,
    spatial_affine,
    voxel_positions,
    working_affine,
)
from medpixcl.transforms import LoadImageMMd, WorkingSpacingd
from medpixcl.transforms.load import open_spacing, with_spacing_of
from medpixcl.transforms.orientation import in_common_axes
from tests.geometry import SHAPES, monai_affine, oblique_affine, random_image

DIMS = pytest.mark.parametrize("dims", [2, 3])


class TestLoadImageMMd:
    def test_picture_takes_its_spacing_from_the_item(self, tmp_path):
        values = np.arange(24, dtype=np.uint8).reshape(4, 6)
        Image.fromarray(values).save(tmp_path / "a.png")
        item = LoadImageMMd("image")({"image": str(tmp_path / "a.png"), "spacing_mm": [0.2, 0.5], "name": "a"})
        assert item["name"] == "a"
        np.testing.assert_array_equal(item["image"][0].numpy(), values)
        mm = apply_affine(spatial_affine(item["image"].affine, 2), torch.tensor([[3.0, 5.0]]).double())
        assert flip_ras_lps(mm)[0].tolist() == pytest.approx([5 * 0.5, 3 * 0.2])  # LPS: x along the columns

    def test_picture_without_spacing(self, tmp_path):
        Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.png")
        with pytest.raises(ValueError, match=r"a\.png.* has no pixel spacing"):
            LoadImageMMd("image")({"image": str(tmp_path / "a.png")})

    def test_volume_keeps_its_own_spacing(self, tmp_path):
        affine, values = oblique_affine(3).numpy(), np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii.gz")
        item = LoadImageMMd("image")({"image": str(tmp_path / "a.nii.gz"), "spacing_mm": [9.0, 9.0, 9.0]})
        np.testing.assert_array_equal(item["image"][0].numpy(), values)
        np.testing.assert_allclose(item["image"].affine.numpy(), affine, rtol=1e-5, atol=1e-4)


def affine_of(image: MetaTensor) -> torch.Tensor:
    return spatial_affine(torch.as_tensor(image.affine).double(), image.ndim - 1)


def centroid_mm(image: MetaTensor) -> torch.Tensor:
    """Mean position by value."""
    positions = voxel_positions(image.shape[1:]).double().flatten(0, -2)
    weights = image.as_tensor().flatten().double()
    return apply_affine(affine_of(image), positions).mul(weights[:, None]).sum(0) / weights.sum()


class TestWorkingSpacingd:
    @DIMS
    @pytest.mark.parametrize("factor", [0.6, 1.7, (0.7, 2.0, 1.0)], ids=str)
    def test_blob_stays_where_it_is(self, dims, factor):
        spacing = np.array([0.5, 0.8, 1.4][:dims])
        affine, target = oblique_affine(dims), (spacing * np.broadcast_to(factor, 3)[:dims]).tolist()
        centre = torch.tensor([[n / 2 + 0.37 for n in SHAPES[dims]]]).double()
        steps = (voxel_positions(SHAPES[dims]).double().flatten(0, -2) - centre) / 3.0  # sigma of 3 voxels
        values = torch.exp(-(steps**2).sum(-1) / 2).float().view(1, *SHAPES[dims])
        image = MetaTensor(values, affine=monai_affine(affine))
        found = WorkingSpacingd("image", spacing_mm=target)({"image": image})["image"]
        assert spacing_of(affine_of(found)).tolist() == pytest.approx(target)
        assert tuple(found.shape[1:]) != SHAPES[dims]
        error = mm_to_voxel(centroid_mm(found)[None], affine) - centre
        assert error.abs().max() < 0.02  # of a voxel of the image

    @DIMS
    def test_constant_stays_constant(self, dims):
        """Air at the border of a CT stays air."""
        air = MetaTensor(torch.full((1, *SHAPES[dims]), -1000.0), affine=monai_affine(oblique_affine(dims)))
        found = WorkingSpacingd("image", spacing_mm=[2.0] * dims)({"image": air})["image"]
        torch.testing.assert_close(found.as_tensor(), torch.full_like(found.as_tensor(), -1000.0), rtol=0, atol=0.01)

    @DIMS
    def test_nothing_aliases(self, dims):
        """A pattern too fine for the new pixels turns to its mean, not to a coarse pattern."""
        stripes = (voxel_positions((60,) * dims).sum(-1) % 3 == 0).float()[None]
        image = MetaTensor(stripes, affine=torch.eye(4, dtype=torch.float64))
        found = WorkingSpacingd("image", spacing_mm=[4.0] * dims)({"image": image})["image"].as_tensor()
        inner = found[(0, *[slice(2, -2)] * dims)]
        assert (inner - 1 / 3).abs().max() < 0.05

    @DIMS
    def test_left_alone(self, dims):
        image = in_common_axes(random_image(SHAPES[dims]))
        sizes = spacing_of(working_affine(image)).tolist()
        close = [s * 1.009 for s in sizes]
        for spacing in (None, close):
            assert WorkingSpacingd("image", spacing_mm=spacing)({"image": image})["image"] is image
        far = [s * 1.02 for s in sizes]
        assert WorkingSpacingd("image", spacing_mm=far)({"image": image})["image"] is not image

    @pytest.mark.data
    def test_cephalogram_equals_its_block_mean(self, data_dir: Path):
        """From 0.1 to 0.5 mm: the anatomy of the published copy (5 x 5 block mean), in the same place to 0.1 px."""
        folder = data_dir / "ceph_isbi2015"
        load = LoadImageMMd("image")
        native = load({"image": str(folder / "native" / "001.jpg"), "spacing_mm": [0.1, 0.1]})
        copy = load({"image": str(folder / "images" / "001.png"), "spacing_mm": [0.5, 0.5]})["image"]
        working = WorkingSpacingd("image", spacing_mm=[0.5, 0.5])(native)["image"]
        assert max(abs(a - b) for a, b in zip(working.shape, copy.shape, strict=True)) <= 1

        # Pixel 0 of the copy is the mean of five, so it lies at 0.2 mm.
        shift = torch.eye(3, dtype=torch.float64)
        shift[:2, 2] = 2.0
        at_copy = spatial_affine(image_affine((0.1, 0.1)), 2) @ shift
        at_copy[:, :2] *= 5
        mm = apply_affine(at_copy, voxel_positions(copy.shape[1:]).double().flatten(0, -2))
        where = mm_to_voxel(mm, affine_of(working)).float()[None]
        resampled = sample_at(working.as_tensor()[None], where)[0, :, 0].view(copy.shape[1:]).numpy()
        expected = copy[0].numpy()
        assert np.corrcoef(resampled.ravel(), expected.ravel())[0, 1] > 0.99
        for row in range(60, 340, 90):
            for column in range(60, 260, 90):
                window = slice(row, row + 96), slice(column, column + 96)
                offset = phase_cross_correlation(expected[window], resampled[window], upsample_factor=50)[0]
                assert np.abs(offset).max() <= 0.1

    @pytest.mark.parametrize("spacing_mm", [[], [0.0, 1.0], [-1.0, 1.0], [float("nan"), 1.0]])
    def test_no_spacing(self, spacing_mm):
        with pytest.raises(
            ValueError, match=r"the working spacing is .*; expected a list with a positive number for each"
        ):
            WorkingSpacingd("image", spacing_mm)

    def test_more_pixels_than_memory_holds(self):
        """40 x 40 x 40 voxels of 50 mm would be 8 thousand million of 1 mm; nothing is allocated for them."""
        image = MetaTensor(torch.zeros(1, 40, 40, 40), affine=torch.diag(torch.tensor([50.0, 50.0, 50.0, 1.0])))
        with pytest.raises(ValueError, match=r"would have 8e\+09 pixels at the working spacing of 1 x 1 x 1 mm: check"):
            WorkingSpacingd("image", (1.0, 1.0, 1.0))({"image": image})

    @pytest.mark.parametrize("factor", [1e-6, 1e6])
    def test_spacing_that_cannot_be_true(self, factor):
        image = MetaTensor(torch.zeros(1, 4, 4), affine=image_affine((factor, factor)))
        with pytest.raises(ValueError, match=r"has pixels of .*, but the working spacing is .*: check both"):
            WorkingSpacingd("image", (1.0, 1.0))({"image": image})


def blank(shape: tuple[int, ...], sizes: tuple[float, ...]) -> MetaTensor:
    """Zeros in a file whose axes run along RAS (a volume), or those of a screen (a picture)."""
    affine = torch.diag(torch.tensor([*sizes, 1.0])) if len(sizes) == 3 else image_affine(sizes)
    return MetaTensor(torch.zeros(1, *shape), affine=affine.double())


OPEN = pytest.mark.parametrize(
    ("shape", "sizes", "expected"),
    [
        ((60, 50, 40), (1.0, 1.0, 1.0), 60 / 16),
        ((20, 40, 30), (2.0, 1.0, 2.0), 60 / 16),  # the axis with the fewest voxels but one is the longest in mm
        ((12, 10, 9), (2.0, 1.5, 1.5), 1.5),  # 24 mm in 16 voxels need no less than the image has
        ((80, 60), (0.5, 0.25), 40 / 16),
    ],
)


class TestOpenSpacing:
    """Without a spacing of its own, the transform takes what ``longest_side`` allows."""

    @OPEN
    def test_voxels_of_one_size(self, shape, sizes, expected):
        image = blank(shape, sizes)
        transform = WorkingSpacingd("image", None, longest_side=16)
        assert transform.spacing_for(image) == pytest.approx([expected] * len(shape))
        found = transform({"image": image})["image"]
        assert spacing_of(affine_of(found)).tolist() == pytest.approx([expected] * len(shape))
        assert max(found.shape[1:]) in (16, 17)  # voxels at both ends, as MONAI's Spacing counts

    def test_a_long_narrow_volume_keeps_enough_voxels(self):
        """10 x 10 x 200 mm: as many voxels as a cube of 8, half of the longest side, not 1 x 1 x 16."""
        (step, *_) = WorkingSpacingd("image", None, longest_side=16).spacing_for(blank((10, 10, 200), (1.0, 1.0, 1.0)))
        assert 10 * 10 * 200 / step**3 == pytest.approx(8**3)

    @pytest.mark.parametrize("code", ["LPS", "PIR", "SLA"])
    def test_the_axes_of_the_file_change_nothing(self, code, tmp_path):
        """The spacing goes with the common axes, not with those of the file."""
        values = np.zeros((20, 40, 30), np.float32)
        image = nibabel.Nifti1Image(values, np.diag([2.0, 1.0, 2.0, 1.0]))
        change = nibabel.orientations.ornt_transform(
            nibabel.orientations.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(code)
        )
        nibabel.save(image.as_reoriented(change), tmp_path / "turned.nii")
        item = LoadImageMMd("image")({"image": str(tmp_path / "turned.nii")})
        expected = WorkingSpacingd("image", None, longest_side=16)({"image": blank((20, 40, 30), (2.0, 1.0, 2.0))})
        found = WorkingSpacingd("image", None, longest_side=16)(item)["image"]
        assert found.shape == expected["image"].shape
        assert spacing_of(affine_of(found)).tolist() == pytest.approx([60 / 16] * 3)

    def test_a_given_spacing_wins(self):
        transform = WorkingSpacingd("image", [2.0, 3.0, 4.0], longest_side=16)
        assert transform.spacing_for(blank((60, 50, 40), (1.0, 1.0, 1.0))) == [2.0, 3.0, 4.0]
        assert not open_spacing(Compose([transform]))

    def test_which_chains_are_open(self):
        assert open_spacing(Compose([LoadImageMMd("image"), WorkingSpacingd("image", None, longest_side=16)]))
        assert not open_spacing(Compose([WorkingSpacingd("image", None)]))
        assert not open_spacing(Compose([LoadImageMMd("image")]))

    @pytest.mark.parametrize("side", [7, 0, -96])
    def test_no_longest_side(self, side):
        with pytest.raises(ValueError, match=r"^the longest side is .* pixels; expected a whole number from 8 up$"):
            WorkingSpacingd("image", None, longest_side=side)

    @pytest.mark.parametrize("code", ["RAS", "PIR"])
    def test_all_images_get_the_spacing_of_one(self, code, tmp_path):
        """Of a file in any orientation; the chain itself stays open."""
        first, second = blank((60, 50, 40), (1.0, 1.0, 2.0)), blank((30, 30, 30), (3.0, 2.0, 2.0))
        if code == "PIR":
            affine = torch.tensor([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, 1.0]], dtype=torch.float64)
            first = MetaTensor(torch.zeros(1, 50, 40, 60), affine=affine)
        chain = Compose([LoadImageMMd("image"), WorkingSpacingd("image", None, longest_side=16)])
        fixed = with_spacing_of({"image": first}, chain)
        for image in (first, second):
            assert spacing_of(affine_of(fixed({"image": image})["image"])).tolist() == pytest.approx([5.0] * 3)
        coarser = with_spacing_of({"image": first}, chain, 8)({"image": second})["image"]
        assert spacing_of(affine_of(coarser)).tolist() == pytest.approx([10.0] * 3)
        assert open_spacing(chain)
        assert not open_spacing(fixed)
        assert spacing_of(affine_of(chain({"image": second})["image"])).tolist() == pytest.approx([90 / 16] * 3)

    def test_an_image_of_other_dimensions(self):
        chain = Compose([WorkingSpacingd("image", None, longest_side=16)])
        fixed = with_spacing_of({"image": blank((60, 50, 40), (1.0, 1.0, 1.0))}, chain)
        with pytest.raises(
            ValueError, match=r"has 2 spatial axes; the working spacing has 3: take 3D images\.$"
        ) as caught:
            fixed.transforms[0]({"image": blank((20, 20), (1.0, 1.0))})
        assert "\n" not in str(caught.value)
