"""Inferers that run networks on whole images: embedding levels, and landmarks from several views."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

from medpixcl.coordinates import apply_affine
from medpixcl.landmarks.heatmaps import activate_heatmaps, heatmap_covariance
from medpixcl.networks.backbones import pad_to_stride
from medpixcl.networks.embedding import LevelsNet
from medpixcl.networks.landmark import LandmarkNet, decode_output
from medpixcl.networks.precision import Precision
from medpixcl.views import affine_view, resample, view_positions


class LevelsInferer(Inferer):
    """Runs an embedding network on a whole image, padded with zeros at its end to a multiple of the coarsest stride.

    Raises:
        ValueError: If the image fits into one cell of the coarsest level.
    """

    def __call__(self, inputs: Tensor, network: LevelsNet, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Level maps of the images (B, C, *spatial), finest first."""
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        stride, sizes = network.coarsest_stride, image.shape[2:]
        if max(sizes) <= stride:
            shown = " x ".join(map(str, sizes))
            raise ValueError(
                f"the image has {shown} voxels at the spacing of the network, which needs more than {stride} along an "
                "axis: check its spacing, or give a larger image"
            )
        return network.levels(pad_to_stride(image, stride))


Views = Sequence[Sequence[float | int]]
"""Rotation in degrees and scale of every view of an image."""


class EmbeddingModel:
    """An embedding network on its device, as a function from images to level maps; without gradient.

    Args:
        network: Network to run; it is moved to the device and put into evaluation mode.
        device: Device on which it runs, and on which the level maps stay.
        inferer: Inferer that runs the network on a whole image; :class:`LevelsInferer` by default.

    Attributes:
        strides: Strides of the levels, finest first.
    """

    def __init__(self, network: LevelsNet, device: str | torch.device = "cpu", inferer: Inferer | None = None) -> None:
        self.network, self.device = network.to(device).eval(), torch.device(device)
        self.inferer = LevelsInferer() if inferer is None else inferer
        self.strides: list[int] = network.strides

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Tensor]:
        """Level maps (B, E, *cells) of images (B, C, *spatial), finest first."""
        return self.inferer(images.to(self.device), self.network)


class LandmarkInferer(Inferer):
    """Finds landmarks in whole images, each seen in one or more turned and scaled views.

    The network runs on every view and its output is decoded. The result is the median over the views, the mean of two.

    Args:
        network: Network that defines the number of landmarks and the strides; the network that runs is passed in the
            call.
        spacing_mm: Size of a voxel along each array axis.
        views: Rotation in degrees (about every axis in 3D) and scale of each view.
        radius: Number of cells on each side of a peak that are averaged, see
            :func:`medpixcl.networks.landmark.decode_output`.
        use_offsets: Whether the network's offsets are used, see :func:`medpixcl.networks.landmark.decode_output`.
        bfloat16: Convolutions in bfloat16: true, false, or ``"auto"`` where the device computes them faster.
        activation: ``activation`` of the loss that the network was trained with.
        covariance_radius: Number of cells on each side of the peak over which the covariance of a heatmap is measured.
    """

    def __init__(
        self,
        network: LandmarkNet,
        spacing_mm: Sequence[float],
        views: Views = ((0.0, 1.0),),
        radius: int = 3,
        use_offsets: bool = True,
        bfloat16: bool | str = "auto",
        activation: str = "softmax",
        covariance_radius: int = 8,
    ) -> None:
        super().__init__()
        self.definition, self.spacing_mm = network, list(spacing_mm)
        self.views, self.radius, self.use_offsets = (
            [(float(degrees), float(scale)) for degrees, scale in views],
            radius,
            use_offsets,
        )
        self.precision, self.activation, self.covariance_radius = Precision(bfloat16), activation, covariance_radius

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Landmarks of images (B, C, *spatial).

        Returns:
            ``points`` (B, K, D), voxels of the images, ``confidence`` (B, K), ``spread_mm`` (B, K): the root mean
            square distance of the views' positions from the result, and ``covariance_mm2`` (B, K, D, D), along the
            array axes: the mean of the heatmaps' covariances and the spread of the views' positions together.
        """
        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        found, confidences, spreads = zip(*[self._one_view(images, network, *view) for view in self.views], strict=True)
        positions = torch.stack(found)
        points = positions.mean(dim=0) if len(found) < 3 else positions.median(dim=0).values
        away = (positions - points) * positions.new_tensor(self.spacing_mm)
        spread = away.square().sum(dim=-1).mean(dim=0).sqrt()
        between = (away[..., :, None] * away[..., None, :]).mean(dim=0)
        return {
            "points": points,
            "confidence": torch.stack(confidences).mean(dim=0),
            "spread_mm": spread,
            "covariance_mm2": torch.stack(spreads).mean(dim=0) + between,
        }

    def _one_view(
        self, images: Tensor, network: nn.Module, degrees: float, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Positions in the images' voxels, confidences and covariances in mm^2."""
        dims, shape = images.ndim - 2, list(images.shape[2:])
        matrix = None
        if degrees != 0 or scale != 1:
            view = affine_view(
                shape=shape,
                centre=[(n - 1) / 2 for n in shape],
                spacing_mm=self.spacing_mm,
                rotation_degrees=[degrees] * (1 if dims == 2 else 3),
                scale=scale,
            )
            matrix = view.matrix[None].to(images.device, torch.float32)
            images = resample(images, view_positions(matrix, shape).expand(len(images), *shape, dims))
        with self.precision.autocast(images.device):
            output = network(pad_to_stride(images, self.definition.coarsest_stride))
        cells = [-(-size // self.definition.stride) for size in shape]  # no landmark is looked for in the padding
        output = output[(slice(None), slice(None), *[slice(n) for n in cells])]
        points, confidence = decode_output(
            output,
            self.definition.landmarks,
            stride=self.definition.stride,
            radius=self.radius,
            use_offsets=self.use_offsets,
            activation=self.activation,
        )
        spread = self._covariance(output, matrix)
        return (points if matrix is None else apply_affine(matrix, points)), confidence, spread

    def _covariance(self, output: Tensor, matrix: Tensor | None) -> Tensor:
        """Covariance of the heatmaps in mm^2 along the image's axes; ``matrix`` takes voxels of the view there."""
        maps = activate_heatmaps(output[:, : self.definition.landmarks].float(), self.activation)
        voxels = heatmap_covariance(
            maps, stride=self.definition.stride, spacing_mm=[1.0] * (maps.ndim - 2), radius=self.covariance_radius
        )
        to_mm = torch.diag(voxels.new_tensor(self.spacing_mm))
        if matrix is not None:
            to_mm = to_mm @ matrix[0, :-1, :-1].to(voxels)
        return to_mm @ voxels @ to_mm.T
