"""Pictures and volumes: values, position in space, and what is refused."""

import shutil
import zipfile
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import SaveImage
from PIL import Image

from medpixcl.coordinates import flip_ras_lps, voxel_to_mm
from medpixcl.data.images import ImageFileError, MissingSpacingError, read_image
from medpixcl.data.pixels import in_c_order

OBLIQUE = np.array([[0.0, -1.9, 0.3, 5.0], [1.2, 0.0, 0.1, -7.0], [0.1, 0.2, 2.5, 3.0], [0.0, 0.0, 0.0, 1.0]])


def ramp(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def lps_of_itk(path: Path, index: tuple[int, ...]) -> torch.Tensor:
    """Physical position of an ITK index (x, y, z), as SimpleITK computes it."""
    return torch.tensor([SimpleITK.ReadImage(str(path)).TransformIndexToPhysicalPoint(index)], dtype=torch.float64)


def lps_of(image: MetaTensor, voxel: tuple[int, ...]) -> torch.Tensor:
    padded = torch.tensor([[*voxel, *[0] * (3 - len(voxel))]], dtype=torch.float64)
    return flip_ras_lps(voxel_to_mm(padded, image.affine))


def test_picture_is_rows_by_columns_with_the_given_spacing(tmp_path: Path) -> None:
    values = ramp((4, 6)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", spacing_mm=(0.5, 0.25))
    assert image.shape == (1, 4, 6)
    assert image.dtype == torch.float32
    assert image.affine.shape == (4, 4)
    np.testing.assert_array_equal(image[0].numpy(), values)
    # LPS: x = column * 0.25, y = row * 0.5
    torch.testing.assert_close(lps_of(image, (2, 4)), torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))
    assert image.meta["filename_or_obj"] == str(tmp_path / "a.png")
    assert image.meta["spacing_source"] == "given"


def test_picture_without_spacing_is_refused_unless_that_is_allowed(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(MissingSpacingError, match=r"a\.png: has no pixel spacing; give spacing_mm\."):
        read_image(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", allow_missing_spacing=True)
    assert image.meta["spacing_source"] == "unknown"
    torch.testing.assert_close(lps_of(image, (2, 4)), torch.tensor([[4.0, 2.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_kept(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 1, 300], [40000, 65534, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}", spacing_mm=1)[0].numpy(), values)


@pytest.mark.parametrize("suffix", ["bmp", "jpg", "png", "tiff"])
def test_colour_becomes_luminance(tmp_path: Path, suffix: str) -> None:
    flat = np.broadcast_to(np.array([200, 100, 50], np.uint8), (16, 16, 3))
    Image.fromarray(flat.copy()).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}", spacing_mm=1)
    assert image.shape == (1, 16, 16)
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    np.testing.assert_allclose(image.numpy(), 0.299 * 200 + 0.587 * 100 + 0.114 * 50, atol=1.0)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_laid_over_black(tmp_path: Path, mode: str) -> None:
    grey = Image.new("L", (2, 1), 200)
    alpha = Image.fromarray(np.array([[255, 0]], np.uint8))
    Image.merge(mode, [grey] * (len(mode) - 1) + [alpha]).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", spacing_mm=1).flatten().tolist() == [200.0, 0.0]


def test_picture_is_known_by_content(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 3), 7, np.uint8)).save(tmp_path / "noextension", format="PNG")
    assert read_image(tmp_path / "noextension", spacing_mm=1).unique().tolist() == [7.0]


@pytest.mark.parametrize("spacing", [0, -1, (1, 2, 3), float("nan")])
def test_impossible_spacing_is_refused(tmp_path: Path, spacing: object) -> None:
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="expected one positive number in mm"):
        read_image(tmp_path / "a.png", spacing_mm=spacing)


def test_two_page_picture_is_refused(tmp_path: Path) -> None:
    page = Image.fromarray(np.zeros((4, 6), np.uint8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(ImageFileError, match="holds 2 pages"):
        read_image(tmp_path / "a.tif", spacing_mm=1)


def test_nifti_agrees_with_nibabel_and_itk(tmp_path: Path) -> None:
    values = ramp((4, 5, 6))
    orthonormal = np.linalg.qr(OBLIQUE[:3, :3])[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = orthonormal * [1.0, 2.0, 3.0], [5.0, -7.0, 3.0]
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz", spacing_mm=(1, 2, 3))
    np.testing.assert_array_equal(image[0].numpy(), values)
    np.testing.assert_allclose(image.affine.numpy(), affine, atol=1e-5)
    torch.testing.assert_close(
        lps_of(image, (3, 1, 4)), lps_of_itk(tmp_path / "a.nii.gz", (3, 1, 4)), atol=1e-4, rtol=0
    )
    assert image.meta["spacing_source"] == "file"


def test_nifti_unit_and_scale_are_applied_as_itk_does(tmp_path: Path) -> None:
    volume = nibabel.Nifti1Image(np.full((3, 3, 3), 7, np.int16), np.diag([2000.0, 2000.0, 2000.0, 1.0]))
    volume.header.set_xyzt_units("micron")
    volume.header.set_slope_inter(0.5, 10)
    nibabel.save(volume, tmp_path / "a.nii")
    image = read_image(tmp_path / "a.nii")
    assert image.pixdim.tolist() == pytest.approx(SimpleITK.ReadImage(str(tmp_path / "a.nii")).GetSpacing())
    assert image.unique().tolist() == pytest.approx([13.5])


@pytest.mark.parametrize("suffix", ["mha", "mhd", "nrrd", "nhdr"])
@pytest.mark.parametrize("dims", [2, 3])
def test_itk_formats_agree_with_itk(tmp_path: Path, suffix: str, dims: int) -> None:
    values = ramp((3, 4, 5)[:dims])
    written = SimpleITK.GetImageFromArray(values)
    written.SetSpacing((0.5, 0.7, 2.0)[:dims])
    written.SetOrigin((3.0, -4.0, 5.0)[:dims])
    written.SetDirection([0.6, -0.8, 0.8, 0.6] if dims == 2 else [0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1])
    path = tmp_path / f"a.{suffix}"
    SimpleITK.WriteImage(written, str(path))
    image = read_image(path)
    index = (1, 2, 2)[:dims]  # ITK order x, y, z
    voxel = index[::-1] if dims == 2 else index
    assert image[(0, *voxel)].item() == written[index]
    position = lps_of_itk(path, index)
    torch.testing.assert_close(lps_of(image, voxel)[:, :dims], position, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 1, 1)])
def test_axes_of_length_one_are_no_obstacle(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nibabel.save(nibabel.Nifti1Image(ramp(shape), np.eye(4)), tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").shape == (1, 4, 5, 6)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.zeros((3, 3, 3, 2), np.float32), "holds a 4D image of shape .*; expected one volume, save each"),
        (np.zeros((3, 3, 3), np.complex64), "holds complex numbers"),
        (np.full((3, 3, 3), np.nan, np.float32), "holds 27 values that are not finite"),
        (np.full((3, 3, 3), np.inf, np.float32), "holds 27 values that are not finite"),
        (np.zeros((3, 3, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "holds colours"),
    ],
)
def test_volume_that_is_not_one_grey_image_is_refused(tmp_path: Path, values: np.ndarray, sentence: str) -> None:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(ImageFileError, match=sentence):
        read_image(tmp_path / "a.nii.gz")


def test_vector_image_is_refused(tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.Image([3, 3, 3], SimpleITK.sitkVectorFloat32, 2), str(tmp_path / "a.mha"))
    with pytest.raises(ImageFileError, match="holds 2 channels; expected one"):
        read_image(tmp_path / "a.mha")


def test_flat_affine_is_refused(tmp_path: Path) -> None:
    volume = nibabel.Nifti1Image(ramp((3, 3, 3)), None)
    volume.header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
    nibabel.save(volume, tmp_path / "a.nii.gz")
    with pytest.raises(ImageFileError, match="has an affine that cannot be inverted"):
        read_image(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "nii", "nii.gz", "mha", "nrrd"])
def test_damaged_file_gives_one_sentence(tmp_path: Path, suffix: str) -> None:
    """Whatever bytes are lost or changed, the reader names the file and never crashes in another way."""
    path, state = tmp_path / f"a.{suffix}", np.random.default_rng(0)
    noise = state.integers(0, 255, (32, 32), dtype=np.uint8)
    if suffix in ("png", "jpg", "tif", "bmp"):
        Image.fromarray(noise).save(path)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(noise[None].repeat(3, 0)), str(path))
    whole = path.read_bytes()
    refused = []
    for trial in range(60):
        damaged = bytearray(whole[: int(len(whole) * state.uniform(0.01, 0.99))] if trial % 2 else whole)
        for place in state.integers(0, min(len(damaged), 400), trial % 5):
            damaged[place] = state.integers(0, 255)
        path.write_bytes(damaged)
        try:
            read_image(path, spacing_mm=1)
        except ImageFileError as error:
            refused.append(str(error))
    assert len(refused) >= 20
    assert all(sentence.startswith(f"{path}: ") and "\n" not in sentence for sentence in refused)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.dcm", b"", r"is empty \(0 bytes\)"),
        ("a.dcm", b"no" * 200, "is not DICOM, whatever its name says"),
        ("a.txt", b"hello", "is not an image"),
        ("a.mnc", b"CDF1" * 50, "is MINC 1; convert it"),
        ("a.mnc", b"no" * 200, "not readable as MINC 2"),
        ("a.img", b"no" * 200, "is a format that is not read here"),
    ],
)
def test_other_file_is_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageFileError, match=sentence):
        read_image(tmp_path / name)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image, "nrrd", "mha"])
@pytest.mark.parametrize("name", ["volume", "volume.img.bak"])
def test_a_volume_without_its_suffix_is_named(tmp_path: Path, kind: Any, name: str) -> None:
    if isinstance(kind, str):
        suffix = f".{kind}"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ramp((3, 4, 5))), str(tmp_path / f"a{suffix}"))
    else:
        suffix = ".nii"
        nibabel.save(kind(ramp((3, 4, 5)), np.eye(4)), tmp_path / "a.nii")
    (tmp_path / f"a{suffix}").rename(tmp_path / name)
    with pytest.raises(ImageFileError, match=f"is (NIfTI|NRRD|MetaImage), but not named so; name it {suffix}"):
        read_image(tmp_path / name)
    (tmp_path / name).rename(tmp_path / f"a{suffix}")
    assert read_image(tmp_path / f"a{suffix}").shape[0] == 1


@pytest.mark.parametrize(("kind", "name"), [("zip", "ZIP"), ("tar", "tar"), ("gztar", "gzip"), ("bztar", "bzip2"),
                                            ("xztar", "xz")])  # fmt: skip
def test_an_archive_is_named(tmp_path: Path, kind: str, name: str) -> None:
    """Patients' discs come so."""
    (tmp_path / "disc").mkdir()
    (tmp_path / "disc" / "IM0001").write_bytes(b"\0" * 500)
    path = shutil.make_archive(str(tmp_path / "disc"), kind, tmp_path / "disc")
    with pytest.raises(ImageFileError, match=rf"is packed \({name}\); unpack it"):
        read_image(path)
    with zipfile.ZipFile(tmp_path / "table.xlsx", "w") as document:
        document.writestr("[Content_Types].xml", "<Types/>")
    with pytest.raises(ImageFileError, match="is not an image"):
        read_image(tmp_path / "table.xlsx")


@pytest.mark.parametrize("dims", [2, 3])
def test_images_pass_through_monai_batches_and_writers(tmp_path: Path, dims: int) -> None:
    image = SimpleITK.GetImageFromArray(ramp((3, 4, 5)[:dims]))
    image.SetSpacing((0.5, 0.7, 2.0)[:dims])
    SimpleITK.WriteImage(image, str(tmp_path / "a.mha"))
    one = read_image(tmp_path / "a.mha")
    batch = list_data_collate([{"image": one}, {"image": one}])
    again = decollate_batch(batch)[1]["image"]
    torch.testing.assert_close(again.affine, one.affine)
    assert again.meta["filename_or_obj"] == str(tmp_path / "a.mha")
    if dims == 2:  # MONAI 1.6.1 writes no NIfTI of a 2D image whose axes are not x, y
        return
    SaveImage(tmp_path, output_postfix="out", separate_folder=False, print_log=False)(again)
    saved = nibabel.load(tmp_path / "a_out.nii.gz")
    np.testing.assert_allclose(saved.affine, one.affine, atol=1e-6)
    np.testing.assert_array_equal(saved.get_fdata(), one[0].numpy())


def test_empty_list_of_files_is_refused() -> None:
    with pytest.raises(ValueError, match="the list of files of a series is empty"):
        read_image([])


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageFileError, match=r"a\.png: does not exist"):
        read_image(tmp_path / "a.png")


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["ct_phantom_oblique_uint8.nii.gz", "nibabel_anatomical.nii", "sct_t2_sagittal.nii.gz",
             "tptbox_sub-ct_label-22_ct.nii.gz", "pam50_small_t2.nii.gz", "lung_small.mha", "pyradiomics_brain1.nrrd"],
)  # fmt: skip
def test_real_volume_agrees_with_itk(data_dir: Path, name: str) -> None:
    path = data_dir / "nifti_format_kit" / name
    image, reference = read_image(path), SimpleITK.ReadImage(str(path))
    assert tuple(image.shape[1:]) == reference.GetSize()
    values = SimpleITK.GetArrayFromImage(reference).transpose().astype(np.float32)
    np.testing.assert_allclose(image[0].numpy(), values, rtol=1e-5, atol=1e-3)
    for voxel in [(0, 0, 0), (7, 3, 5)]:
        torch.testing.assert_close(lps_of(image, voxel), lps_of_itk(path, voxel), atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", [(5, 4), (3, 4, 70), (1, 1, 1), (6, 1, 33)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_in_c_order(shape: tuple[int, ...], order: Literal["C", "F"]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32).copy(order)
    values.flags.writeable = False
    found = in_c_order(values)
    np.testing.assert_array_equal(found, values)
    assert found.flags.c_contiguous
    assert found.flags.writeable
