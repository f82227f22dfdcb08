"""LARS, the optimiser of PixPro's large batches; for small ones ``torch.optim.AdamW`` is the better choice."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class LARS(torch.optim.SGD):
    """SGD with momentum whose gradient is scaled, for every weight, to a share of the weight's length.

    ``g' = g + decay * w``, then ``g' * trust * |w| / (|g'| + eps)`` (as it is where a length is 0), then a step of SGD.
    Vectors (biases, norms) get neither decay nor scaling, as in PixPro's code.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate; PixPro's is ``batch / 256``.
        momentum: Of SGD.
        weight_decay: Added before the scaling.
        trust: Share of the weight's length.
        eps: Keeps the quotient finite.

    Reference: You et al., arXiv 1708.03888.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 1e-5,
        trust: float = 1e-3,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum)
        self.decay, self.trust, self.eps = weight_decay, trust, eps

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Scale the gradients and step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and weight.ndim > 1:
                    self._scale(weight, weight.grad)
        super().step()
        return loss

    def _scale(self, weight: Tensor, gradient: Tensor) -> None:
        gradient.add_(weight, alpha=self.decay)
        length, slope = weight.norm(), gradient.norm()
        scale = self.trust * length / (slope + self.eps)
        gradient.mul_(torch.where((length > 0) & (slope > 0), scale, 1.0))
