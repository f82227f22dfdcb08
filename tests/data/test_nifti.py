"""NIfTI: place by the rules of ITK (against SimpleITK itself), missing sizes, packing, and what is refused."""

import gzip
import itertools
import logging
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
from scipy.spatial.transform import Rotation

from medpixcl.data.images import read_image
from medpixcl.data.pixels import ImageFileError, MissingSpacingError

SIZES = (1.5, 2.0, 3.0)
TURNED = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()


def matrix(directions: Any = TURNED, sizes: Any = SIZES, origin: Any = (30.0, -40.0, -10.0)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.asarray(directions) * sizes, origin
    return affine


def write(
    path: Path, qform: Any, sform: Any, codes: tuple[int, int], pixdim: Any = SIZES, shape: Any = (5, 4, 3)
) -> Path:
    """A file whose three statements of its place are set one by one; nibabel would make them agree."""
    image = nibabel.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), None)
    image.header.set_xyzt_units("mm")
    image.header.set_qform(matrix() if qform is None else qform, 1)
    image.header.set_sform(matrix() if sform is None else sform, 1)
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    content[252:256] = np.array(codes, "<i2").tobytes()
    content[80:92] = np.array(pixdim, "<f4").tobytes()
    path.write_bytes(content)
    return path


def itk_affine(path: Path) -> np.ndarray:
    """Affine (voxel -> mm, RAS+) as SimpleITK reads it."""
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    image = SimpleITK.ReadImage(str(path))
    directions = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix(directions, 1.0, image.GetOrigin())


CONTRADICTIONS = {
    "sform of unit scale (ACDC)": (None, matrix(sizes=(1, 1, 1))),
    "sform twice as large": (None, matrix(sizes=(3, 4, 6))),
    "sform moved (SPM coregister)": (None, matrix(origin=(37, -35, -7))),
    "sform turned": (None, matrix(np.eye(3))),
    "sform sheared": (None, matrix() + np.eye(4, k=1)),
    "qform moved": (matrix(origin=(0, 0, 0)), None),
}


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (1, 1), (2, 1), (1, 2), (2, 4)])
@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_contradicting_forms_are_read_as_itk_does_or_refused(
    tmp_path: Path, kind: str, codes: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.nii", *CONTRADICTIONS[kind], codes)
    try:
        expected = itk_affine(path)
    except RuntimeError:
        with pytest.raises(ImageFileError, match="axes are not perpendicular"):
            read_image(path)
        return
    image = read_image(path)
    np.testing.assert_allclose(image.affine, expected, atol=1e-4)
    contradicts = not (codes[1] == 0 or (codes[0] == 0 and "scale" not in kind and "large" not in kind))
    assert (image.meta["notice"] != "") == contradicts
    assert all(record.getMessage().startswith(f"{path}: has ") for record in caplog.records)
    assert (caplog.text != "") == contradicts


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (4, 1)])
@pytest.mark.parametrize(("place", "broken"), [(280, "sform"), (304, "sform"), (324, "sform"), (268, "qform")])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_form_that_is_no_number_is_passed_over(
    tmp_path: Path, codes: tuple[int, int], place: int, broken: str, number: float
) -> None:
    path = write(tmp_path / "a.nii", None, None, codes)
    path.write_bytes(patched(path.read_bytes(), place, np.float32(number)))
    image = read_image(path)
    np.testing.assert_allclose(image.affine, matrix(), atol=1e-5)
    assert image.meta["notice"] == f"has a {broken} with numbers that are not finite; the other form is taken."
    path.write_bytes(patched(path.read_bytes(), 252 if broken == "sform" else 254, np.int16(0)))  # the only form
    with pytest.raises(ImageFileError, match=r"affine that cannot be inverted|axes are not perpendicular"):
        read_image(path)


@pytest.mark.parametrize("signs", [(-1, 1, 1), (1, -1, 1), (-1, -1, 1)])
def test_forms_that_mirror_each_other_are_refused(tmp_path: Path, signs: tuple[int, ...]) -> None:
    """ITK compares the axes without their signs and takes the sform: left and right depend on the program."""
    path = write(tmp_path / "a.nii", None, matrix(TURNED * np.array(signs)), (1, 2))
    with pytest.raises(ImageFileError, match="mirror or turn each other's axes"):
        read_image(path)


@pytest.mark.parametrize("shape", [(5, 4, 3), (6, 6, 6)])
def test_without_orientation_the_axes_are_those_of_itk(
    tmp_path: Path, shape: tuple[int, ...], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.nii", None, None, (0, 0), shape=shape)
    image = read_image(path)
    np.testing.assert_allclose(image.affine, itk_affine(path), atol=1e-6)
    np.testing.assert_allclose(image.affine, np.diag([-1.5, -2.0, 3.0, 1.0]), atol=1e-6)
    read_image(path)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]  # once for a file
    assert "states no orientation" in caplog.text


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("size", [0.0, -3.0, float("nan"), float("inf")])
def test_a_size_that_is_not_stated_is_never_guessed(tmp_path: Path, size: float, codes: tuple[int, int]) -> None:
    """ITK takes 1 mm or a negative size, nibabel 1 mm or the sform's."""
    path = write(tmp_path / "a.nii", None, None, codes, pixdim=(1.5, 2.0, size))
    with pytest.raises(MissingSpacingError, match="give spacing_mm"):
        read_image(path)
    image = read_image(path, spacing_mm=4)
    assert image.pixdim.tolist() == pytest.approx([1.5, 2.0, 4.0])  # what the file states stays
    assert image.meta["spacing_source"] == "given"
    directions = np.diag([-1.0, -1.0, 1.0]) if codes == (0, 0) else TURNED
    np.testing.assert_allclose(image.affine[:3, :3], directions * [1.5, 2.0, 4.0], atol=1e-5)
    with pytest.raises(ImageFileError, match="one number or of 3"):
        read_image(path, spacing_mm=(1, 2))


@pytest.mark.parametrize("unit", ["meter", "micron", "unknown"])
def test_origin_has_the_unit_of_the_sizes(tmp_path: Path, unit: str) -> None:
    image = nibabel.Nifti1Image(np.zeros((3, 3, 3), np.int16), matrix(np.eye(3)))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(read_image(tmp_path / "a.nii").affine, itk_affine(tmp_path / "a.nii"), rtol=1e-6)


@pytest.mark.parametrize("version", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i2", "u4", "i8", "f4", "f8"])
def test_voxels_agree_with_nibabel(tmp_path: Path, version: Any, order: str, kind: str) -> None:
    values = np.random.default_rng(0).integers(0, 200, (5, 4, 3)).astype(kind)
    if kind == "u4":
        values[0, 0, 0] = 4_000_000_000
    image = version(values, matrix(), version.header_class(endianness=order))
    image.header.set_data_dtype(np.dtype(kind).newbyteorder(order))
    image.header.set_slope_inter(0.5, -3)
    for name in ("a.nii", "b.nii.gz"):
        nibabel.save(image, tmp_path / name)
        found = read_image(tmp_path / name)
        np.testing.assert_allclose(found[0], nibabel.load(tmp_path / name).get_fdata(), rtol=1e-6)
        np.testing.assert_allclose(found.affine, matrix(), atol=1e-5)


def test_packing_is_known_by_content(tmp_path: Path) -> None:
    content = write(tmp_path / "a.nii", None, None, (1, 1)).read_bytes()
    expected = read_image(tmp_path / "a.nii")
    packed = {
        "plain.nii.gz": content,
        "packed.nii": gzip.compress(content),
        "members.nii.gz": gzip.compress(content[:400]) + gzip.compress(content[400:]),
        "extended.nii.gz": gzip.compress(content + b"more" * 1000),
    }
    for name, packed_content in packed.items():
        (tmp_path / name).write_bytes(packed_content)
        np.testing.assert_array_equal(read_image(tmp_path / name)[0], expected[0])


def patched(content: bytes, place: int, value: np.ndarray) -> bytes:
    return content[:place] + value.tobytes() + content[place + value.nbytes :]


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (46, np.int16(0), r"has an axis of length 0 \(shape \(5, 4, 0\)\)"),
        (42, np.int16(0), "has an axis of length 0"),
        (44, np.int16(-4), "in its header"),
        (40, np.int16(9), "in its header"),
        (70, np.int16(3), "data type 3, which is not read here"),
        (108, np.float32(np.nan), "announces its voxels at byte nan"),
        (108, np.float32(17), "announces its voxels at byte 17"),
        (42, np.int16(500), "is cut off: it holds 472 bytes, and its header announces 12352"),
        (344, np.frombuffer(b"ni1\0", "u1"), "is not a NIfTI file in one piece"),
    ],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_damaged_header_is_named(tmp_path: Path, name: str, place: int, value: np.ndarray, sentence: str) -> None:
    content = patched(write(tmp_path / "whole.nii", None, None, (1, 1)).read_bytes(), place, np.asarray(value))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(ImageFileError, match=sentence):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("cut", "sentence"), [(-4, "have no end"), (-30, "have no end"), (60, "have no end|no NIfTI header")]
)
def test_cut_off_gzip_is_refused(tmp_path: Path, cut: int, sentence: str) -> None:
    content = gzip.compress(write(tmp_path / "a.nii", None, None, (1, 1)).read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(content[:cut])
    with pytest.raises(ImageFileError, match=sentence):
        read_image(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(content[:-8] + b"\0\0\0\0" + content[-4:])  # the checksum
    with pytest.raises(ImageFileError, match="damaged gzip"):
        read_image(tmp_path / "b.nii.gz")


@pytest.mark.parametrize(
    ("shape", "size"), [((6, 5, 1), (5, 6)), ((6, 1, 5), (5, 6)), ((1, 6, 5), (5, 6)), ((6, 5), (5, 6))]
)
def test_a_volume_of_one_slice_is_a_picture(tmp_path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    values = np.arange(30, dtype=np.float32).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([-1.5, -2.0, 3.0, 1.0])), tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    assert image.shape[1:] == size
    np.testing.assert_array_equal(image[0], values.reshape(6, 5).T)
    long = [step for step, count in zip((1.5, 2.0, 3.0), (*shape, 1), strict=False) if count > 1]
    np.testing.assert_allclose(np.linalg.norm(image.affine[:2, :2], axis=0), long[::-1], atol=1e-6)
    assert ("volume of one slice" in image.meta["notice"]) == (len(shape) == 3)


def test_an_axial_slice_lies_where_itk_puts_its_pixels(tmp_path: Path) -> None:
    turned = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    path = write(tmp_path / "a.nii", matrix(turned), matrix(turned), (1, 1), shape=(6, 5, 1))
    image, reference = read_image(path), SimpleITK.ReadImage(str(path))
    for i, j in itertools.product((0, 4), (0, 3)):
        lps = (np.diag([-1, -1, 1, 1]) @ image.affine.numpy() @ [j, i, 0, 1])[:2]
        np.testing.assert_allclose(lps, reference.TransformIndexToPhysicalPoint((i, j, 0))[:2], atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 1, 1), (1, 1, 1), (6,)])
def test_a_line_is_no_image(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.float32), np.eye(4)), tmp_path / "a.nii")
    with pytest.raises(ImageFileError, match="holds a line of"):
        read_image(tmp_path / "a.nii")
