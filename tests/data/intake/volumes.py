"""NIfTI, NRRD and MetaImage: contradictions, units, what is missing."""

from pathlib import Path

import nibabel
import numpy as np

from tests.data.intake.cases import Cases, Expected, keep_in, shade

CASES: Cases = {}
_case = keep_in(CASES)
GRID = (np.arange(12)[:, None, None] * 100 + np.arange(10)[:, None] * 10 + np.arange(8)).astype("i2")
AFFINE = np.array([[-1.5, 0, 0, 30], [0, 2, 0, -40], [0, 0, 3, -10], [0, 0, 0, 1]])


def _nifti(affine: np.ndarray = AFFINE, sform: int = 1, qform: int = 1) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(GRID, affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform)
    image.header.set_xyzt_units("mm")
    return image


@_case("nifti_acdc_sform_unit_scale", Expected({"a.nii": (GRID, (1.3158, 1.3158, 10))}))
def _(folder: Path) -> None:
    _nifti(np.diag([-1.3158, -1.3158, 10, 1])).to_filename(folder / "a.nii")
    content = bytearray((folder / "a.nii").read_bytes())
    content[280:328] = np.array([[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0]], "<f4").tobytes()
    (folder / "a.nii").write_bytes(bytes(content))


@_case("nifti_both_codes_zero", Expected({"a.nii.gz": (GRID, (1.5, 2, 3))}))
def _(folder: Path) -> None:
    image = _nifti()
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = [1.5, 2, 3]
    image.to_filename(folder / "a.nii.gz")


@_case("nifti_sform_qform_disagree", Expected({"a.nii.gz": (GRID, (1.5, 2, 3))}))
def _(folder: Path) -> None:
    image, moved = _nifti(), AFFINE.copy()
    moved[:3, 3] += [7, 5, 3]
    image.set_sform(moved, 2)
    image.set_qform(AFFINE, 1)
    image.to_filename(folder / "a.nii.gz")


@_case("nifti_gz_name_plain_content", Expected({"a.nii.gz": (GRID, (1.5, 2, 3))}))
def _(folder: Path) -> None:
    _nifti().to_filename(folder / "a.nii")
    (folder / "a.nii").rename(folder / "a.nii.gz")


@_case("nifti_empty_dim", Expected({}, {"a.nii": r"an axis of length 0 \(shape \(12, 10, 0\)\)"}))
def _(folder: Path) -> None:
    _nifti().to_filename(folder / "a.nii")
    content = bytearray((folder / "a.nii").read_bytes())
    content[46:48] = b"\0\0"
    (folder / "a.nii").write_bytes(bytes(content))


@_case("nrrd_2d_no_spacing", Expected({"a.nrrd": ((shade() * 1000).astype("i2"), (0.5, 0.5))}, spacing_mm=0.5))
def _(folder: Path) -> None:
    header = b"NRRD0004\ntype: short\ndimension: 2\nsizes: 48 64\nencoding: raw\nendian: little\n\n"
    (folder / "a.nrrd").write_bytes(header + (shade() * 1000).astype("<i2").tobytes())


@_case("nrrd_space_units_micron", Expected({"a.nrrd": (GRID, (1.5, 2, 3))}))
def _(folder: Path) -> None:
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 12 10 8\nspace directions: "
        '(1500,0,0) (0,2000,0) (0,0,3000)\nspace origin: (0,0,0)\nspace units: "um" "um" "um"\nencoding: raw\n'
        "endian: little\n\n"
    )
    (folder / "a.nrrd").write_bytes(header.encode() + GRID.T.astype("<i2").tobytes())


@_case("mhd_pattern", Expected({}, {"a.mhd": "spreads its voxels over several files"}))
def _(folder: Path) -> None:
    (folder / "a.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 12 10 8\nElementSpacing = 1.5 2 3\nElementType = MET_SHORT\n"
        "ElementByteOrderMSB = False\nElementDataFile = s%02d.raw 1 8 1\n"
    )
    for k in range(8):
        (folder / f"s{k + 1:02d}.raw").write_bytes(GRID[:, :, k].T.astype("<i2").tobytes())
