"""The state of a training on the disk: saved after every epoch and when a signal stops it, and resumed exactly."""

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import Tensor
from torch.optim import Optimizer

from medpixcl.data.atomic import drafted, remove_drafts
from medpixcl.data.seeded import EpochSampler
from medpixcl.networks.checkpoints import check_finite, read_checkpoint, write_checkpoint
from medpixcl.training.divergence import DivergenceWatch

WEIGHTS = ("network", "average")
"""Names in a checkpoint under which the weights stand."""


def write_on_first_process(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint, see :func:`medpixcl.networks.checkpoints.write_checkpoint`; on the first process only."""
    if idist.get_rank() == 0:
        write_checkpoint(path, content)


class ResumeHandler:
    """Saves the state of the training after every epoch, and resumes from it if the file exists.

    The file is replaced atomically, so a killed run leaves the last complete epoch. With seeded items
    (:class:`medpixcl.data.seeded.SeededDataset`) a resumed run ends with the same weights as an uninterrupted one, also
    if it was saved within an epoch (:meth:`save_within_epoch`).

    Options of the optimizer, such as the learning rate, are those of the command, not those of the file: only then can
    a training go on with another learning rate.

    Args:
        path: Checkpoint file to write and resume from.
        objects: Network, optimizer, scheduler and anything else with ``state_dict``, by name; the engine itself is
            added. An object with an empty state may be missing from the file.
        watch: Tells whether a state has diverged. Before such a state is written over a good one, that one is kept in
            a second file, for :meth:`fall_back`.
    """

    def __init__(self, path: str, objects: Mapping[str, Any], watch: DivergenceWatch | None = None) -> None:
        self.path, self.objects, self.watch = Path(path), dict(objects), watch
        self.kept = self.path.with_name(f"{self.path.stem}.good{self.path.suffix}")
        self._good = True

    def attach(self, engine: Engine) -> None:
        """Load when the engine starts, save at the end of every epoch."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    @property
    def saved_at(self) -> float | None:
        """Time in seconds since 1970 at which the file was saved; None if there is none that says so."""
        try:
            return float(torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)["time"])
        except Exception:  # no file, or a damaged one, which the loading refuses
            return None

    def load(self, engine: Engine) -> None:
        """Restore the state that was saved last, if there is one.

        Raises:
            ValueError: If the file is damaged, of another kind, or of a run with other settings or an earlier version.
        """
        if idist.get_rank() == 0:
            remove_drafts(self.path)
            remove_drafts(self.kept)
        if not self.path.is_file():
            return
        optimizers = [one for one in self.objects.values() if isinstance(one, Optimizer)]
        given = [[dict(group) for group in optimizer.param_groups] for optimizer in optimizers]
        try:
            content = read_checkpoint(self.path)
            epoch, iteration = int(content["epoch"]), int(content["iteration"])
            for name, value in self._stateful().items():
                if value.state_dict() or content.get(name):
                    value.load_state_dict(content[name])
            length = None if content.get("epoch_length") is None else int(content["epoch_length"])
            for optimizer, groups in zip(optimizers, given, strict=True):
                _check_moments(optimizer)
                self._take_options(optimizer, groups)
        except OSError:
            raise
        except Exception as error:  # the bytes of another kind of file, and states of other objects, can raise anything
            raise ValueError(
                f"{self.path} is damaged or of a run with another network or an earlier version: give another output "
                "folder to start anew, or the settings of that run to go on"
            ) from error
        for name in WEIGHTS:
            check_finite(self.path, content.get(name, {}))
        self._good = bool(content.get("good", True))
        engine.state.epoch = epoch
        engine.state.iteration = go_on_within_epoch(engine, epoch, iteration, length)

    def save(self, engine: Engine) -> None:
        """Replace the checkpoint at the end of an epoch."""
        self._write(engine, engine.state.epoch)

    def save_within_epoch(self, engine: Engine) -> None:
        """Replace the checkpoint between two steps; the end of the epoch is reached from there with the same result."""
        if sampler_of(engine) is not None:
            self._write(engine, engine.state.epoch - 1)

    def fall_back(self) -> bool:
        """Go back to the last good state, or to the start if there is none; True if there is one."""
        if not self._good or not self.path.is_file():
            self.path.unlink(missing_ok=True)
            if self.kept.is_file():
                self.kept.replace(self.path)
            self._good = True
        return self.path.is_file()

    def _stateful(self) -> dict[str, Any]:
        return self.objects | ({} if self.watch is None else {"watch": self.watch})

    def _write(self, engine: Engine, epoch: int) -> None:
        content = {name: value.state_dict() for name, value in self._stateful().items()}
        good = self.watch is None or not self.watch.diverged
        if self._good and not good and idist.get_rank() == 0:
            self._keep()
        state = {"epoch": epoch, "iteration": engine.state.iteration, "epoch_length": engine.state.epoch_length}
        write_on_first_process(self.path, content | state | {"time": time.time(), "good": good})
        if good and idist.get_rank() == 0:
            self.kept.unlink(missing_ok=True)
        self._good = good

    def _keep(self) -> None:
        """Give the file on the disk a second name; where the file system has no such names, copy it."""
        if not self.path.is_file():
            return
        self.kept.unlink(missing_ok=True)
        try:
            os.link(self.path, self.kept)
        except OSError:
            with drafted(self.kept) as draft:
                shutil.copyfile(self.path, draft)

    def _take_options(self, optimizer: Optimizer, given: list[dict[str, Any]]) -> None:
        """Set the options of the command; a schedule goes on at its step with the new learning rate."""
        for group, options in zip(optimizer.param_groups, given, strict=True):
            before, after = (one.get("initial_lr", one["lr"]) for one in (group, options))
            if before != after:
                group["lr"] = group["lr"] / before * after if before and "initial_lr" in group else options["lr"]
            group |= {name: value for name, value in options.items() if name not in ("params", "lr")}
        for schedule in self.objects.values():
            if getattr(schedule, "optimizer", None) is optimizer and hasattr(schedule, "base_lrs"):
                schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]


def _check_moments(optimizer: Optimizer) -> None:
    """Check that what an optimizer keeps for each parameter is of the parameter's shape, or one number."""
    for parameter, kept in optimizer.state.items():
        for value in kept.values():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"the optimizer keeps {tuple(value.shape)} for {tuple(parameter.shape)}")


def sampler_of(engine: Engine) -> EpochSampler | None:
    """Sampler of a trainer that can begin within an epoch; None if it has another one."""
    sampler = getattr(getattr(engine, "data_loader", None), "sampler", None)
    return sampler if isinstance(sampler, EpochSampler) else None


def go_on_within_epoch(engine: Engine, epoch: int, iteration: int, epoch_length: int | None) -> int:
    """Let the sampler leave out the items of the steps that were made, and return the number of the iteration.

    An epoch whose number of steps has changed, as with another batch size, begins anew.

    Args:
        engine: Trainer that resumes.
        epoch: Number of complete epochs.
        iteration: Number of steps in all.
        epoch_length: Number of steps of an epoch when the state was saved; None if it is not known.
    """
    now = engine.state.epoch_length
    if now is None or epoch_length is None:
        return iteration
    sampler, made = sampler_of(engine), iteration - epoch * epoch_length
    if now != epoch_length or (made and sampler is None):
        return epoch * now
    if made and sampler is not None:
        sampler.leave_out(made * engine.data_loader.batch_size)
    return iteration
