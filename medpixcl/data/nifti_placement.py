"""Place the voxels of a NIfTI file in space, by the rules of ITK (and so of 3D Slicer).

A NIfTI header states the place of its voxels up to three times: as a quaternion (qform), as a matrix (sform) and, for
the size of a voxel, as ``pixdim``. They may contradict each other. ITK 5.4 (``itkNiftiImageIO.cxx``) decides so:

* Both codes 0: no orientation is stated; the axes run to the left, back and head (LPS), the first voxel is the origin.
* The sform gives directions and origin if it is a rotation and the qform has code 0, or the sform has code 1 (scanner),
  or both are the same; else the qform does.
* ``pixdim`` gives the size of a voxel in any case.

Here a voxel size that ``pixdim`` does not state (0, negative, not finite) is missing, where ITK takes 1 mm.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64

from medpixcl.data.placement import VolumePlacement, unit_steps

_ROTATION = 1e-4
"""Largest element of R R^T - 1 up to which ITK takes a matrix as a rotation."""
_SLIGHT_SHEAR = 1e-2
"""The same for a sform that is kept although ITK refuses it, since the file states nothing else."""
_SCALE_MM = 1e-3
"""Difference in mm up to which ITK takes the steps of a sform as equal to pixdim."""
_APART = 0.05
"""Distance in voxels from which a contradiction is worth a notice."""
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}
_SCANNER = 1


def nifti_placement(header: Any) -> VolumePlacement:
    """Decide where the voxels of a NIfTI file lie.

    Args:
        header: nibabel header of a NIfTI-1 or NIfTI-2 file.

    Returns:
        VolumePlacement of the first three axes; a size is NaN where the file does not state it.

    Raises:
        ValueError: If the axes are not perpendicular, or no place can be computed.
    """
    sizes, codes = _sizes(header), (int(header["qform_code"]), int(header["sform_code"]))
    if codes[0] <= 0 and codes[1] <= 0:
        notice = (
            "states no orientation (qform and sform codes are 0); placed as ITK and 3D Slicer do: the axes run to the "
            "left, back and head, and the first voxel is the origin."
        )
        return VolumePlacement(np.diag([-1.0, -1.0, 1.0]), sizes, np.zeros(3), (notice,))
    form, notices = _chosen_form(header, sizes)
    agreed, more = _agreed_sizes(form, sizes)
    return VolumePlacement(unit_steps(form[:3, :3]), agreed, form[:3, 3], (*notices, *more))


def _mm_per_unit(header: Any) -> float:
    return _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)


def _sizes(header: Any) -> Float64[np.ndarray, "3"]:
    """Voxel sizes in mm, NaN where pixdim states none; an axis of one voxel has the size 1 then."""
    dims = int(header["dim"][0])
    shape = [int(size) if axis < dims else 1 for axis, size in enumerate(header["dim"][1:4])]
    sizes = np.asarray(header["pixdim"][1:4], dtype=np.float64) * _mm_per_unit(header)
    stated = np.isfinite(sizes) & (sizes > 0)
    sizes[~stated] = np.where(np.asarray(shape)[~stated] == 1, 1.0, np.nan)
    return sizes


def _chosen_form(header: Any, sizes: Float64[np.ndarray, "3"]) -> tuple[Float64[np.ndarray, "4 4"], tuple[str, ...]]:
    """The qform or the sform, and a notice if the other one lies elsewhere."""
    sform, qform = _sform(header), _qform(header, np.nan_to_num(sizes, nan=1.0))
    if sform is None or qform is None:
        return _only_form(qform if sform is None else sform)
    for form, other, name in ((qform, sform, "sform"), (sform, qform, "qform")):
        if not np.isfinite(other).all():
            kept, notices = _only_form(form)
            return kept, (f"has a {name} with numbers that are not finite; the other form is taken.", *notices)
    apart = _apart(sform, qform, header["dim"][1:4])
    scanner = int(header["sform_code"]) == _SCANNER
    if not apart > _APART * np.linalg.norm(qform[:3, :3], axis=0).min():
        return (sform if _shear(sform) <= _ROTATION and (scanner or apart < _ROTATION) else qform), ()
    if not scanner and _reversed(sform, qform):
        raise ValueError("has a sform and a qform that mirror or turn each other's axes; set both to the right one.")
    take_sform = scanner and _shear(sform) <= _ROTATION
    name = "sform" if take_sform else "qform"
    notice = f"has a sform and a qform up to {apart:.4g} mm apart; the {name} is taken, as ITK and 3D Slicer do."
    return (sform if take_sform else qform), (notice,)


def _only_form(form: Float64[np.ndarray, "4 4"] | None) -> tuple[Float64[np.ndarray, "4 4"], tuple[str, ...]]:
    """The one form that a file states, with a notice if ITK refuses it for a slight shear."""
    assert form is not None
    shear = _shear(form)
    if not shear > _ROTATION:
        return form, ()
    if shear > _SLIGHT_SHEAR:
        raise ValueError("has a sform whose axes are not perpendicular; resample it to a regular grid.")
    return form, ("has a sform whose axes are not quite perpendicular; ITK refuses such a file.",)


def _apart(sform: Float64[np.ndarray, "4 4"], qform: Float64[np.ndarray, "4 4"], shape: np.ndarray) -> float:
    """Largest distance in mm between the two places of a corner of the volume."""
    corners = np.array([[*corner, 1.0] for corner in np.ndindex(2, 2, 2)])
    corners[:, :3] *= np.maximum(np.asarray(shape, dtype=np.float64) - 1, 0)
    return float(np.linalg.norm(corners @ (sform - qform)[:3].T, axis=1).max())


def _reversed(sform: Float64[np.ndarray, "4 4"], qform: Float64[np.ndarray, "4 4"]) -> bool:
    """True if the axes are the same lines, some of them in the other direction; ITK compares them without signs."""
    signs = unit_steps(sform[:3, :3]).T @ unit_steps(qform[:3, :3])
    return bool((np.abs(np.abs(signs) - np.eye(3)) < _SLIGHT_SHEAR).all() and signs.diagonal().min() < 0)


def _sform(header: Any) -> Float64[np.ndarray, "4 4"] | None:
    if int(header["sform_code"]) <= 0:
        return None
    rows = [header[name] for name in ("srow_x", "srow_y", "srow_z")]
    return np.vstack([np.asarray(rows, dtype=np.float64) * _mm_per_unit(header), [0.0, 0.0, 0.0, 1.0]])


def _qform(header: Any, sizes: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "4 4"] | None:
    """Matrix of the quaternion, as the NIfTI-1 standard computes it ("METHOD 2")."""
    from nibabel.quaternions import quat2mat

    if int(header["qform_code"]) <= 0:
        return None
    vector = np.array([header[name] for name in ("quatern_b", "quatern_c", "quatern_d")], dtype=np.float64)
    rest = 1.0 - float(vector @ vector)
    if rest < 1e-7:
        vector, rest = vector / np.linalg.norm(vector), 0.0
    matrix = np.eye(4)
    matrix[:3, :3] = quat2mat([rest**0.5, *vector]) * sizes
    if float(header["pixdim"][0]) < 0:
        matrix[:3, 2] *= -1
    offset = np.array([header[name] for name in ("qoffset_x", "qoffset_y", "qoffset_z")], dtype=np.float64)
    matrix[:3, 3] = offset * _mm_per_unit(header)
    return matrix


def _shear(matrix: Float64[np.ndarray, "4 4"]) -> float:
    """Largest element of R R^T - 1 for the directions R of a matrix; NaN if an axis has no length."""
    steps = unit_steps(matrix[:3, :3])
    return float(np.abs(steps @ steps.T - np.eye(3)).max())


def _agreed_sizes(
    form: Float64[np.ndarray, "4 4"], sizes: Float64[np.ndarray, "3"]
) -> tuple[Float64[np.ndarray, "3"], tuple[str, ...]]:
    """Lengths of a form's steps, or pixdim where the two contradict each other; NaN where pixdim states none."""
    lengths = np.where(np.isnan(sizes), np.nan, np.linalg.norm(form[:3, :3], axis=0))
    if not (np.abs(lengths - sizes) > np.maximum(_SCALE_MM, 1e-3 * sizes)).any():
        return lengths, ()
    shown = [" x ".join(f"{size:.5g}" for size in three) for three in (lengths, sizes)]
    notice = f"has voxels of {shown[0]} mm by its sform and of {shown[1]} mm by pixdim; pixdim is taken, as ITK does."
    return sizes, (notice,)
