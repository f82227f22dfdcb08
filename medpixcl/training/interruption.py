"""Stop a training at the next step when a signal asks for it, with its state saved and a status that says why."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from medpixcl.training.binning import over_processes
from medpixcl.training.resume import ResumeHandler, sampler_of

log = logging.getLogger(__name__)

TEMPORARY_FAILURE = 75
"""Exit status EX_TEMPFAIL of sysexits.h: the job is to be started again."""
STATUS = {
    name: status
    for name, status in (("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", TEMPORARY_FAILURE))
    if hasattr(signal, name)
}
"""Signals that stop a training, and the exit status after each: 128 + its number, except that of SIGUSR1."""


class TrainingStopped(SystemExit):
    """A signal has stopped the training; the program ends with the status of that signal.

    Args:
        name: Name of the signal, see :data:`STATUS`.
        kept: What can be gone on from.

    Attributes:
        sentence: What has happened.
    """

    def __init__(self, name: str, kept: str) -> None:
        super().__init__(STATUS[name])
        self.sentence = f"stopped by {name}, with {kept}"
        self._said = False

    def say(self) -> None:
        """Log the sentence, once."""
        if not self._said:
            log.warning(self.sentence)
        self._said = True


@contextmanager
def stopping_early() -> Iterator[None]:
    """End the program at once when a signal comes before the first step, as while images are read."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TrainingStopped(signal.Signals(number).name, "no further state saved: the same command goes on")

    before = _listen(stop)
    try:
        yield
    except TrainingStopped as stopped:
        stopped.say()
        raise
    finally:
        _restore(before)


def _listen(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Take the signals in the main thread, where alone Python has them; return their handlers until now."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in (getattr(signal, name) for name in STATUS)}


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


class StopOnSignal:
    """Saves the state at the next step after ``SIGTERM``, ``SIGUSR1`` or Ctrl-C, and ends the program.

    In the last step of an epoch and in a validation the end of the epoch is waited for. A second Ctrl-C stops at once.
    All processes of torch.distributed stop at the same step. Processes of a data loader that the signal has reached
    too, and killed, are not taken for an error.

    Args:
        resume: Handler that saves the state.
    """

    def __init__(self, resume: ResumeHandler) -> None:
        self.resume = resume
        self.asked: str | None = None
        self._between_steps = False
        self._before: dict[int, Any] = {}

    def attach(self, engine: Engine) -> None:
        """Listen while the engine runs; attach after all handlers that change the state."""
        engine.add_event_handler(Events.STARTED, self.listen)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._between, True)
        engine.add_event_handler(Events.ITERATION_STARTED, self._between, False)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        engine.add_event_handler(Events.COMPLETED, self.close)

    def listen(self) -> None:
        """Take the signals."""
        self.asked, self._between_steps = None, False
        self._before = _listen(self._note)

    def close(self) -> None:
        """Give the signals back."""
        _restore(self._before)
        self._before = {}

    def stopped_loading(self, engine: Engine) -> TrainingStopped | None:
        """Save if the error came after a signal, which has killed the processes that the next batch was awaited from.

        Args:
            engine: Trainer that the error has ended.

        Returns:
            What to raise instead of the error; None if there was no signal.
        """
        if self.asked is None:
            return None
        made = engine.state.iteration % engine.state.epoch_length
        return self._saved(engine, within=self._between_steps and made > 0)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = signal.Signals(number).name
        if hasattr(signal, "SIGCHLD"):  # PyTorch would raise an error where the signal has killed its processes
            self._before.setdefault(signal.SIGCHLD, signal.signal(signal.SIGCHLD, _ignored))

    def _between(self, engine: Engine, between: bool) -> None:
        self._between_steps = between

    def _after_step(self, engine: Engine) -> None:
        made = engine.state.iteration % engine.state.epoch_length
        if self._agreed() and made and made % getattr(engine, "accumulation_steps", 1) == 0:
            raise self._saved(engine, within=True)

    def _after_epoch(self, engine: Engine) -> None:
        if self._agreed():
            raise self._saved(engine, within=False)

    def _agreed(self) -> bool:
        """Whether any process was asked to stop; all of them take its signal."""
        if idist.get_world_size() > 1:
            names = list(STATUS)
            asked = torch.tensor([float(name == self.asked) for name in names])
            self.asked = next(
                (name for name, by in zip(names, over_processes(asked).tolist(), strict=True) if by), None
            )
        return self.asked is not None

    def _saved(self, engine: Engine, *, within: bool) -> TrainingStopped:
        """Save within an epoch, and return what to raise."""
        kept = "the state of the last complete epoch"
        if within and sampler_of(engine) is not None:
            self.resume.save_within_epoch(engine)
            kept = f"the state after step {engine.state.iteration}"
        assert self.asked is not None
        place = self.resume.path
        there = f"{kept} in {place}: the same command goes on from there"
        return TrainingStopped(self.asked, there if place.is_file() else "no state saved: the same command starts anew")


def _ignored(number: int, frame: FrameType | None) -> None:
    pass
