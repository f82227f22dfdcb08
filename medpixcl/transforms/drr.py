"""A radiograph and its depth in place of a CT volume."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from medpixcl.coordinates import image_affine
from medpixcl.data.drr import ConeBeam, Poses, render_drr, volume_centre


class DRRd(MapTransform):
    """Replace a CT by its radiograph, and add two exogenous channels: expected depth and depth of the first surface.

    Both are distances from the source in mm, missing where the ray meets no body (:mod:`medpixcl.data.drr`). The
    radiograph is the line integral of the attenuation; its pixel size is that of the detector. A label map of the CT
    has no depth: each of its labels would have to be projected by itself.

    Args:
        keys: CTs in HU, (1, i, j, k) with their affine.
        rows: Height of the detector in pixels.
        columns: Width of the detector in pixels.
        pixel_mm: Side of a detector pixel.
        rotations_deg: Turns of the patient about R, A and S of the gantry; 0 is antero-posterior.
        translations_mm: Shifts of the patient along R, A and S.
        pose_key: Where the item carries six numbers under this key (three turns, three shifts) they hold instead, so
            one CT may stand in a datalist many times.
        step_mm: Longest step along a ray.
        surface_hu: The body begins where a ray first exceeds this value.
        source_detector_mm: Distance from the source to the detector.
        source_isocentre_mm: Distance from the source to the middle of the CT.
        expected_prefix: The expected depth of ``image`` is stored under ``expected_prefix + "image"``.
        surface_prefix: The depth of the first surface under ``surface_prefix + "image"``.
        allow_missing_keys: As in MONAI.

    Raises:
        ValueError: If the image is no volume of one channel, a pose has not six numbers, or no ray meets the body.
    """

    def __init__(
        self,
        keys: KeysCollection,
        rows: int,
        columns: int,
        pixel_mm: float,
        rotations_deg: Sequence[float] = (0.0, 0.0, 0.0),
        translations_mm: Sequence[float] = (0.0, 0.0, 0.0),
        pose_key: str = "pose",
        step_mm: float = 2.0,
        surface_hu: float = -400.0,
        source_detector_mm: float = 1800.0,
        source_isocentre_mm: float = 1600.0,
        expected_prefix: str = "depth_",
        surface_prefix: str = "surface_depth_",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.geometry = ConeBeam(
            rows=rows,
            columns=columns,
            pixel_mm=pixel_mm,
            source_detector_mm=source_detector_mm,
            source_isocentre_mm=source_isocentre_mm,
        )
        self.pose, self.pose_key = [*rotations_deg, *translations_mm], pose_key
        self.step_mm, self.surface_hu = step_mm, surface_hu
        self.prefixes = expected_prefix, surface_prefix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the radiographs and their depth."""
        item = dict(data)
        pose = torch.as_tensor(item.get(self.pose_key, self.pose), dtype=torch.float64).flatten()
        if len(pose) != 6:
            raise ValueError(
                f"the pose has {len(pose)} numbers; expected three turns in degrees and three shifts in mm."
            )
        affine = image_affine((self.geometry.pixel_mm, self.geometry.pixel_mm))
        for key in self.key_iterator(item):
            name = item[key].meta.get("filename_or_obj", "the image")
            image, *depths = self._render(item[key], pose, name)
            item[key] = MetaTensor(image, affine=affine, meta={"filename_or_obj": name})
            for prefix, depth in zip(self.prefixes, depths, strict=True):
                item[f"{prefix}{key}"] = MetaTensor(with_validity(depth), affine=affine)
        return item

    def _render(self, volume: MetaTensor, pose: Float[Tensor, " 6"], name: str) -> list[Tensor]:
        """Line integral and both depths, each (1, rows, columns)."""
        if volume.ndim != 4 or volume.shape[0] != 1:
            raise ValueError(f"{name} has shape {tuple(volume.shape)}; a radiograph is cast from a CT (1, i, j, k).")
        affine = torch.as_tensor(volume.affine, dtype=torch.float64)
        shape = (volume.shape[1], volume.shape[2], volume.shape[3])
        poses = Poses(pose[None, :3], pose[None, 3:], volume_centre(affine, shape))
        values = volume.as_tensor()[None].float()
        drr = render_drr(values, affine, self.geometry, poses, step_mm=self.step_mm, surface_hu=self.surface_hu)
        if not drr.depth_surface.isfinite().any():
            raise ValueError(
                f"{name}: no ray of the {' x '.join(map(str, self.geometry.shape))} detector meets the body."
            )
        return [part[0] for part in drr]


def with_validity(values: Float[Tensor, " c *s"]) -> Float[Tensor, " c1 *s"]:
    """A channel whose unknown values are NaN as values (0 there) and validity.

    Example:
        >>> with_validity(torch.tensor([[3.0, torch.nan]]))
        tensor([[3., 0.],
                [1., 0.]])
    """
    known = values.isfinite().all(dim=0, keepdim=True)
    return torch.cat([torch.where(known, values, 0.0), known.to(values)])
