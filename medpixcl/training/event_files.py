"""TensorBoard event files of a training that resumes after it was killed."""

from pathlib import Path


def drop_events_after(folder: Path, time: float) -> None:
    """Remove events logged after a given time, so that a training that resumes there logs nothing twice.

    Args:
        folder: Folder of the event files; subfolders are not changed.
        time: Time in seconds since 1970, such as that of the last checkpoint.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    for path in folder.glob("events.out.tfevents.*"):
        records = list(RawEventFileLoader(str(path)).Load())
        kept = [record for record in records if Event.FromString(record).wall_time <= time]
        if len(kept) == len(records):
            continue
        draft = path.with_name(f".{path.name}.tmp")
        with draft.open("wb") as file:
            writer = RecordWriter(file)
            for record in kept:
                writer.write(record)
        draft.replace(path)
