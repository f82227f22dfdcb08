"""Weights from a file into a network, with a report of what fitted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TransferReport:
    """What a transfer of weights found, by tensor name.

    Attributes:
        matched: Loaded.
        missing: In the network, not in the file: kept as they were.
        unexpected: In the file, not in the network.
        mismatched: In both, with different shapes: not loaded.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """True when every tensor of the network and of the file was used."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        return (
            f"{len(self.matched)} tensors matched, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected, {len(self.mismatched)} of another shape"
        )


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """State dict of a file made by MONAI's ``CheckpointSaver``: flat, or under the key ``model``.

    Raises:
        ValueError: If the file is missing, is no checkpoint, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no weights at {path}: give the path of a checkpoint such as models/model.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the bytes of another kind of file can raise anything
        raise ValueError(f"{path} is not a checkpoint of tensors: give a file saved by torch.save") from error
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no state dict of a network: give a flat one or one under the key 'model'")
    return dict(state)


def load_weights(network: nn.Module, path: str | Path, *, strict: bool = True) -> TransferReport:
    """Load weights from a file into a network, in place.

    Args:
        network: Network to fill.
        path: Checkpoint, see :func:`read_state_dict`.
        strict: Refuse weights that do not fit in every tensor; otherwise load what fits.

    Returns:
        Names of the tensors matched, missing, unexpected and of another shape.

    Raises:
        ValueError: If ``strict`` and the weights belong to another architecture, or nothing fits.
    """
    state, own = read_state_dict(path), network.state_dict()
    shared = [name for name in own if name in state]
    matched = [name for name in shared if state[name].shape == own[name].shape]
    report = TransferReport(
        matched=tuple(matched),
        missing=tuple(name for name in own if name not in state),
        unexpected=tuple(name for name in state if name not in own),
        mismatched=tuple(name for name in shared if state[name].shape != own[name].shape),
    )
    if not matched or (strict and not report.complete):
        raise ValueError(
            f"the weights in {path} are of another architecture than this network ({report}); "
            "use the weights and the configuration of the same bundle"
        )
    network.load_state_dict({name: state[name] for name in matched}, strict=False)
    return report
