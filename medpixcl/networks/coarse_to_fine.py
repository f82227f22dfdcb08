"""Find landmarks in a coarse volume, then again in a fine crop around each landmark."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl.coordinates import apply_affine, spacing_of, spatial_affine
from medpixcl.landmarks.geometry import robust_similarity, transform
from medpixcl.landmarks.heatmaps import activate_heatmaps, heatmap_covariance
from medpixcl.networks.inferers import LandmarkInferer
from medpixcl.networks.landmark import LandmarkNet, decode_output
from medpixcl.networks.precision import Precision
from medpixcl.views import affine_view, resample, upright_axes, view_positions


def crops_around(
    image: Float[Tensor, "c ..."], centres: Float[Tensor, "k d"], shape: Sequence[int]
) -> tuple[Float[Tensor, "k c ..."], Float[Tensor, "k d1 d1"]]:
    """Cut crops of one shape around voxels; beyond the image a crop is zero.

    Args:
        image: Image to cut, shape (C, *spatial).
        centres: Voxels in array order, shape (K, D); voxels far outside the image give crops of zeros.
        shape: Spatial shape of the crops.

    Returns:
        The crops, and the matrix of each, crop voxel -> image voxel, (K, D+1, D+1).

    Example:
        >>> crops, matrices = crops_around(torch.arange(5.0)[None, :, None], torch.tensor([[4.2, 0.0]]), [3, 1])
        >>> crops.flatten().tolist(), matrices[0, :2, 2].tolist()
        ([3.0, 4.0, 0.0], [3.0, 0.0])
    """
    sizes = torch.tensor(list(shape), device=centres.device)
    limits = torch.tensor(image.shape[1:], device=centres.device)
    inside = torch.minimum(centres.clamp_min(0), limits - 1.0)
    starts = (inside - (sizes - 1) / 2).round().long()
    margin = [int(size) for size in reversed(shape)]
    padded = F.pad(image, [amount for size in margin for amount in (size, size)])
    crops = []
    for start in starts.tolist():
        window = [slice(one + size, one + 2 * size) for one, size in zip(start, shape, strict=True)]
        crops.append(padded[(slice(None), *window)])
    matrices = torch.eye(len(shape) + 1).repeat(len(centres), 1, 1).to(centres)
    matrices[:, :-1, -1] = starts.to(centres)
    return torch.stack(crops), matrices


def turned_crops_around(
    image: Float[Tensor, "c ..."],
    centres: Float[Tensor, "k d"],
    shape: Sequence[int],
    spacing_mm: Sequence[float],
    axes: Float[Tensor, "d d"],
) -> tuple[Float[Tensor, "k c ..."], Float[Tensor, "k d1 d1"]]:
    """Interpolate crops around voxels whose axes point in given directions, see :func:`medpixcl.views.affine_view`.

    Args:
        image: Image to sample, shape (C, *spatial).
        centres: Voxels in array order, shape (K, D).
        shape: Spatial shape of the crops.
        spacing_mm: Size of a voxel along each array axis.
        axes: Directions of the crops' axes along the array axes, in columns, shape (D, D).

    Returns:
        Crops (K, C, *shape), and the matrix of each, crop voxel -> image voxel, (K, D+1, D+1).
    """
    views = [affine_view(shape=shape, centre=centre, spacing_mm=spacing_mm, axes=axes) for centre in centres.tolist()]
    matrices = torch.stack([view.matrix for view in views]).to(centres)
    positions = view_positions(matrices, shape)
    crops = resample(image[None], positions.flatten(0, 1)[None])[0]
    return crops.unflatten(1, (len(views), shape[0])).movedim(1, 0), matrices


def upright_centres(
    shape: Float[Tensor, "k d"], found: Float[Tensor, "k d"], affine: Float[Tensor, "d1 d1"]
) -> tuple[Float[Tensor, "k d"], Float[Tensor, "d d"]]:
    """Landmark positions after fitting a shape to the found landmarks, and the view axes that put the shape upright.

    Args:
        shape: Landmarks of a typical image in mm, shape (K, D); landmarks that it lacks (NaN) stay where they were
            found.
        found: Found landmarks as voxels of the image, shape (K, D); some may be far off.
        affine: Affine of the image, voxel -> mm.

    Returns:
        Voxels (K, D) and directions of the axes (D, D), in columns.
    """
    known = ~shape.isnan().any(dim=1)
    mm = apply_affine(affine, found.double().cpu())
    matrix, shift = robust_similarity(shape[known], mm[known])
    placed = mm.clone()
    placed[known] = transform(shape[known], matrix, shift)
    return apply_affine(torch.linalg.inv(affine), placed).to(found), upright_axes(affine, matrix)


class CoarseToFineInferer(Inferer):
    """Finds landmarks in whole coarse images, then each of them again in a crop of the same image at a finer spacing.

    The fine network was trained on crops around landmarks only, so each of its heatmaps is used within its own crop.

    Args:
        coarse: Inferer that finds the landmarks in the coarse images with the network passed in the call.
        network: Fine network, trained on the same landmarks.
        crop_shape: Spatial shape of the crops in fine voxels; a multiple of the fine network's coarsest stride.
        radius: Number of cells on each side of a peak that are averaged, see
            :func:`medpixcl.networks.landmark.decode_output`.
        crops_at_once: Number of crops in one batch.
        bfloat16: Convolutions of the fine network in bfloat16: true, false, or ``"auto"`` where the device computes
            them faster.
        use_offsets: Whether the fine network's offsets are used, see :func:`medpixcl.networks.landmark.decode_output`.
        activation: ``activation`` of the loss that the fine network was trained with.
        shape_mm: Landmarks of a typical image, (K, D) in mm, for a fine network trained on upright views
            (:class:`medpixcl.transforms.RandLandmarkViewd`). The shape is fitted robustly to the coarse landmarks; the
            crops lie around its landmarks and are turned with it.

    Raises:
        ValueError: If the networks or the shape have different landmarks, or the crop does not fit the strides.
    """

    def __init__(
        self,
        coarse: LandmarkInferer,
        network: LandmarkNet,
        crop_shape: Sequence[int],
        radius: int = 3,
        crops_at_once: int = 8,
        bfloat16: bool | str = "auto",
        use_offsets: bool = True,
        activation: str = "softmax",
        shape_mm: Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        if network.landmarks != coarse.definition.landmarks:
            raise ValueError(
                f"the fine network has {network.landmarks} landmarks and the coarse one {coarse.definition.landmarks}; "
                "take two that were trained on the same landmarks"
            )
        if any(size % network.coarsest_stride for size in crop_shape):
            raise ValueError(
                f"crop_shape is {list(crop_shape)}; expected multiples of the network's coarsest stride, "
                f"{network.coarsest_stride}"
            )
        if shape_mm is not None and len(shape_mm) != network.landmarks:
            raise ValueError(
                f"shape_mm has {len(shape_mm)} landmarks and the networks have {network.landmarks}; "
                "take the settings written beside the fine weights"
            )
        self.shape = None if shape_mm is None else torch.tensor(shape_mm, dtype=torch.float64)
        self.coarse, self.fine, self.crop_shape = coarse, network, tuple(crop_shape)
        self.radius, self.crops_at_once, self.precision = radius, crops_at_once, Precision(bfloat16)
        self.use_offsets, self.activation = use_offsets, activation

    def __call__(self, inputs: Tensor, network: nn.Module, detail: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        """Landmarks of coarse images (B, C, *spatial), with the same images at the fine spacing, both with affines.

        Returns:
            As :class:`medpixcl.networks.inferers.LandmarkInferer`, in voxels of the coarse images; confidence and
            covariance are those of the fine heatmaps, and ``spread_mm`` the way from the coarse to the fine position.
        """
        if not (isinstance(inputs, MetaTensor) and isinstance(detail, MetaTensor)):
            raise ValueError("coarse and fine images carry no affines; expected MetaTensors of the same images")
        found = self.coarse(inputs, network)
        points, confidences, covariances = (found[key].clone() for key in ("points", "confidence", "covariance_mm2"))
        spacing = points.new_tensor(self.coarse.spacing_mm)
        for number, coarse in enumerate(found["points"]):
            dims = coarse.shape[1]
            affines = [spatial_affine(one.affine[number].double().cpu(), dims) for one in (inputs, detail)]
            to_fine = (torch.linalg.inv(affines[1]) @ affines[0]).to(coarse)
            centres, axes = apply_affine(to_fine, coarse), None
            if self.shape is not None:
                centres, axes = upright_centres(self.shape, centres, affines[1])
            fine, confidences[number], covariances[number] = self._refine(
                detail.as_tensor()[number], centres, spacing_of(affines[1]).tolist(), axes
            )
            points[number] = apply_affine(torch.linalg.inv(to_fine), fine)
        spread = torch.linalg.vector_norm((points - found["points"]) * spacing, dim=-1)
        return {"points": points, "confidence": confidences, "spread_mm": spread, "covariance_mm2": covariances}

    def _refine(
        self, image: Tensor, centres: Tensor, spacing_mm: Sequence[float], axes: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fine positions (K, D), confidences (K,) and covariances in mm^2 (K, D, D) of the landmarks of one image."""
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for first in range(0, len(centres), self.crops_at_once):
            around = centres[first : first + self.crops_at_once]
            if axes is None:
                crops, matrices = crops_around(image, around, self.crop_shape)
            else:
                crops, matrices = turned_crops_around(image, around, self.crop_shape, spacing_mm, axes)
            landmarks = torch.arange(first, first + len(around), device=image.device)
            with self.precision.autocast(crops.device):
                output = self.fine(crops)
            output = self._of_landmark(output, landmarks)
            place, confidence = decode_output(
                output,
                1,
                stride=self.fine.stride,
                radius=self.radius,
                use_offsets=self.use_offsets,
                activation=self.activation,
            )
            maps = activate_heatmaps(output[:, :1].float(), self.activation)
            covariance = heatmap_covariance(
                maps, stride=self.fine.stride, spacing_mm=spacing_mm, radius=self.coarse.covariance_radius
            )
            parts.append((apply_affine(matrices, place)[:, 0], confidence[:, 0], covariance[:, 0]))
        places, confidences, covariances = (torch.cat(column) for column in zip(*parts, strict=True))
        if axes is not None:
            turn = axes.to(covariances)
            covariances = turn @ covariances @ turn.mT
        return places, confidences, covariances

    def _of_landmark(self, output: Tensor, landmark: Tensor) -> Tensor:
        """Heatmap and offsets of one landmark in each crop: (N, 1 + D, *cells)."""
        count, rows = self.fine.landmarks, torch.arange(len(output), device=output.device)
        offsets = output[:, count:].unflatten(1, (count, output.ndim - 2))
        return torch.cat([output[rows, landmark][:, None], offsets[rows, landmark]], dim=1)
