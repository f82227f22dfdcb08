"""PixPro's network: an online encoder with heads and pixel propagation, and a slow copy that gives the keys.

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
from medpixcl.networks.precision import Precision, refuse_wrong_gradients


class ProjectionHead(nn.Sequential):
    """1 x 1 convolution, normalisation, ReLU, 1 x 1 convolution, with biases; PixPro's projector and predictor.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the map.
        out_channels: Length of the vectors.
        hidden_channels: Between; 4096 in the published code.
        norm: As MONAI names it; ``batch`` in PixPro, whose statistics are over batch and cells.
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
        channels: Of x and y.
        gamma: Exponent; 2 in PixPro.
        transform_layers: Of g: 0 for the identity, 1 for a 1 x 1 convolution (PixPro), 2 for one with a hidden layer.
        normalise_values: ``g(x) / |g(x)|`` as in the published code; off: g(x), as the equation is quoted.
        norm: Normalisation within a g of two layers.

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
            cells: Index of the cells i asked for, shape (B, N), all by default; the sum is always over all cells. With
                few of them the memory stays bounded.

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
    """Of (B, C, M) the vectors (B, C, N) of the chosen cells (B, N); all when None."""
    if cells is None:
        return vectors
    return vectors.gather(2, cells.unsqueeze(1).expand(-1, vectors.shape[1], -1))


class PixProBranch(nn.Module):
    """Encoder and projectors: the part of PixPro that has a momentum copy.

    Args:
        network: Encoder; the maps of its ``maps``, or else its levels, are projected.
        spatial_dims: 2 or 3.
        widths: Channels of its maps.
        projection_size: Length of the projected vectors.
        hidden_channels: Of the projectors.
        norm: Of the projectors.
        instance: With a projector for the instance branch, on the last (coarsest) level.
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
    """PixPro for training: two views in, what :class:`medpixcl.losses.pixpro.PixProLoss` needs out.

    The momentum copy takes part in the state dict, so a resumed training goes on exactly, and follows by
    :meth:`follow` (see :class:`medpixcl.training.momentum.MomentumEncoder`). It runs in the mode of the network: in
    training its batch norms use statistics of their own. Each view goes through alone, as in PixPro. What is kept after
    training is ``network``; it has never seen an exogenous channel.

    Args:
        network: Encoder that is trained, a :class:`BackboneNet`; or a :class:`medpixcl.networks.PixelEmbeddingNet`,
            whose embeddings are then what is projected.
        projection_size: Length of the projected vectors; 256 in PixPro.
        hidden_channels: Of projectors and predictor; 4096 in the published code.
        norm: Of projectors and predictor; ``batch`` in PixPro, such as ``["group", {"num_groups": 8}]`` otherwise.
        propagation: Off for PixContrast, whose online vectors are the projections.
        gamma: See :class:`PixelPropagation`.
        transform_layers: See :class:`PixelPropagation`.
        normalise_values: See :class:`PixelPropagation`.
        instance: With the instance branch: a projector and a predictor, pooled over the view after both.
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
            refuse_wrong_gradients(self)

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
            anchor: Anchor view.
            query_cells: Of each level the cells drawn in the query view, index (B, N); all by default.
            anchor_cells: The same of the anchor view.
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
