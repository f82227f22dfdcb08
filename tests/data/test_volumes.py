"""NRRD, MetaImage and MINC: sizes that the file states or not, their unit, data files, and slices."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

from medpixcl.data.images import read_image
from medpixcl.data.pixels import ImageFileError, MissingSpacingError
from medpixcl.data.scan import scan

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nrrd(path: Path, *fields: str, sizes: str = "3 4 5", content: bytes | None = None) -> Path:
    """A NRRD file by its definition (teem.sourceforge.net/nrrd/format.html), fields as given."""
    count = int(np.prod([int(size) for size in sizes.split()]))
    header = [
        "NRRD0004",
        "type: uint8",
        f"dimension: {len(sizes.split())}",
        f"sizes: {sizes}",
        *fields,
        "encoding: raw",
    ]
    path.write_bytes("\n".join(header).encode() + b"\n\n" + (bytes(range(count)) if content is None else content))
    return path


def metaimage(path: Path, *fields: str, sizes: str = "3 4 5", data: str = "LOCAL") -> Path:
    """A MetaImage file by its definition (MetaIO), fields as given."""
    count = int(np.prod([int(size) for size in sizes.split()]))
    header = [
        "ObjectType = Image", f"NDims = {len(sizes.split())}", f"DimSize = {sizes}", *fields, "ElementType = MET_UCHAR"
    ]  # fmt: skip
    voxels = bytes(range(count)) if data == "LOCAL" else b""
    path.write_bytes("\n".join([*header, f"ElementDataFile = {data}"]).encode() + b"\n" + voxels)
    return path


NO_SIZE = {
    "a.nrrd": (nrrd, ()),
    "nan.nrrd": (nrrd, ("spacings: nan nan nan",)),
    "thick.nrrd": (nrrd, ("thicknesses: 1 2 2",)),
    "bounds.nrrd": (nrrd, ("axis mins: 0 0 0", "axis maxs: 6 6 6")),
    "a.mha": (metaimage, ()),
}


@pytest.mark.parametrize("name", NO_SIZE)
def test_a_size_that_is_not_stated_is_never_guessed(tmp_path: Path, name: str) -> None:
    """ITK takes 1 mm, or the bounds in an order of its own."""
    writer, fields = NO_SIZE[name]
    path = writer(tmp_path / name, *fields)
    with pytest.raises(MissingSpacingError, match="give spacing_mm"):
        read_image(path)
    image = read_image(path, spacing_mm=(1.5, 2, 4))
    assert image.pixdim.tolist() == pytest.approx([1.5, 2.0, 4.0])
    assert image.meta["spacing_source"] == "given"
    assert image[0, :, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("sizes", "kinds", "directions"),
    [
        ("1 3 4 5", "vector domain domain domain", "none (1.5,0,0) (0,2,0) (0,0,4)"),
        ("3 4 5 1", "space space space list", "(1.5,0,0) (0,2,0) (0,0,4) none"),
        ("1 3 4 5", "scalar domain domain domain", None),
    ],
)
def test_an_axis_of_values_has_no_size(tmp_path: Path, sizes: str, kinds: str, directions: str | None) -> None:
    """One value a voxel on an axis of its own, which NRRD may put first: the sizes are those of the other axes."""
    fields = ["spacings: nan 1.5 2 4"] if directions is None else ["space: LPS", f"space directions: {directions}"]
    image = read_image(nrrd(tmp_path / "a.nrrd", *fields, f"kinds: {kinds}", sizes=sizes), spacing_mm=9)
    assert image.shape == (1, 3, 4, 5)
    assert image.pixdim.tolist() == pytest.approx([1.5, 2.0, 4.0])
    assert image.meta["spacing_source"] == "file"


@pytest.mark.parametrize("unit", ["um", "cm"])
def test_an_axis_of_values_has_no_unit(tmp_path: Path, unit: str) -> None:
    units = f'units: "" "{unit}" "{unit}" "{unit}"'
    path = nrrd(
        tmp_path / "a.nrrd", "spacings: nan 1 2 3", units, "kinds: vector domain domain domain", sizes="1 3 4 5"
    )
    factor = {"um": 1e-3, "cm": 10.0}[unit]
    np.testing.assert_allclose(read_image(path).pixdim, np.array([1, 2, 3]) * factor)


@pytest.mark.parametrize(("writer", "field"), [(nrrd, "spacings: 0 2 2"), (metaimage, "ElementSpacing = 0 2 2")])
def test_a_size_of_zero_is_named(tmp_path: Path, writer: Any, field: str) -> None:
    path = writer(tmp_path / ("a.nrrd" if writer is nrrd else "a.mha"), field)
    with pytest.raises(ImageFileError, match="states a voxel size of 0"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_picture_without_size_takes_the_one_given(tmp_path: Path, name: str) -> None:
    path = nrrd(tmp_path / name, sizes="3 4") if name == "a.nrrd" else metaimage(tmp_path / name, sizes="3 4")
    with pytest.raises(MissingSpacingError, match="give spacing_mm"):
        read_image(path)
    image = read_image(path, spacing_mm=(0.5, 0.25))
    assert image.shape == (1, 4, 3)  # ITK's first axis runs along a row
    np.testing.assert_allclose(image.affine[:2, :2], [[0, -0.25], [-0.5, 0]])
    assert image.meta["notice"] == ""


UNITS = {
    "space": ("space: left-posterior-superior", "space directions: (1500,0,0) (0,2000,0) (0,0,3000)"),
    "axes": ("spacings: 1500 2000 3000",),
}


@pytest.mark.parametrize("unit", ["um", "µm", "micron", "micrometers"])
@pytest.mark.parametrize("where", UNITS)
def test_micrometres_become_millimetres(tmp_path: Path, where: str, unit: str) -> None:
    """NRRD: "space units" belong to the axes of space, "units" to those of the array. ITK reads both as mm."""
    field = "space units" if where == "space" else "units"
    origin = ("space origin: (1000,0,7000)",) if where == "space" else ()
    path = nrrd(tmp_path / "a.nrrd", *UNITS[where], *origin, f'{field}: "{unit}" "{unit}" "{unit}"')
    image = read_image(path)
    np.testing.assert_allclose(image.pixdim, [1.5, 2.0, 3.0])
    if origin:
        np.testing.assert_allclose((LPS_TO_RAS @ image.affine.numpy())[:3, 3], [1, 0, 7])


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("cm", 10.0), ("m", 1000.0), ("", 1.0)])
def test_other_units_are_known(tmp_path: Path, unit: str, factor: float) -> None:
    path = nrrd(tmp_path / "a.nrrd", "spacings: 1 2 3", f'units: "{unit}" "{unit}" "{unit}"')
    np.testing.assert_allclose(read_image(path).pixdim, np.array([1, 2, 3]) * factor)
    if unit in ("mm", "cm"):
        path = metaimage(tmp_path / "a.mha", "ElementSpacing = 1 2 3", "Offset = 1 0 7", f"DistanceUnits = {unit}")
        image = read_image(path)
        np.testing.assert_allclose(image.pixdim, np.array([1, 2, 3]) * factor)
        np.testing.assert_allclose((LPS_TO_RAS @ image.affine.numpy())[:3, 3], np.array([1, 0, 7]) * factor)


@pytest.mark.parametrize("unit", ["inch", "pixel", "s"])
def test_unknown_unit_is_refused(tmp_path: Path, unit: str) -> None:
    path = nrrd(tmp_path / "a.nrrd", "spacings: 1 2 3", f'units: "{unit}" "{unit}" "{unit}"')
    with pytest.raises(ImageFileError, match=f"has lengths in '{unit}'; expected mm"):
        read_image(path)


@pytest.mark.parametrize(
    ("writer", "name", "data"),
    [
        (metaimage, "a.mhd", "s%02d.raw 1 5 1"),
        (metaimage, "a.mhd", "LIST"),
        (nrrd, "a.nhdr", "data file: s%03d.raw 1 5 1 2"),
        (nrrd, "a.nhdr", "data file: LIST"),
    ],
)
def test_several_data_files_are_refused_and_the_scan_goes_on(tmp_path: Path, writer: Any, name: str, data: str) -> None:
    if writer is metaimage:
        metaimage(tmp_path / name, "ElementSpacing = 1 1 1", data=data)
    else:
        nrrd(tmp_path / name, "spacings: 1 1 1", data, content=b"")
    nrrd(tmp_path / "good.nrrd", "spacings: 1 1 1")
    manifest = scan(tmp_path)
    assert [entry["image"] for entry in manifest.training] == ["good.nrrd"]
    assert [record["path"] for record in manifest.rejected] == [name]
    assert "spreads its voxels over several files" in manifest.rejected[0]["reason"]


def test_an_absent_data_file_is_named(tmp_path: Path) -> None:
    path = metaimage(tmp_path / "a.mhd", "ElementSpacing = 1 1 1", data="a.raw")
    with pytest.raises(ImageFileError, match=r"whose file of voxels, a\.raw, is not there"):
        read_image(path)


@pytest.mark.parametrize(("writer", "name"), [(nrrd, "a.nrrd"), (metaimage, "a.mha")])
@pytest.mark.parametrize("sizes", ["3 4 0", "0 4 5"])
def test_an_axis_of_length_zero_is_named(tmp_path: Path, writer: Any, name: str, sizes: str) -> None:
    with pytest.raises(ImageFileError, match="has an axis of length 0"):
        read_image(writer(tmp_path / name, sizes=sizes))


def slice_of_itk(direction: list[float]) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(np.arange(20, dtype=np.uint16).reshape(1, 4, 5))
    image.SetSpacing((0.5, 0.7, 2.0))
    image.SetOrigin((3.0, -4.0, 5.0))
    image.SetDirection(direction)
    return image


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "nii.gz"])
def test_a_picture_exported_as_one_slice_is_a_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    written = slice_of_itk([1, 0, 0, 0, 1, 0, 0, 0, 1])
    SimpleITK.WriteImage(written, str(path))
    image = read_image(path)
    assert image.shape == (1, 4, 5)
    assert "volume of one slice" in image.meta["notice"]
    for column, row in ((0, 0), (4, 3)):
        assert image[0, row, column] == written[column, row, 0]
        lps = LPS_TO_RAS @ image.affine.numpy() @ [row, column, 0, 1]
        np.testing.assert_allclose(lps[:2], written.TransformIndexToPhysicalPoint((column, row, 0))[:2], atol=1e-5)


@pytest.mark.parametrize(
    ("direction", "plane"),
    [([1, 0, 0, 0, 0, 1, 0, -1, 0], (0, 2)), ([0, 0, 1, 1, 0, 0, 0, -1, 0], (1, 2))],
)
def test_a_coronal_or_sagittal_slice_stands_upright(
    tmp_path: Path, direction: list[float], plane: tuple[int, int]
) -> None:
    """Its picture runs to the left (or back) and to the feet, as a radiograph on a screen."""
    written = slice_of_itk(direction)
    SimpleITK.WriteImage(written, str(tmp_path / "a.mha"))
    image = read_image(tmp_path / "a.mha")
    for column, row in ((0, 0), (4, 3)):
        x, y, *_ = LPS_TO_RAS @ image.affine.numpy() @ [row, column, 0, 1]
        position = written.TransformIndexToPhysicalPoint((column, row, 0))
        np.testing.assert_allclose((x, -y), (position[plane[0]], position[plane[1]]), atol=1e-6)


def test_minc_lies_to_the_right_front_and_head(tmp_path: Path) -> None:
    """MINC: "the positive axes point to the right, anterior and superior"; ITK writes its LPS into it unchanged."""
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    written = SimpleITK.GetImageFromArray(values)
    written.SetSpacing((0.5, 0.7, 2.0))
    written.SetOrigin((1.0, 2.0, 3.0))
    written.SetDirection((0.6, -0.8, 0, 0.8, 0.6, 0, 0, 0, 1))
    SimpleITK.WriteImage(written, str(tmp_path / "a.mnc"))
    image = read_image(tmp_path / "a.mnc")
    assert image.shape == (1, 5, 4, 3)
    np.testing.assert_allclose(image[0], values.transpose())
    expected = [[0.3, -0.56, 0, 1], [0.4, 0.42, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(image.affine, expected, atol=1e-6)
    assert "is MINC" in image.meta["notice"]


@pytest.mark.data
def test_a_minc_of_several_volumes_is_refused(data_dir: Path) -> None:
    with pytest.raises(ImageFileError, match="holds 2 volumes"):
        read_image(data_dir / "nifti_format_kit" / "nibabel_minc2_4d.mnc")
