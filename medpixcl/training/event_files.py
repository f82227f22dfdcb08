"""TensorBoard event files of a training that resumes after it was killed."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)


def drop_events_after(folder: Path, time: float) -> None:
    """Remove events logged after a given time, so that a training that resumes there logs nothing twice.

    A file that cannot be read or replaced stays as it is, with a warning: curves are no reason to stop a training.

    Args:
        folder: Folder of the event files; subfolders are not changed.
        time: Time in seconds since 1970, such as that of the last checkpoint.
    """
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
    if len(kept) == len(records):
        return
    draft = path.with_name(f".{path.name}.tmp")
    with draft.open("wb") as file:
        writer = RecordWriter(file)
        for record in kept:
            writer.write(record)
    draft.replace(path)
