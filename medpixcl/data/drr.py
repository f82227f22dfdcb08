"""Digitally reconstructed radiographs: a cone beam cast through a CT volume, with the depth of the tissue it meets.

Frames, all in mm:

* **patient**: RAS+, the frame of the volume's affine and of the points to project.
* **gantry**: fixed to the X-ray machine, origin at the isocentre, axes parallel to the patient's at pose zero. The
  source stands in front of the patient at ``(0, source_isocentre_mm, 0)`` and shines backwards (antero-posterior view)
  on a flat detector at a right angle to the beam. Rows of the radiograph run from head to feet, columns from the
  patient's right to the left: the way a radiologist looks at a chest.

A pose moves the patient: ``gantry = R (patient - isocentre) + t`` with ``R = R_S R_A R_R``, turned first about the
R axis, then about A, then about S of the gantry; angles follow the right-hand rule.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from medpixcl.coordinates import apply_affine, inside, voxel_positions, voxel_to_grid, voxel_to_mm

AIR_HU = -1000.0


@dataclass(frozen=True, kw_only=True)
class ConeBeam:
    """X-ray source and flat detector.

    Args:
        rows: Height of the detector in pixels.
        columns: Width of the detector in pixels.
        pixel_mm: Side of a square detector pixel; the beam's axis meets the centre of the detector.
        source_detector_mm: Distance from the source to the detector, along the beam's axis.
        source_isocentre_mm: Distance from the source to the isocentre.

    Raises:
        ValueError: If a size is not positive or the isocentre does not lie between source and detector.
    """

    rows: int
    columns: int
    pixel_mm: float
    source_detector_mm: float = 1800.0
    source_isocentre_mm: float = 1600.0

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1 or self.pixel_mm <= 0:
            raise ValueError(
                f"the detector has {self.rows} x {self.columns} pixels of {self.pixel_mm} mm; give positive numbers"
            )
        if not 0 < self.source_isocentre_mm <= self.source_detector_mm:
            raise ValueError(
                f"source_isocentre_mm is {self.source_isocentre_mm}; it must be above 0 and at most "
                f"source_detector_mm ({self.source_detector_mm})"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Size of the detector in pixels: (rows, columns)."""
        return self.rows, self.columns

    @property
    def centre(self) -> tuple[float, float]:
        """Voxel position (row, column) at which the beam's axis meets the detector."""
        return (self.rows - 1) / 2, (self.columns - 1) / 2


class Poses(NamedTuple):
    """Positions of the patient in the beam, one row per radiograph.

    ``rotations_deg`` are angles about the gantry's R, A and S axes, in this order of turning; ``translations_mm`` a
    shift along the same axes after the turn. Patient and gantry share the point ``isocentre_mm`` (RAS) at pose zero.
    """

    rotations_deg: Float[Tensor, "b 3"]
    translations_mm: Float[Tensor, "b 3"]
    isocentre_mm: Float[Tensor, " 3"]


class DRR(NamedTuple):
    """Radiographs and their depth, each of shape (B, 1, rows, columns).

    ``image`` is the line integral of the attenuation (no unit; bright means dense). ``depth_expected`` is the mean
    distance from the source in mm, weighted by the attenuation met there; ``depth_surface`` is the distance to the
    first crossing of the body threshold. Both are NaN where the ray never meets the body.
    """

    image: Float[Tensor, "b 1 h w"]
    depth_expected: Float[Tensor, "b 1 h w"]
    depth_surface: Float[Tensor, "b 1 h w"]


class Projection(NamedTuple):
    """Points on the detector: voxel positions (row, column) (B, K, 2), and whether the detector sees them (B, K)."""

    points: Float[Tensor, "b k 2"]
    visible: Bool[Tensor, "b k"]


class _Rays(NamedTuple):
    """Straight lines ``origin + depth * direction`` in ``grid_sample`` coordinates, depth in mm, within near..far."""

    origin: Float[Tensor, "n 3"]
    direction: Float[Tensor, "n 3"]
    near: Float[Tensor, " n"]
    far: Float[Tensor, " n"]


def hu_to_attenuation(hu: Float[Tensor, "*s"], *, water_per_mm: float = 0.02) -> Float[Tensor, "*s"]:
    """Convert HU to linear attenuation per mm: ``water_per_mm`` for water (0.02 is close to 70 keV), 0 for air.

    Example:
        >>> hu_to_attenuation(torch.tensor([-1024.0, 0.0, 1000.0]))
        tensor([0.0000, 0.0200, 0.0400])
    """
    return water_per_mm * (1 + hu / 1000).clamp_min(0)


def volume_centre(affine: Float[Tensor, "4 4"], shape: tuple[int, int, int]) -> Float[Tensor, " 3"]:
    """Compute the centre of a volume (i, j, k) in the frame of its affine, float64: the usual isocentre."""
    last = torch.tensor([shape], dtype=torch.float64, device=affine.device) - 1
    return voxel_to_mm(last / 2, affine)[0]


def pose_rotation(rotations_deg: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3 3"]:
    """Rotation matrices ``R_S R_A R_R`` for right-handed angles about the fixed R, A and S axes.

    Example:
        >>> turned = pose_rotation(torch.tensor([[0.0, 0.0, 90.0]])) @ torch.tensor([1.0, 0.0, 0.0])
        >>> turned.round().abs()
        tensor([[0., 1., 0.]])
    """
    matrix = torch.eye(3).to(rotations_deg)
    for axis in range(3):
        angle = torch.deg2rad(rotations_deg[:, axis])
        turn = torch.eye(3).to(angle).repeat(len(angle), 1, 1)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[:, first, first] = turn[:, second, second] = angle.cos()
        turn[:, second, first], turn[:, first, second] = angle.sin(), -angle.sin()
        matrix = turn @ matrix
    return matrix


def patient_to_gantry(poses: Poses) -> Float[Tensor, "b 4 4"]:
    """Compute the homogeneous matrices of ``gantry = R (patient - isocentre) + t``, float64.

    Raises:
        ValueError: If the poses hold NaN or infinity, or the numbers of rotations and translations differ.
    """
    rotations, translations, isocentre = (part.to(torch.float64) for part in poses)
    if rotations.shape != translations.shape:
        raise ValueError(
            f"poses have {len(rotations)} rotations and {len(translations)} translations; give one of each per view"
        )
    if not all(bool(part.isfinite().all()) for part in (rotations, translations, isocentre)):
        raise ValueError("poses hold NaN or infinity; give finite degrees and mm")
    matrix = torch.eye(4).to(rotations).repeat(len(rotations), 1, 1)
    matrix[:, :3, :3] = pose_rotation(rotations)
    matrix[:, :3, 3] = translations - matrix[:, :3, :3] @ isocentre
    return matrix


def project_points(points_mm: Float[Tensor, "k 3"], geometry: ConeBeam, poses: Poses) -> Projection:
    """Project 3D points onto the detector, with the geometry of :func:`render_drr`.

    Args:
        points_mm: Positions in the patient, RAS+ mm, shape (K, 3).
        geometry: X-ray source and detector.
        poses: B poses of the patient.

    Returns:
        Sub-pixel (row, column) of shape (B, K, 2), float64, and a flag of shape (B, K): in front of the source, not
        behind the detector, and between the centres of the first and last pixels.
    """
    matrices = patient_to_gantry(poses)
    gantry = apply_affine(matrices, points_mm.to(matrices).expand(len(matrices), -1, -1))
    depth = geometry.source_isocentre_mm - gantry[..., 1]
    scale = geometry.source_detector_mm / geometry.pixel_mm / depth
    row, column = geometry.centre
    pixels = torch.stack([row - gantry[..., 2] * scale, column - gantry[..., 0] * scale], dim=-1)
    reached = (depth > 0) & (depth <= geometry.source_detector_mm)
    return Projection(pixels, inside(pixels, geometry.shape) & reached)


@torch.no_grad()
def render_drr(
    volume: Float[Tensor, "1 1 i j k"],
    affine: Float[Tensor, "4 4"],
    geometry: ConeBeam,
    poses: Poses,
    *,
    step_mm: float = 2.0,
    water_per_mm: float = 0.02,
    surface_hu: float = -400.0,
    max_samples: int = 2**20,
) -> DRR:
    """Cast one ray per detector pixel through a CT and integrate its attenuation (trilinear, midpoint rule).

    ``image = sum mu h`` and ``depth_expected = sum mu h depth / sum mu h``, summed between the points where the ray
    enters and leaves the box of the volume (the outer faces of its voxels) and no further than the detector. Every ray
    is cut in equal steps ``h <= step_mm``. Nothing is differentiable here.

    Args:
        volume: CT in Hounsfield units, shape (1, 1, I, J, K); rendered on its device.
        affine: Matrix from voxel (i, j, k) to RAS+ mm, (4, 4).
        geometry: X-ray source and detector.
        poses: B poses of the patient.
        step_mm: Longest step along a ray.
        water_per_mm: Attenuation of water; see :func:`hu_to_attenuation`.
        surface_hu: Value that a ray first exceeds at the surface of the body. The surface is found by linear
            interpolation between two samples, or is the face of the volume if the ray enters it above the value.
        max_samples: Largest number of samples in memory at once, about 40 bytes each.

    Returns:
        Line integrals and both depths, each (B, 1, rows, columns) in the type of ``volume``.

    Raises:
        ValueError: If the volume is not one CT of three axes, or ``step_mm``, ``water_per_mm``, ``max_samples`` or
            ``surface_hu`` is out of range.
    """
    if volume.ndim != 5 or volume.shape[:2] != (1, 1):
        raise ValueError(f"the volume has shape {tuple(volume.shape)}; give one CT as (1, 1, I, J, K)")
    if step_mm <= 0 or water_per_mm <= 0 or max_samples < 1 or surface_hu <= AIR_HU:
        raise ValueError(
            f"step_mm {step_mm}, water_per_mm {water_per_mm} and max_samples {max_samples} must be positive and "
            f"surface_hu {surface_hu} above {AIR_HU:.0f} (air)"
        )
    attenuation = hu_to_attenuation(volume.as_subclass(Tensor), water_per_mm=water_per_mm)
    threshold = water_per_mm * (1 + surface_hu / 1000)
    matrices = patient_to_gantry(poses).to(volume.device)
    views = []
    for matrix in matrices:
        rays = _cast_rays(torch.linalg.inv(matrix), affine.to(matrix), geometry, attenuation)
        parts = [_march(attenuation, chunk, step_mm, threshold) for chunk in _chunks(rays, step_mm, max_samples)]
        views.append(torch.cat(parts, dim=1).view(3, 1, *geometry.shape))
    return DRR(*torch.stack(views, dim=1))


def _cast_rays(
    to_patient: Float[Tensor, "4 4"],
    affine: Float[Tensor, "4 4"],
    geometry: ConeBeam,
    volume: Float[Tensor, "1 1 i j k"],
) -> _Rays:
    """One ray per pixel in row-major order, clipped to the volume's box and to the detector."""
    to_voxel = torch.linalg.inv(affine) @ to_patient
    pixels = voxel_positions(geometry.shape, device=affine.device).to(affine).flatten(0, 1)
    offset = (pixels.new_tensor(geometry.centre) - pixels) * geometry.pixel_mm
    beam = torch.full_like(offset[:, 0], -geometry.source_detector_mm)
    to_pixel = torch.stack([offset[:, 1], beam, offset[:, 0]], dim=-1)
    length = torch.linalg.vector_norm(to_pixel, dim=-1)

    shape = volume.shape[2:]
    source = apply_affine(to_voxel, to_pixel.new_tensor([[0.0, geometry.source_isocentre_mm, 0.0]]))
    origin = voxel_to_grid(source, shape)
    # voxel_to_grid is affine: the difference of two of its values is the direction, the offset cancels.
    tips = voxel_to_grid(source + (to_pixel / length[:, None]) @ to_voxel[:3, :3].mT, shape)
    direction = tips - origin
    near, far = _clip_to_box(origin, direction)
    far = torch.minimum(far, length)
    hit = far > near
    parts = origin.expand_as(direction), direction, near.where(hit, 0.0), far.where(hit, 0.0)
    return _Rays(*(part.to(volume) for part in parts))


def _clip_to_box(origin: Float[Tensor, "1 3"], direction: Float[Tensor, "n 3"]) -> tuple[Tensor, Tensor]:
    """Depth at which each ray enters and leaves the box -1..1 of ``grid_sample``; leaves before it enters: a miss."""
    tiny = torch.finfo(direction.dtype).tiny
    # A ray parallel to a face: its two crossings go to plus and minus infinity, or to the same one outside the slab.
    direction = torch.where(direction.abs() < tiny, tiny, direction)
    crossings = torch.stack([(-1 - origin) / direction, (1 - origin) / direction])
    near = crossings.amin(dim=0).amax(dim=-1).clamp_min(0)
    far = crossings.amax(dim=0).amin(dim=-1)
    return near, far


def _chunks(rays: _Rays, step_mm: float, max_samples: int) -> Iterator[_Rays]:
    """Rays in pieces of at most ``max_samples`` steps (but at least one ray)."""
    longest = int(((rays.far - rays.near).max() / step_mm).ceil().clamp_min(1))
    size = max(1, max_samples // longest)
    return (_Rays(*part) for part in zip(*(part.split(size) for part in rays), strict=True))


def _march(attenuation: Float[Tensor, "1 1 i j k"], rays: _Rays, step_mm: float, threshold: float) -> Tensor:
    """Line integral, expected depth and surface depth of each ray, shape (3, N).

    The number of steps is each ray's own, so the numbers do not depend on which rays share a chunk.
    """
    length = rays.far - rays.near
    steps = (length / step_mm).ceil().clamp_min(1)
    step = (length / steps)[:, None]
    index = torch.arange(int(steps.max()), device=length.device)
    used = index < steps[:, None]
    depth = rays.near[:, None] + (index + 0.5) * step
    grid = torch.addcmul(rays.origin[:, None], depth[..., None], rays.direction[:, None])
    sampled = F.grid_sample(attenuation, grid[None, :, :, None], padding_mode="border", align_corners=False)
    sampled = sampled[0, 0, ..., 0] * used

    weight = sampled * step
    image = weight.sum(dim=1)
    expected = (weight * depth).sum(dim=1) / image
    surface = _first_crossing(sampled, threshold, rays.near, step[:, 0])
    return torch.stack([image, expected.where(surface.isfinite(), torch.nan), surface])


def _first_crossing(
    sampled: Float[Tensor, "n s"], threshold: float, near: Float[Tensor, " n"], step: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Depth where samples at ``near + (k + 1/2) step`` first exceed the threshold, linear in between, or NaN."""
    above = sampled > threshold
    first = above.to(torch.uint8).argmax(dim=1, keepdim=True)
    after = sampled.gather(1, first)[:, 0]
    before = sampled.gather(1, (first - 1).clamp_min(0))[:, 0]
    first = first[:, 0]
    fraction = (threshold - before) / (after - before)
    depth = near + (first - 0.5 + fraction) * step
    return depth.where(first > 0, near).where(above.any(dim=1), torch.nan)
