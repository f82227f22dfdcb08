"""The handlers of every training, attached in the required order."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer
from monai.handlers import LrScheduleHandler, TensorBoardStatsHandler
from torch import nn

from medpixcl.data.folder_lock import locked_folder
from medpixcl.training.averages import AveragedWeights
from medpixcl.training.divergence import DivergenceWatch
from medpixcl.training.event_files import drop_events_after, silence_writers
from medpixcl.training.failures import in_one_sentence
from medpixcl.training.handlers import (
    BestMetricState,
    EarlyStop,
    EpochProgress,
    FiniteLossGuard,
    GradientClipping,
    NonFiniteLossError,
    PeriodicValidation,
    WeightsLoader,
)
from medpixcl.training.interruption import StopOnSignal, TrainingStopped
from medpixcl.training.record import TrainingRecord
from medpixcl.training.resume import ResumeHandler

log = logging.getLogger(__name__)


@runtime_checkable
class Handler(Protocol):
    """Anything that MONAI's engines take as a handler."""

    def attach(self, engine: Engine) -> None:
        """Register the callbacks."""


class TrainingHandlers:
    """All handlers of a training as one component, the only member of a configuration's ``train::handlers``.

    They are attached in this order, in which Ignite calls handlers of the same event:

    1. start weights, then the moving average, which begins with them;
    2. resuming, which replaces both by the state of the last complete epoch;
    3. the guard against a non-finite loss before, and gradient clipping after, the backward pass;
    4. the learning-rate schedule, after every step;
    5. the configuration's own handlers;
    6. validation, with early stopping, TensorBoard scalars and a line in the log for the evaluator;
    7. the progress bar, which shows the validation metric;
    8. TensorBoard scalars of the training;
    9. saving of the resume file, which then includes all changes by the handlers above;
    10. the end of the program when a signal asks for it (:class:`medpixcl.training.StopOnSignal`).

    First, the folder is locked for this process, the data is compared with that which the training began with
    (:mod:`medpixcl.training.record`), and the events that a killed training logged after the state on the disk are
    removed, as they will be repeated.

    The resume file holds the network and its precision, the optimizer, the schedule, the best metric, the moving
    average, the early-stopping state, what tells a divergence, and the objects in ``state``. After a loss that is not
    finite it holds the last state that had not diverged (:meth:`medpixcl.training.ResumeHandler.fall_back`).

    Args:
        network: Network in training, wrapped for mixed precision, not in ``DistributedDataParallel``.
        optimizer: Optimizer of the trainer. The learning rate of its last parameter group is logged: that of the heads
            if the encoder has its own rate.
        lr_scheduler: Learning-rate schedule, stepped after every iteration.
        evaluator: Evaluator that validates; its key metric decides on early stopping.
        val_interval: Number of epochs from one validation to the next.
        output_dir: Folder of ``resume.pt`` and of the TensorBoard events.
        start: Handler that loads the start weights into the network.
        average: Moving average of the weights.
        max_gradient_norm: Norm to which the gradients of all weights together are clipped.
        early_stop_patience: Number of validations without a smaller key metric after which the training ends. None
            trains to the end.
        extras: Further handlers of this configuration.
        state: Further objects with ``state_dict`` and ``load_state_dict`` for the resume file, by name.
        silent: Omit progress bar, TensorBoard events and logged metrics, as on all processes except the first.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: torch.optim.lr_scheduler.LRScheduler,
        evaluator: Evaluator,
        val_interval: int,
        output_dir: str,
        start: WeightsLoader | None = None,
        average: AveragedWeights | None = None,
        max_gradient_norm: float = 5.0,
        early_stop_patience: int | None = None,
        extras: Sequence[Handler] = (),
        state: Mapping[str, Any] | None = None,
        silent: bool = False,
    ) -> None:
        self.optimizer, self.evaluator, self.output_dir, self.silent = optimizer, evaluator, output_dir, silent
        self.early_stop: EarlyStop | None = None
        if early_stop_patience is not None:
            self.early_stop = EarlyStop(evaluator.state.key_metric_name, early_stop_patience)
        kept = {"network": network, "optimizer": optimizer, "lr_scheduler": lr_scheduler}
        kept |= {"precision": getattr(network, "precision", None), "best": BestMetricState(evaluator)}
        kept |= {"average": average, "early_stop": self.early_stop, **(state or {})}
        self.watch = DivergenceWatch(network)
        kept = {name: value for name, value in kept.items() if value is not None}
        self.resume = ResumeHandler(str(Path(output_dir) / "resume.pt"), kept, self.watch)
        self.stop = StopOnSignal(self.resume)
        self.progress = EpochProgress(evaluator)
        self._lock = ExitStack()
        self._raised: BaseException | None = None
        self.before = [handler for handler in (start, average) if handler is not None]
        self.after: list[Handler] = [
            FiniteLossGuard(),
            GradientClipping(max_gradient_norm),
            LrScheduleHandler(lr_scheduler, print_lr=False, epoch_level=False),
            self.watch,
            *extras,
            PeriodicValidation(val_interval, evaluator),
        ]

    def attach(self, engine: Trainer) -> None:
        """Attach all handlers to the trainer, and the validation handlers to its evaluator.

        Raises:
            ValueError: If another process trains in the folder.
        """
        if idist.get_rank() == 0:
            self._take_folder()
            engine.add_event_handler(Events.STARTED, self._compare_images)
            engine.add_event_handler(Events.COMPLETED, self._lock.close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
        for handler in self.before:
            handler.attach(engine)
        engine.add_event_handler(Events.STARTED, self.resume.load)
        for step in self.after:
            step.attach(engine)
        self._attach_to_evaluator(engine)
        if not self.silent:
            silence_writers()
            self.progress.attach(engine)
            TensorBoardStatsHandler(log_dir=self.output_dir, output_transform=self._scalars(engine)).attach(engine)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.resume.save)
        self.stop.attach(engine)

    def _take_folder(self) -> None:
        """Lock the folder, and remove the events that will be logged once more."""
        folder = Path(self.output_dir)
        self._lock.enter_context(locked_folder(folder))
        record = TrainingRecord(folder)
        begun = self.resume.path.is_file()
        logged_again = self.resume.saved_at if begun else record.started
        if not self.silent and logged_again is not None:
            drop_events_after(folder, logged_again)
        if not begun:
            record.begin()

    def _compare_images(self, engine: Trainer) -> None:
        datasets = [getattr(one.data_loader, "dataset", None) for one in (engine, self.evaluator)]
        items = [item for dataset in datasets for item in getattr(dataset, "data", ()) if isinstance(item, Mapping)]
        TrainingRecord(Path(self.output_dir)).compare_images(items)

    def _fail(self, engine: Trainer, error: BaseException) -> None:
        """End the training, with the last good state on the disk, and raise the error in one sentence."""
        if error is self._raised:  # Ignite tells of an error within an epoch twice
            raise error
        self.progress.close(engine)
        self.stop.close()
        if isinstance(error, Exception | KeyboardInterrupt):
            error = self.stop.stopped_loading(engine) or error
        if isinstance(error, TrainingStopped) and idist.get_rank() == 0:
            error.say()
        if isinstance(error, NonFiniteLossError):
            there = self.resume.fall_back()
            goes_on = "goes on from the last state that had not diverged" if there else "starts anew"
            error = NonFiniteLossError(f"{error}; with other settings the same command {goes_on}")
        self._lock.close()
        self._raised = in_one_sentence(error, engine.state.device, self.output_dir)
        raise self._raised

    def _attach_to_evaluator(self, trainer: Trainer) -> None:
        if self.early_stop is not None:
            self.early_stop.set_trainer(trainer)
            self.early_stop.attach(self.evaluator)
        if not self.silent:
            TensorBoardStatsHandler(log_dir=self.output_dir, iteration_log=False).attach(self.evaluator)
            self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, log_metrics)

    def _scalars(self, trainer: Trainer) -> Any:
        """Scalars of an iteration: the loss, its parts if the loss keeps them, and the learning rate."""

        def scalars(output: Mapping[str, Any]) -> dict[str, Any]:
            parts = getattr(trainer.loss_function, "latest", {})
            return {"train_loss": output["loss"], "learning_rate": self.optimizer.param_groups[-1]["lr"], **parts}

        return scalars


def log_metrics(evaluator: Engine) -> None:
    """Log the metrics of a validation that are single numbers."""
    numbers = {name: value for name, value in evaluator.state.metrics.items() if isinstance(value, float | int)}
    said = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    log.info("epoch %d: %s", evaluator.state.epoch, said)
