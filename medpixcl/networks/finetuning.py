"""What networks on a pretrained backbone share: parts that stay as they are, and learning rates of trunk and head."""

from typing import Any

from torch import nn


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
            module.eval()


def parameter_groups(network: nn.Module, learning_rate: float, head_learning_rate: float) -> list[dict[str, Any]]:
    """Groups for an optimizer: what learns of the ``backbone``, if anything, and all the rest, the head."""
    learning = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    trunk = [parameter for name, parameter in learning if name.startswith("backbone.")]
    head = [parameter for name, parameter in learning if not name.startswith("backbone.")]
    groups = [{"params": trunk, "lr": learning_rate}] if trunk else []
    return [*groups, {"params": head, "lr": head_learning_rate}]
