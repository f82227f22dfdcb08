"""Handlers that training needs beyond MONAI's and Ignite's: best weights, gradient clipping, a guard against NaN."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import IterationEvents
from monai.handlers import EarlyStopHandler, ValidationHandler
from monai.utils import ImageMetaKey

from medpixcl.data.atomic import remove_drafts
from medpixcl.networks.checkpoints import count_non_finite
from medpixcl.networks.weights import TransferReport, load_weights
from medpixcl.training.resume import write_on_first_process


class NonFiniteLossError(FloatingPointError):
    """The loss, its gradient or the weights are NaN or infinite."""


def batch_files(batch: Any) -> list[str]:
    """Names of the image files of a collated batch, as far as the metadata holds them."""
    names: list[str] = []
    for value in batch.values() if isinstance(batch, Mapping) else ():
        if isinstance(value, MetaTensor):
            found = value.meta.get(ImageMetaKey.FILENAME_OR_OBJ, ())
            names += [found] if isinstance(found, str) else [str(name) for name in found]
    return list(dict.fromkeys(names))


class FiniteLossGuard:
    """Stops the training at the first loss that is not finite and names the image files of that batch."""

    def attach(self, engine: Engine) -> None:
        """Watch the loss before each backward pass."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the loss of this iteration.

        Raises:
            NonFiniteLossError: If it is NaN or infinite.
        """
        _refuse_non_finite("the loss", engine.state.output["loss"].item(), engine)


class GradientClipping:
    """Clips the norm of all gradients, after undoing the scaling of mixed precision.

    A gradient that is not finite would make the weights NaN, so it stops the training; with a gradient scaler, which
    leaves out such a step, it does not.

    Args:
        max_norm: Maximum norm of all gradients together.
    """

    def __init__(self, max_norm: float = 5.0) -> None:
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Clip after each backward pass."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Clip the gradients of the engine's network.

        Raises:
            NonFiniteLossError: If their norm is NaN or infinite, and no scaler leaves out the step.
        """
        if engine.scaler is not None:
            engine.scaler.unscale_(engine.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_norm)
        if engine.scaler is None:
            _refuse_non_finite("the norm of the gradient", norm.item(), engine)


def _refuse_non_finite(what: str, value: float, engine: Engine) -> None:
    if not math.isfinite(value):
        files = ", ".join(batch_files(engine.state.batch)) or "unknown files"
        raise NonFiniteLossError(
            f"{what} is {value} at iteration {engine.state.iteration}, made from {files}: check these images, or lower "
            "the learning rate"
        )


class PeriodicValidation(ValidationHandler):
    """Validates every few epochs, and always after the final epoch.

    Args:
        interval: Number of epochs between validations.
        validator: MONAI evaluator that validates.
    """

    def __init__(self, interval: int, validator: Any) -> None:
        super().__init__(interval=interval, validator=validator)

    def attach(self, engine: Engine) -> None:
        """Validate at the end of every ``interval``-th epoch."""
        engine.add_event_handler(Events.EPOCH_COMPLETED(event_filter=self._due), self)

    def _due(self, engine: Engine, epoch: int) -> bool:
        return epoch % self.interval == 0 or epoch == engine.state.max_epochs


class BestMetricState:
    """Best validation result so far, stored in the checkpoint so that a resumed run keeps it.

    Args:
        evaluator: MONAI evaluator with a key metric.
    """

    def __init__(self, evaluator: Any) -> None:
        self.evaluator = evaluator

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and its epoch."""
        state = self.evaluator.state
        return {"best_metric": state.best_metric, "best_metric_epoch": state.best_metric_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore both."""
        for name, value in state.items():
            setattr(self.evaluator.state, name, value)


class BestWeights:
    """Writes the weights after every validation that is the best so far, also counting those before a resume.

    MONAI's ``CheckpointSaver`` starts its comparison anew in every process. This handler asks the evaluator, whose best
    result :class:`BestMetricState` restores.

    Args:
        network: Network to save, as a flat state dict.
        path: Weights file, replaced atomically.
        part: Prefix of the tensor names to save, such as that of the encoder; empty saves all.
    """

    def __init__(self, network: torch.nn.Module, path: str, part: str = "") -> None:
        self.network, self.path, self.part = network, Path(path), part

    def attach(self, engine: Engine) -> None:
        """Check the metric at the end of every validation."""
        engine.add_event_handler(Events.STARTED, _remove_drafts, self.path)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Save if this validation is the best.

        Raises:
            NonFiniteLossError: If the weights are not finite.
        """
        if engine.state.best_metric_epoch == engine.state.epoch:
            state = self.network.state_dict()
            _write_weights(self.path, {name: state[name] for name in state if name.startswith(self.part)}, engine)


class LastWeights:
    """Writes the weights after every epoch, so that the final ones remain and no validation selects an epoch.

    Args:
        network: Network to save, as a flat state dict.
        path: Weights file, replaced atomically.
    """

    def __init__(self, network: torch.nn.Module, path: str) -> None:
        self.network, self.path = network, Path(path)

    def attach(self, engine: Engine) -> None:
        """Write at the end of every epoch."""
        engine.add_event_handler(Events.STARTED, _remove_drafts, self.path)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file.

        Raises:
            NonFiniteLossError: If the weights are not finite.
        """
        _write_weights(self.path, self.network.state_dict(), engine)


def _remove_drafts(path: Path) -> None:
    if idist.get_rank() == 0:
        remove_drafts(path)


def _write_weights(path: Path, state: Mapping[str, torch.Tensor], engine: Engine) -> None:
    """Write weights that are finite."""
    if any(map(count_non_finite, state.values())):
        raise NonFiniteLossError(
            f"the weights are not finite after epoch {engine.state.epoch}, so {path} is not written: lower the "
            "learning rate"
        )
    write_on_first_process(path, state)


class EarlyStop(EarlyStopHandler):
    """Stops the training when a validation metric (smaller is better) has stopped improving; resumable.

    The trainer is set by ``set_trainer`` before the training starts.

    Args:
        metric: Name of the metric.
        patience: Number of validations without improvement after which the training stops.
    """

    def __init__(self, metric: str, patience: int) -> None:
        super().__init__(patience=patience, score_function=lambda engine: -engine.state.metrics[metric])

    def state_dict(self) -> Mapping[str, Any]:
        """Return the best score and the number of validations since."""
        return self._handler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore both; a training that had already run out of patience stops."""
        self._handler.load_state_dict(state)
        if self._handler.counter >= self.patience:
            self._handler.trainer.terminate()


class EpochProgress:
    """Progress bar over the whole training, on the first process: epoch, loss and last validation metric.

    Args:
        evaluator: Evaluator whose key metric is shown; None shows no metric.
    """

    def __init__(self, evaluator: Any = None) -> None:
        self.evaluator = evaluator
        self.bar: Any = None

    def attach(self, engine: Engine) -> None:
        """Advance the bar with every iteration."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.step)
        engine.add_event_handler(Events.COMPLETED, self.close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self, engine: Engine) -> None:
        """Open the bar at the current epoch of the training, which may be resumed."""
        from tqdm import tqdm

        if self.bar is None:
            total = engine.state.max_epochs * engine.state.epoch_length
            hidden = idist.get_rank() > 0
            self.bar = tqdm(total=total, initial=engine.state.iteration, unit="step", disable=hidden)

    def step(self, engine: Engine) -> None:
        """Show the loss of this iteration."""
        shown = {"epoch": f"{engine.state.epoch}/{engine.state.max_epochs}"}
        shown["loss"] = f"{engine.state.output['loss'].item():.3f}"
        if self.evaluator is not None:
            state = self.evaluator.state
            shown |= {name: f"{value:.3g}" for name, value in state.metrics.items() if name == state.key_metric_name}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def close(self, engine: Engine) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def fail(self, engine: Engine, error: BaseException) -> None:
        """Close the bar and raise the error again."""
        self.close(engine)
        raise error


class WeightsLoader:
    """Loads a checkpoint into a network when the engine starts, and logs what was not loaded.

    Args:
        network: Network to load the weights into.
        path: Checkpoint, see :func:`medpixcl.networks.load_weights`; None leaves the network unchanged.
        strict: If True, all tensors must match. If False, load only the matching tensors and log the rest.
        rename: Old and new beginnings of tensor names, see :func:`medpixcl.networks.weights.transfer_weights`.
        adapt_channels: Adapt the first layer to the image's channels, see
            :func:`medpixcl.networks.weights.transfer_weights`.
        required: Beginnings of tensor names that must all be loaded, see
            :func:`medpixcl.networks.weights.transfer_weights`.

    Attributes:
        report: Report on the last loading; None before it.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        path: str | None,
        strict: bool = True,
        rename: Mapping[str, str] | None = None,
        adapt_channels: bool = False,
        required: Sequence[str] = (),
    ) -> None:
        self.network, self.path, self.strict = network, path, strict
        self.rename, self.adapt_channels, self.required = rename, adapt_channels, required
        self.report: TransferReport | None = None

    def attach(self, engine: Engine) -> None:
        """Load when the engine starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load the weights."""
        if self.path is None:
            return
        self.report = load_weights(
            self.network,
            self.path,
            strict=self.strict,
            rename=self.rename,
            adapt_channels=self.adapt_channels,
            required=self.required,
        )
        if not self.report.complete:
            logging.getLogger(__name__).info("weights from %s: %s", self.path, self.report.details())
