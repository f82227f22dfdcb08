"""Fine-tuning of pretrained backbones: frozen layers, and learning rates of backbone and head."""

from typing import Any

from torch import nn

from medpixcl.networks.backbones import FlexibleUNetLevels
from medpixcl.networks.encoders import encoder_layers


def backbone_layers(backbone: nn.Module) -> list[nn.Module]:
    """List the layers of a backbone that have weights, in the order of the forward pass: down, then up."""
    if isinstance(backbone, FlexibleUNetLevels):
        return [*encoder_layers(backbone.encoder), *backbone.decoder]
    return encoder_layers(backbone)


def freeze_layers(backbone: nn.Module, trained_layers: int | None) -> None:
    """Freeze all but the last layers of a backbone; :func:`hold_frozen` then keeps their statistics, too.

    Args:
        backbone: Backbone to freeze; its layers are those of :func:`backbone_layers`.
        trained_layers: Number of layers that learn, counted from the last one: None for all (fine-tuning), 0 for none
            (frozen).

    Raises:
        ValueError: If it is not between 0 and the number of layers.
    """
    if trained_layers is None:
        return
    layers = backbone_layers(backbone)
    if not 0 <= trained_layers <= len(layers):
        raise ValueError(
            f"trained_layers is {trained_layers}; the backbone has {len(layers)} layers, expected 0 to {len(layers)}, "
            "or None for all"
        )
    for layer in layers[: len(layers) - trained_layers] if trained_layers > 0 else [backbone]:
        layer.requires_grad_(False)


def hold_frozen(network: nn.Module) -> None:
    """Put every layer whose parameters are all frozen into evaluation mode, or its batch statistics would drift.

    Call it at the end of ``train`` of a network; which layers are frozen is read from ``requires_grad``, so it holds
    for copies of the network and for converted norms, too.

    Example:
        >>> network = nn.Sequential(nn.BatchNorm2d(1).requires_grad_(False), nn.BatchNorm2d(1))
        >>> hold_frozen(network)
        >>> [layer.training for layer in network]
        [False, True]
    """
    for module in network.modules():
        needed = [parameter.requires_grad for parameter in module.parameters()]
        if needed and not any(needed):
            for layer in module.modules():  # not eval(): the network's own would come back here
                layer.training = False


def parameter_groups(
    network: nn.Module, learning_rate: float, head_learning_rate: float, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Split the parameters that learn into groups for an optimizer: layers of the ``backbone``, and the rest, the head.

    Args:
        network: Network with a ``backbone``.
        learning_rate: Learning rate of the last layer of the backbone.
        head_learning_rate: Learning rate of the rest of the network.
        layer_decay: Factor between the learning rates of a backbone layer and the next one (0.65 to 0.9 are usual);
            with 1 the whole backbone is one group.

    Returns:
        Groups with ``params`` and ``lr``, from the image to the head, which is always the last one.

    Raises:
        ValueError: If ``layer_decay`` is not above 0 and at most 1.

    Reference: Clark et al., ELECTRA, ICLR 2020, arXiv 2003.10555 (learning rates of layers).
    """
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay is {layer_decay}; expected a factor above 0 and at most 1")
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    head = [parameter for name, parameter in learning.items() if not name.startswith("backbone.")]
    trunk = [parameter for name, parameter in learning.items() if name.startswith("backbone.")]
    layers = backbone_layers(network.get_submodule("backbone")) if layer_decay < 1 else []
    depth = {id(parameter): number for number, layer in enumerate(layers) for parameter in layer.parameters()}
    groups = []
    for number in range(max(len(layers), 1)):
        # What no layer holds, the unused classifier of an encoder, never gets a gradient.
        members = [parameter for parameter in trunk if depth.get(id(parameter), 0) == number]
        if members:
            slower = layer_decay ** (len(layers) - 1 - number) if layers else 1.0
            groups.append({"params": members, "lr": learning_rate * slower})
    return [*groups, {"params": head, "lr": head_learning_rate}]
