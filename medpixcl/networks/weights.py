"""Load weights from a file into a network, with a report of which tensors fitted."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from medpixcl.limits import regular_file
from medpixcl.networks.checkpoints import check_finite, read_checkpoint


@dataclass(frozen=True)
class TransferReport:
    """Result of a transfer of weights, by tensor name.

    Attributes:
        matched: Tensors that were loaded.
        missing: Tensors of the network that the file lacks; they were kept.
        unexpected: Tensors of the file that the network lacks.
        mismatched: Tensors of both whose shapes differ; they were not loaded.
        adapted: Tensors of ``matched`` whose weights were spread over another number of input channels.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    adapted: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True when every tensor of the network and of the file was used."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        adapted = f", {len(self.adapted)} adapted to the input channels" if self.adapted else ""
        return (
            f"{len(self.matched)} tensors matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape{adapted}"
        )

    def details(self, shown: int = 4) -> str:
        """Return the numbers and, below them, the first names of each kind that did not match."""
        lines = [str(self)]
        for kind in ("missing", "unexpected", "mismatched", "adapted"):
            names = getattr(self, kind)
            if names:
                rest = f", and {len(names) - shown} more" if len(names) > shown else ""
                lines.append(f"  {kind}: {', '.join(names[:shown])}{rest}")
        return "\n".join(lines)


def weights_digest(*networks: nn.Module) -> str:
    """Compute a digest of the weights of one or several networks, which tells a file made with them from others.

    Args:
        networks: Networks on any device; their names of tensors and the bytes of the values count.

    Returns:
        SHA-256, 64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for network in networks:
        for name, tensor in network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint as MONAI's ``CheckpointSaver`` writes it: flat, or under the key ``model``.

    Raises:
        ValueError: If the file is missing, is no checkpoint, is damaged, holds no tensors, or values that are NaN or
            infinite.
    """
    path = regular_file(path)
    if not path.is_file():
        raise ValueError(
            f"no weights at {path}: give the path of a checkpoint such as models/model.pt; `medpixcl bundles list` "
            "says which bundles have weights"
        )
    content = read_checkpoint(path)
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(map(_is_weights, state.values())):
        raise ValueError(f"{path} holds no state dict of a network: give a flat one or one under the key 'model'")
    check_finite(path, state)
    return dict(state)


def load_weights(
    network: nn.Module,
    path: str | Path,
    *,
    strict: bool = True,
    rename: Mapping[str, str] | None = None,
    adapt_channels: bool = False,
    required: Sequence[str] = (),
) -> TransferReport:
    """Load weights from a file into a network, in place: :func:`transfer_weights` of :func:`read_state_dict`.

    Args:
        network: Network to fill.
        path: Path of the checkpoint, see :func:`read_state_dict`.
        strict: Refuse weights that do not fit in every tensor; otherwise load what fits.
        rename: New beginnings of tensor names, see :func:`transfer_weights`.
        adapt_channels: Whether to adapt the number of input channels, see :func:`transfer_weights`.
        required: Beginnings of names of the tensors that must be loaded, see :func:`transfer_weights`.

    Returns:
        Names of the tensors matched, missing, unexpected and of another shape.

    Raises:
        ValueError: If ``strict`` and the weights belong to another architecture, or nothing fits.
    """
    return transfer_weights(
        network,
        read_state_dict(path),
        strict=strict,
        rename=rename,
        adapt_channels=adapt_channels,
        required=required,
        origin=f"the weights in {path}",
    )


def load_network(network: nn.Module, path: str | Path | None, device: str | torch.device = "cpu") -> nn.Module:
    """Fill a network with weights, move it to a device and put it into evaluation mode; a component of configurations.

    Args:
        network: Network to fill, in place.
        path: Weights of the same architecture, see :func:`load_weights`; None leaves the network as it was built.
        device: Device to move the network to.

    Returns:
        The same network.

    Raises:
        ValueError: If the weights belong to another architecture.
    """
    if path is not None:
        load_weights(network, path)
    return network.to(device).eval()


def transfer_weights(
    network: nn.Module,
    state: Mapping[str, Tensor],
    *,
    strict: bool = True,
    rename: Mapping[str, str] | None = None,
    adapt_channels: bool = False,
    required: Sequence[str] = (),
    origin: str = "the weights given",
) -> TransferReport:
    """Load the tensors of a state dict into a network, in place.

    Args:
        network: Network to fill. Nothing is loaded when an error is raised.
        state: Tensors by name.
        strict: Refuse weights that do not fit in every tensor; otherwise load what fits.
        rename: Old and new beginnings of tensor names; the first that fits is used. ``{"backbone.encoder.":
            "encoder."}`` takes an encoder of this project into MONAI's ``FlexibleUNet``.
        adapt_channels: If the first convolution of the network takes another number of image channels, spread its
            weights over them, see :func:`adapt_input_channels`.
        required: Beginnings of names in the network; all tensors with such a name must be loaded.
        origin: Name of the weights in an error.

    Returns:
        Names, in the network, of the tensors matched, missing, unexpected and of another shape. A tensor that the
        network holds under a second name too (``DynUNet`` does) is missing only when neither is there.

    Raises:
        ValueError: If ``strict`` and the weights belong to another architecture, if nothing fits, or if a required
            tensor is not there.
    """
    state = {_renamed(name, rename or {}): value for name, value in state.items()}
    own = network.state_dict()
    adapted = _adapted(own, state) if adapt_channels else {}
    state |= adapted
    shared = [name for name in own if name in state]
    matched = [name for name in shared if state[name].shape == own[name].shape]
    filled = {own[name].data_ptr() for name in matched}
    report = TransferReport(
        matched=tuple(matched),
        missing=tuple(name for name in own if name not in state and own[name].data_ptr() not in filled),
        unexpected=tuple(name for name in state if name not in own),
        mismatched=tuple(name for name in shared if state[name].shape != own[name].shape),
        adapted=tuple(adapted),
    )
    if not matched or (strict and not report.complete):
        raise ValueError(
            f"{origin} are of another architecture than this network ({report}); "
            "use the weights and the configuration of the same bundle"
        )
    _check_required(own, report, required, origin)
    network.load_state_dict({name: state[name] for name in matched}, strict=False)
    return report


def adapt_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Spread the weights of a convolution evenly over another number of input channels; their sum is kept.

    An image repeated over the channels gives what the sum over the old channels gave: one channel repeated to four,
    or the same grey value in the three channels of a picture, leaves the output as it was.

    Args:
        weight: Weights of the convolution, shape (out, in, *kernel).
        channels: New number of input channels.

    Returns:
        Shape (out, channels, *kernel).

    Example:
        >>> adapt_input_channels(torch.tensor([[[[6.0]]]]), 3).flatten()
        tensor([2., 2., 2.])
    """
    total = weight.sum(1, keepdim=True) / channels
    return total.expand(-1, channels, *weight.shape[2:]).clone()


def _is_weights(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    for old, new in rename.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _adapted(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that take the image, for the network's number of channels; none where the numbers are equal.

    The first convolution that both have tells the numbers; a shortcut beside it has the same ones.
    """
    kernels = [name for name in own if name in state and own[name].ndim >= 4 and state[name].ndim == own[name].ndim]
    if not kernels:
        return {}
    old, new = state[kernels[0]].shape[1], own[kernels[0]].shape[1]
    return {
        name: adapt_input_channels(state[name], new)
        for name in kernels
        if old != new
        and (state[name].shape[1], own[name].shape[1]) == (old, new)
        and (state[name].shape[0], state[name].shape[2:]) == (own[name].shape[0], own[name].shape[2:])
    }


def _check_required(own: Mapping[str, Tensor], report: TransferReport, required: Sequence[str], origin: str) -> None:
    for part in required:
        names = [name for name in own if name.startswith(part)]
        absent = [name for name in names if name in report.missing or name in report.mismatched]
        if absent or not names:
            found = f"{len(absent)} of {len(names)} are not in it, {absent[0]} first" if absent else "it has none"
            raise ValueError(
                f"{origin} must fill every tensor of the network that begins with {part!r}, but {found}; use weights "
                "of the same backbone and width, or rename their tensors"
            )
