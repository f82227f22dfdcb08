"""Landmarks found by rule on the label map of a CT: the points of a structure that reach farthest in one direction.

Such points are what a reader marks on a radiograph: the apex of a lung, an end of a rib, the tip of a process, a corner
of a vertebral body.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

from medpixcl.coordinates import voxel_to_mm

TIP_MM = 2.5
"""Depth of a tip, one slice of the demo's CT: its centre is steadier than the one voxel that reaches farthest."""
BEHIND_MM = 3.0
"""Gap left in front of a structure such as the spinal cord: the back wall of the vertebral body."""


@dataclass(frozen=True)
class TipRule:
    """Rule for a landmark at the tip of a structure, in a direction of the patient.

    Args:
        labels: Labels that form the structure, such as the lobes of a lung.
        towards: Direction (right, front, up) of the tip; its length is ignored.
        in_front_of: Label; only what lies in front of this structure counts. The vertebral body, for instance, lies
            in front of the spinal cord and the processes do not.
    """

    labels: tuple[int, ...]
    towards: tuple[int, int, int]
    in_front_of: int | None = None


def find_tips(
    labels: Integer[np.ndarray, "i j k"], affine: Float[Tensor, "4 4"], rules: Sequence[TipRule]
) -> Float[Tensor, "n 3"]:
    """Place of each rule's landmark in RAS+ mm, float64: the mean of what reaches to ``TIP_MM`` of the farthest voxel.

    Args:
        labels: Label map, shape (I, J, K), 0 where there is nothing.
        affine: Voxel (i, j, k) to RAS+ mm, shape (4, 4).
        rules: N landmarks to find.

    Returns:
        Shape (N, 3).

    Raises:
        ValueError: If a structure has no voxel.
    """
    wanted = {label for rule in rules for label in (*rule.labels, rule.in_front_of) if label is not None}
    points = {label: _points(labels, affine, label) for label in wanted}
    return torch.stack([_tip(rule, points) for rule in rules])


def _points(labels: Integer[np.ndarray, "i j k"], affine: Float[Tensor, "4 4"], label: int) -> Float[Tensor, "n 3"]:
    """Voxels of a label in mm."""
    turned = labels.T  # as the file lies in memory: much faster to walk
    voxels = np.stack(np.unravel_index(np.flatnonzero(turned == label), turned.shape)[::-1], axis=-1)
    if not len(voxels):
        raise ValueError(f"the label map has no voxel of label {label}; landmarks need every structure that they name")
    return voxel_to_mm(torch.from_numpy(voxels).double(), affine)


def _tip(rule: TipRule, points: dict[int, Float[Tensor, "n 3"]]) -> Float[Tensor, " 3"]:
    """The landmark of one rule."""
    body = torch.cat([points[label] for label in rule.labels])
    if rule.in_front_of is not None:
        body = body[body[:, 1] > _front_at(points[rule.in_front_of], body) + BEHIND_MM]
    towards = torch.tensor(rule.towards, dtype=torch.float64)
    reach = body @ (towards / torch.linalg.vector_norm(towards))
    return body[reach >= reach.max() - TIP_MM].mean(dim=0)


def _front_at(structure: Float[Tensor, "n 3"], body: Float[Tensor, "m 3"]) -> Float[Tensor, ""]:
    """Foremost coordinate of a structure between the lower and the upper end of a body."""
    low, high = body[:, 2].aminmax()
    beside = structure[(structure[:, 2] >= low) & (structure[:, 2] <= high)]
    return beside[:, 1].max()
