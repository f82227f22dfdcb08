"""Synthetic patients: one CT, bent smoothly, so that its radiographs are not those of one person alone.

A patient is a map from its own body to the CT, ``x -> x + u(x)`` in RAS+ mm: the patient's tissue at ``x`` is what the
CT shows at ``x + u(x)``. Images are resampled by the map and points are sent through its inverse, so a landmark stays
on its tissue exactly, between the voxels.

``u`` is a scaling of the axes and a sum of waves ``a sin(k x + p)``. The norm of its derivative, the strain, is at most
the sum of the largest scaling and of all ``|a| |k|``. Below 1 this bound makes the map a bijection without folds, with
a positive Jacobian everywhere, and its inverse the limit of ``x <- p - u(x)`` (Banach's fixed-point theorem).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.coordinates import mm_to_voxel, sample_at, voxel_positions, voxel_to_mm

WAVES = 4
WAVELENGTH_MM = (150.0, 400.0)
"""Shortest and longest wave; a lung is about 250 mm high."""
SIZES = (0.8, 1.05)
"""Smallest and largest body, relative to the CT's, which is as large as the demo's detector can show."""
PROPORTIONS = 0.05
"""Largest change of the body's width, depth and height beside that."""
TOLERANCE_MM = 1e-6


@dataclass(frozen=True)
class Patient:
    """A body as a map to the CT that it is made from; RAS+ mm, float64.

    Args:
        scaling: Relative stretch of the map along R, A, S about ``centre_mm``, shape (3,): 0.1 makes the body smaller.
        waves: Wave vectors k in radians per mm, shape (M, 3).
        amplitudes_mm: Amplitudes a, shape (M, 3).
        phases: Phases p in radians, shape (M,).
        centre_mm: Point that scaling leaves in place, shape (3,).

    Raises:
        ValueError: If the map may fold: its :attr:`strain` is 1 or more.
    """

    scaling: Float[Tensor, " 3"]
    waves: Float[Tensor, "m 3"]
    amplitudes_mm: Float[Tensor, "m 3"]
    phases: Float[Tensor, " m"]
    centre_mm: Float[Tensor, " 3"]

    def __post_init__(self) -> None:
        if self.strain >= 1:
            raise ValueError(f"the patient's strain is up to {self.strain:.2f}; below 1 nothing folds, so bend it less")

    @property
    def strain(self) -> float:
        """Upper bound of the norm of the derivative of ``u``."""
        norms = torch.linalg.vector_norm(self.waves, dim=1) * torch.linalg.vector_norm(self.amplitudes_mm, dim=1)
        return float(self.scaling.abs().max() + norms.sum())

    def displacement(self, points_mm: Float[Tensor, "k 3"]) -> Float[Tensor, "k 3"]:
        """``u`` at points of the patient."""
        bent = (points_mm @ self.waves.to(points_mm).mT + self.phases.to(points_mm)).sin()
        scaled = (points_mm - self.centre_mm.to(points_mm)) * self.scaling.to(points_mm)
        return scaled + bent @ self.amplitudes_mm.to(points_mm)

    def to_ct(self, points_mm: Float[Tensor, "k 3"]) -> Float[Tensor, "k 3"]:
        """Map points of the patient into the CT."""
        return points_mm + self.displacement(points_mm)

    def from_ct(self, points_mm: Float[Tensor, "k 3"]) -> Float[Tensor, "k 3"]:
        """Map points of the CT into the patient, the inverse of :meth:`to_ct`, to a millionth of a mm."""
        wanted = points_mm.double()
        found = wanted
        while (step := wanted - self.to_ct(found)).abs().max() > TOLERANCE_MM:
            found = found + step
        return found

    def resample(self, volume: Float[Tensor, "1 1 i j k"], affine: Float[Tensor, "4 4"]) -> Float[Tensor, "1 1 i j k"]:
        """The CT as the patient's, on the same voxels; what lies outside the CT is as at its border.

        Args:
            volume: CT, shape (1, 1, I, J, K).
            affine: Voxel (i, j, k) to RAS+ mm, shape (4, 4).
        """
        shape = volume.shape[2:]
        slices = []
        for number in range(shape[0]):  # one slice at a time: the positions of all need much memory
            voxels = voxel_positions((1, *shape[1:])).flatten(0, 2)
            voxels[:, 0] = number
            source = mm_to_voxel(self.to_ct(voxel_to_mm(voxels, affine)), affine)
            slices.append(sample_at(volume, source[None])[0, :, 0])
        return torch.stack(slices).view(volume.shape)


def draw_patient(seed: Sequence[int], *, strain: float, centre_mm: Sequence[float]) -> Patient:
    """A patient of its own for every seed.

    Args:
        seed: Numbers that choose the patient.
        strain: Bound of the waves' strain, shared among them equally; 0 gives the person of the CT.
        centre_mm: Point about which the body is scaled, RAS+ mm.
    """
    rng = np.random.default_rng(list(seed))
    scaling = (1 / rng.uniform(*SIZES) - 1 + rng.uniform(-PROPORTIONS, PROPORTIONS, 3)) * (strain > 0)
    directions, sways = (_unit_vectors(rng.standard_normal((WAVES, 3))) for _ in range(2))
    wavelengths = rng.uniform(*WAVELENGTH_MM, (WAVES, 1))
    amplitudes = strain / WAVES * wavelengths / (2 * np.pi)
    phases = rng.uniform(0, 2 * np.pi, WAVES)
    parts = scaling, directions * 2 * np.pi / wavelengths, sways * amplitudes, phases, np.array(centre_mm)
    return Patient(*map(torch.from_numpy, parts))


def _unit_vectors(vectors: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "m 3"]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
