"""TensorBoard event files of a training that goes on after it was killed."""

from pathlib import Path


def drop_events_after(folder: Path, time: float) -> None:
    """Remove what was logged after a moment, so that a training that repeats it from there logs nothing twice.

    Args:
        folder: Folder of the event files; files in folders below it stay as they are.
        time: Moment in seconds since 1970, such as the time at which the checkpoint was written.
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
