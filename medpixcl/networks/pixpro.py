"""PixPro's network: an online encoder with heads and pixel propagation, and a momentum copy that gives the keys.

The propagation, the heads and the momentum encoder are PixPro's (arXiv 2011.10043 and its published code); more than
one level, each with a head and a propagation of its own, is ours.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_norm_layer
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl.networks.embedding import BackboneNet, LevelsNet
from medpixcl.networks.precision import Precision, keep_gradients_right


class ProjectionHead(nn.Sequential):
    """1 x 1 convolution, normalisation, ReLU, 1 x 1 convolution, with biases; PixPro's projector and predictor.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Number of channels of the map.
        out_channels: Length of the vectors.
        hidden_channels: Number of channels between the two convolutions; 4096 in the published code.
        norm: Normalisation, as MONAI names it; ``batch`` in PixPro, with statistics over batch and cells.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int = 256,
        hidden_channels: int = 4096,
        norm: str | Sequence = "batch",
    ) -> None:
        conv = Conv[Conv.CONV, spatial_dims]
        super().__init__(
            conv(in_channels, hidden_channels, 1),
            get_norm_layer(norm, spatial_dims, hidden_channels),
            nn.ReLU(inplace=True),
            conv(hidden_channels, out_channels, 1),
        )


class PixelPropagation(nn.Module):
    """Pixel propagation module: ``y_i = sum_j max(cos(x_i, x_j), 0)^gamma * g(x_j)`` over all cells j of the view.

    Args:
        spatial_dims: 2 or 3.
        channels: Number of channels of x and y.
        gamma: Exponent of the similarity; 2 in PixPro.
        transform_layers: Number of layers of g: 0 for the identity, 1 for a 1 x 1 convolution (PixPro), 2 for a hidden
            layer as well.
        normalise_values: Use ``g(x) / |g(x)|``, as in the published code; if False, ``g(x)``, as in the equation.
        norm: Normalisation within a g of two layers, as MONAI names it.

    Raises:
        ValueError: If gamma is not positive or g has another number of layers.

    Reference: arXiv 2011.10043, equations 4 and 5.

    Example:
        >>> x = torch.tensor([[[1.0, 0.5**0.5], [0.0, 0.5**0.5]]]).view(1, 2, 1, 2)
        >>> PixelPropagation(2, 2, transform_layers=0)(x)[0, :, 0]
        tensor([1.3536, 0.3536])
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        *,
        gamma: float = 2.0,
        transform_layers: int = 1,
        normalise_values: bool = True,
        norm: str | Sequence = "batch",
    ) -> None:
        super().__init__()
        if not gamma > 0:
            raise ValueError(f"gamma is {gamma}; expected a positive exponent, 2 in PixPro.")
        if transform_layers not in (0, 1, 2):
            raise ValueError(f"transform_layers is {transform_layers}; expected 0, 1 or 2.")
        self.gamma, self.normalise_values = gamma, normalise_values
        self.transform: nn.Module = nn.Identity()
        if transform_layers == 1:
            self.transform = Conv[Conv.CONV, spatial_dims](channels, channels, 1)
        elif transform_layers == 2:
            self.transform = ProjectionHead(spatial_dims, channels, channels, channels, norm)

    def forward(self, x: Tensor, cells: Tensor | None = None) -> Tensor:
        """Propagated vectors, float32, not normalised.

        Args:
            x: Projected map, shape (B, C, *cells).
            cells: Index of the cells i to compute, shape (B, N); None computes all. The sum always runs over all cells.
                A small N bounds the memory.

        Returns:
            Shape (B, C, N), cells in array order.
        """
        values = self.transform(x)
        with torch.autocast(x.device.type, enabled=False):
            values = values.float().flatten(2)
            if self.normalise_values:
                values = F.normalize(values, dim=1)
            points = F.normalize(x.float().flatten(2), dim=1)
            similarity = take_cells(points, cells).mT @ points
            similarity = similarity.clamp_min(0)
            if self.gamma < 1:
                similarity = similarity + 1e-6  # the slope of a root at 0 is not finite
            return values @ similarity.pow(self.gamma).mT


def take_cells(vectors: Tensor, cells: Tensor | None) -> Tensor:
    """Select the vectors (B, C, N) of the chosen cells (B, N) from vectors (B, C, M); None selects all."""
    if cells is None:
        return vectors
    return vectors.gather(2, cells.unsqueeze(1).expand(-1, vectors.shape[1], -1))


class PixProBranch(nn.Module):
    """Encoder and projectors, the part of PixPro that has a momentum copy.

    Args:
        network: Encoder; its ``maps`` are projected or, if it has none, its levels.
        spatial_dims: 2 or 3.
        widths: Numbers of channels of the encoder's maps.
        projection_size: Length of the projected vectors.
        hidden_channels: Number of hidden channels of the projectors.
        norm: Normalisation of the projectors, as MONAI names it.
        instance: Add a projector for the instance branch, on the last (coarsest) level.
    """

    def __init__(
        self,
        network: LevelsNet,
        spatial_dims: int,
        widths: Sequence[int],
        projection_size: int,
        hidden_channels: int,
        norm: str | Sequence,
        instance: bool,
    ) -> None:
        super().__init__()
        sizes = (projection_size, hidden_channels, norm)
        self.network = network
        self.projectors = nn.ModuleList([ProjectionHead(spatial_dims, width, *sizes) for width in widths])
        self.instance_projector = ProjectionHead(spatial_dims, widths[-1], *sizes) if instance else None

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Projected levels (B, E, *cells), and the map of the instance projector."""
        maps = self.network.maps(x) if isinstance(self.network, BackboneNet) else self.network.levels(x)
        levels = [projector(level) for projector, level in zip(self.projectors, maps, strict=True)]
        return levels, None if self.instance_projector is None else self.instance_projector(maps[-1])


class PixProNet(nn.Module):
    """PixPro's network for training: two views in, the vectors for :class:`medpixcl.losses.pixpro.PixProLoss` out.

    The momentum copy is part of the state dict, so training resumes exactly; :meth:`follow` moves it (see
    :class:`medpixcl.training.momentum.MomentumEncoder`). It runs in the mode of the network, and in training its batch
    norms use their own statistics. Each view goes through alone, as in PixPro. After training only ``network`` is kept;
    it has never seen an exogenous channel.

    Args:
        network: Encoder to train: a :class:`BackboneNet`, or a :class:`medpixcl.networks.PixelEmbeddingNet`, whose
            embeddings are then projected.
        projection_size: Length of the projected vectors; 256 in PixPro.
        hidden_channels: Number of hidden channels of projectors and predictor; 4096 in the published code.
        norm: Normalisation of projectors and predictor: ``batch`` in PixPro; ``["group", {"num_groups": 8}]`` is
            another choice.
        propagation: Use the pixel propagation module; if False (PixContrast), the projections are the online vectors.
        gamma: Exponent of the propagation, see :class:`PixelPropagation`.
        transform_layers: Number of layers of the propagation's transform, see :class:`PixelPropagation`.
        normalise_values: Whether the propagated values are normalised, see :class:`PixelPropagation`.
        instance: Add the instance branch: a projector and a predictor, whose output is averaged over the view.
        bfloat16: Convolutions in bfloat16: true, false, or ``"auto"`` where the device computes them faster; weights,
            norms and vectors stay in float32.

    Attributes:
        precision: The :class:`medpixcl.networks.precision.Precision`, which a resumed training restores.
    """

    def __init__(
        self,
        network: LevelsNet,
        *,
        projection_size: int = 256,
        hidden_channels: int = 4096,
        norm: str | Sequence = "batch",
        propagation: bool = True,
        gamma: float = 2.0,
        transform_layers: int = 1,
        normalise_values: bool = True,
        instance: bool = False,
        bfloat16: bool | str = "auto",
    ) -> None:
        super().__init__()
        dims, widths = _shape_of(network)
        self.online = PixProBranch(network, dims, widths, projection_size, hidden_channels, norm, instance)
        self.momentum = copy.deepcopy(self.online).requires_grad_(False)
        ppm: dict[str, Any] = {
            "gamma": gamma,
            "transform_layers": transform_layers,
            "normalise_values": normalise_values,
            "norm": norm,
        }
        self.propagation = nn.ModuleList(
            [PixelPropagation(dims, projection_size, **ppm) for _ in widths if propagation]
        )
        self.predictor = None
        if instance:
            self.predictor = ProjectionHead(dims, projection_size, projection_size, hidden_channels, norm)
        self.strides, self.precision = network.strides, Precision(bfloat16)
        if bfloat16:
            keep_gradients_right(self)

    @property
    def network(self) -> LevelsNet:
        """The encoder that is trained and kept."""
        return self.online.network

    def forward(
        self,
        query: Tensor,
        anchor: Tensor,
        query_cells: Sequence[Tensor] | None = None,
        anchor_cells: Sequence[Tensor] | None = None,
    ) -> dict[str, dict[str, list[Tensor] | Tensor]]:
        """Vectors of both views, see :meth:`medpixcl.losses.pixpro.PixProLoss.forward`.

        Args:
            query: Query view (B, C, *spatial), between 0 and 1.
            anchor: Anchor view (B, C, *spatial), between 0 and 1.
            query_cells: For each level the index (B, N) of the cells drawn in the query view; None takes all cells.
            anchor_cells: For each level the index (B, N) of the cells drawn in the anchor view; None takes all cells.
        """
        return {"query": self._view(query, query_cells), "anchor": self._view(anchor, anchor_cells)}

    def _view(self, x: Tensor, cells: Sequence[Tensor] | None) -> dict[str, list[Tensor] | Tensor]:
        chosen = [None] * len(self.strides) if cells is None else cells
        with self.precision.autocast(x.device):
            levels, instance = self.online(x)
            with torch.no_grad():
                keys, instance_keys = self.momentum(x)
            online = [
                self._propagated(n, level, index) for n, (level, index) in enumerate(zip(levels, chosen, strict=True))
            ]
            out: dict[str, list[Tensor] | Tensor] = {"online": online, "keys": [_unit(key.flatten(2)) for key in keys]}
            if self.predictor is not None:
                out["instance_online"] = _unit(self.predictor(instance).float().flatten(2).mean(2))
                out["instance_keys"] = _unit(instance_keys.float().flatten(2).mean(2))
        return out

    def _propagated(self, number: int, level: Tensor, cells: Tensor | None) -> Tensor:
        if len(self.propagation) == 0:
            return _unit(take_cells(level.flatten(2), cells))
        return _unit(self.propagation[number](level, cells))

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the momentum copy: ``key = momentum * key + (1 - momentum) * online``, parameters only."""
        for key, own in zip(self.momentum.parameters(), self.online.parameters(), strict=True):
            key.lerp_(own, 1 - momentum)

    def restart(self) -> None:
        """Make the momentum copy equal to the online part, such as after weights were loaded."""
        self.momentum.load_state_dict(self.online.state_dict())


def _shape_of(network: LevelsNet) -> tuple[int, list[int]]:
    """Spatial dimensions of a network, and channels of its maps."""
    heads = getattr(network, "heads", None)
    widths = [head.out_channels for head in heads] if heads is not None else getattr(network, "widths", None)
    weights = next((p for p in network.parameters() if p.ndim > 3), None)
    if widths is None or weights is None:
        raise ValueError(f"the network is a {type(network).__name__}; expected a BackboneNet or a PixelEmbeddingNet.")
    return weights.ndim - 2, list(widths)


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors.float(), dim=1)
