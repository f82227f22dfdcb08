"""A radiograph ray by ray, sample by sample, in patient coordinates: slow, literal, NumPy and SciPy only."""

import numpy as np
from scipy.spatial.transform import Rotation


def gantry_to_patient(point, turns_deg, shift_mm, isocentre_mm):
    """Undo the pose: gantry = R (patient - isocentre) + shift, turned about fixed x, then y, then z (RAS)."""
    turn = Rotation.from_euler("xyz", turns_deg, degrees=True)
    return turn.inv().apply(np.asarray(point) - shift_mm) + isocentre_mm


def patient_to_gantry(point, turns_deg, shift_mm, isocentre_mm):
    turn = Rotation.from_euler("xyz", turns_deg, degrees=True)
    return turn.apply(np.asarray(point) - isocentre_mm) + shift_mm


def source_and_pixel(geometry, row, column):
    """Gantry mm: source in front, detector behind, rows towards the feet, columns towards the patient's left."""
    across = (column - (geometry.columns - 1) / 2) * geometry.pixel_mm
    down = (row - (geometry.rows - 1) / 2) * geometry.pixel_mm
    source = np.array([0.0, geometry.source_isocentre_mm, 0.0])
    return source, np.array([-across, geometry.source_isocentre_mm - geometry.source_detector_mm, -down])


def project(point, geometry, pose):
    """(row, column) of a patient point, by similar triangles."""
    right, front, up = patient_to_gantry(point, *pose)
    magnification = geometry.source_detector_mm / (geometry.source_isocentre_mm - front)
    row = (geometry.rows - 1) / 2 - up * magnification / geometry.pixel_mm
    column = (geometry.columns - 1) / 2 - right * magnification / geometry.pixel_mm
    return row, column


def trilinear(volume, index):
    """Value between voxels; the outermost voxels reach half a voxel further, beyond them there is nothing."""
    size = np.array(volume.shape)
    if (index < -0.5).any() or (index > size - 0.5).any():
        return 0.0
    index = np.clip(index, 0, size - 1)
    low = np.minimum(index.astype(int), size - 2)
    value = 0.0
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, index - low, 1 - (index - low)))
        value += weight * volume[tuple(low + corner)]
    return value


def cast_ray(volume_hu, affine, geometry, pose, row, column, *, water_per_mm, surface_hu, step_mm):
    """Line integral, expected depth and surface depth of one pixel."""
    ends = [gantry_to_patient(point, *pose) for point in source_and_pixel(geometry, row, column)]
    length = np.linalg.norm(ends[1] - ends[0])
    mu = water_per_mm * np.maximum(1 + np.asarray(volume_hu, dtype=float) / 1000, 0)
    to_voxel = np.linalg.inv(affine)
    total = moment = 0.0
    surface = np.nan
    for number in range(int(length / step_mm)):
        depth = (number + 0.5) * step_mm
        point = ends[0] + (ends[1] - ends[0]) * depth / length
        value = trilinear(mu, (to_voxel @ [*point, 1])[:3])
        total += value * step_mm
        moment += value * step_mm * depth
        if np.isnan(surface) and value > water_per_mm * (1 + surface_hu / 1000):
            surface = depth
    return total, moment / total if total else np.nan, surface
