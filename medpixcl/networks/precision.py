"""Run convolutions in bfloat16 where they are correct and faster than in float32."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from medpixcl.networks.device_precision import device_precision


class Precision:
    """Decides whether convolutions run in bfloat16; weights stay in float32, and gradients need no scaling.

    The choice is made for the device of the first images, see
    :func:`medpixcl.networks.device_precision.device_precision`. A resumed training keeps the precision that it began
    with (``load_state_dict``), unless it began in bfloat16 and resumes where that takes more than 1.2 times as long as
    float32, or unless the setting now names the other precision; a warning is then logged. Copies of a network share
    one object, so that averaged weights are validated in the precision of the training.

    Args:
        bfloat16: True for bfloat16, False for float32, ``"auto"`` for the faster of both.

    Raises:
        ValueError: If ``bfloat16`` is anything else.
    """

    def __init__(self, bfloat16: bool | str = "auto") -> None:
        if not isinstance(bfloat16, bool) and bfloat16 != "auto":
            raise ValueError(f"bfloat16 is {bfloat16!r}; expected true, false or 'auto'.")
        self.setting = bfloat16
        self._begun: bool | None = None
        self._used: tuple[torch.device, bool] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Precision":
        return self

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """Autocast context for running a network on images of a device; a null context for float32."""
        if self._used is None or self._used[0] != device:
            self._used = device, self._decide(device)
        if self._used[1]:
            return torch.autocast(device.type, dtype=torch.bfloat16)
        return nullcontext()

    def state_dict(self) -> dict[str, bool]:
        """Whether the network runs in bfloat16; empty before the first images."""
        bfloat16 = self._begun if self._used is None else self._used[1]
        return {} if bfloat16 is None else {"bfloat16": bfloat16}

    def load_state_dict(self, state: Mapping[str, bool]) -> None:
        """Restore the precision that a training began with."""
        self._begun, self._used = state.get("bfloat16"), None

    def _decide(self, device: torch.device) -> bool:
        if self.setting == "auto":
            best = device_precision(device)
            kept = self._begun is False or (self._begun is True and best.bearable)
            chosen, reason = (self._begun is True if kept else best.bfloat16), best.reason
        else:
            chosen, reason = bool(self.setting), f"bfloat16 is set to {str(self.setting).lower()}"
        if self._begun is not None:
            self._tell(self._begun, chosen, reason)
        return chosen

    @staticmethod
    def _tell(begun: bool, chosen: bool, reason: str) -> None:
        """Log the precision with which a resumed training continues."""
        before, now = ("bfloat16" if one else "float32" for one in (begun, chosen))
        logger = logging.getLogger(__name__)
        if begun == chosen:
            logger.info("the training goes on in %s, as it began", now)
        else:
            logger.warning("the training began in %s and goes on in %s: %s", before, now, reason)


class MixedPrecision(nn.Module):
    """Runs a network with its convolutions in bfloat16 where that is faster; the weights stay in float32.

    In training, ``DistributedDataParallel`` wraps this module.

    Args:
        network: Network to run.
        bfloat16: Whether convolutions run in bfloat16; ``"auto"`` chooses it where the device computes them faster.

    Attributes:
        precision: The :class:`Precision`, which a resumed training restores.
    """

    def __init__(self, network: nn.Module, bfloat16: bool | str = "auto") -> None:
        super().__init__()
        self.network = network
        self.precision = Precision(bfloat16)
        if bfloat16:
            keep_gradients_right(network)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Return the output of the network."""
        with self.precision.autocast(x.device):
            return self.network(x)


def keep_gradients_right(network: nn.Module) -> None:
    """Compute 3D convolutions in float32 where their bfloat16 gradients would be wrong on a CPU.

    If a map has two cells along its first axis, torch (2.13, oneDNN) computes the gradient of the weights from
    uninitialised memory. In training under autocast such a layer is computed without it.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d) and _leave_autocast not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_leave_autocast)
            layer.register_forward_hook(_enter_autocast, always_call=True)


def _leave_autocast(layer: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    wrong = given[0].device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
    if not wrong or given[0].shape[2] != 2:
        return None
    torch.set_autocast_enabled("cpu", False)
    layer._left_autocast = True  # type: ignore[assignment]
    return tuple(one.float() for one in given)


def _enter_autocast(layer: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> None:
    if layer.__dict__.pop("_left_autocast", False):
        torch.set_autocast_enabled("cpu", True)
