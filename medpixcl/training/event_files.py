"""TensorBoard event files: written by several handlers, and cut back when a killed training resumes."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medpixcl.data.atomic import drafted

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


class EventWriter:
    """TensorBoard events of one handler, in a file of their own that the first of them opens.

    Args:
        log_dir: Folder of the event files; None writes nothing.
    """

    def __init__(self, log_dir: str | None) -> None:
        self.log_dir = log_dir
        self._writer: SummaryWriter | None = None

    def write(
        self, step: int, pictures: Mapping[str, np.ndarray] | None = None, scalars: Mapping[str, float] | None = None
    ) -> None:
        """Write pictures and numbers of one step, so that TensorBoard shows them at once.

        Args:
            step: Number of the step or the epoch.
            pictures: Pictures by name, each (3, H, W) of bytes.
            scalars: Numbers by name.
        """
        if self.log_dir is None or not (pictures or scalars):
            return
        from torch.utils.tensorboard import SummaryWriter

        self._writer = self._writer or SummaryWriter(self.log_dir)
        for name, picture in (pictures or {}).items():
            self._writer.add_image(name, picture, step)
        for name, number in (scalars or {}).items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file; a later event opens another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def silence_writers() -> None:
    """Print no traceback of TensorBoard's threads, as on a full disk: the next event raises the same error."""
    before = threading.excepthook

    def print_others(failed: threading.ExceptHookArgs) -> None:
        if type(failed.thread).__name__ != "_AsyncWriterThread":
            before(failed)

    if getattr(before, "__name__", "") != print_others.__name__:
        threading.excepthook = print_others


def drop_events_after(folder: Path, time: float) -> None:
    """Remove events logged after a given time, so that a training that resumes there logs nothing twice.

    A file that cannot be read or replaced stays as it is, with a warning: curves are no reason to stop a training.

    Args:
        folder: Folder of the event files; subfolders are not changed.
        time: Time in seconds since 1970, such as that of the last checkpoint.
    """
    for draft in folder.glob(".events.out.tfevents.*.tmp"):
        draft.unlink(missing_ok=True)
    for path in folder.glob("events.out.tfevents.*"):
        if path.is_file():
            try:
                _drop_records_after(path, time)
            except OSError as error:
                log.warning("%s keeps what was logged after the checkpoint: %s", path, error)


def _drop_records_after(path: Path, time: float) -> None:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = list(RawEventFileLoader(str(path)).Load())
    kept = [record for record in records if Event.FromString(record).wall_time <= time]
    if not kept and records:
        path.unlink()
    elif len(kept) < len(records):
        with drafted(path) as draft, draft.open("wb") as file:
            writer = RecordWriter(file)
            for record in kept:
                writer.write(record)
