"""Events after a moment are removed, those before it stay; read by TensorBoard itself."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from medpixcl.training.event_files import drop_events_after


def write(folder: Path, steps: range) -> None:
    """One loss a second: that of step 7 was logged at second 7."""
    with SummaryWriter(str(folder)) as writer:
        writer.file_writer.event_writer.flush()
        for step in steps:
            writer.add_scalar("loss", float(step), step, walltime=1e9 + step)


def read(folder: Path) -> list[int]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [scalar.step for scalar in events.Scalars("loss")]


def test_repeated_steps_are_there_once(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8))
    drop_events_after(tmp_path, 1e9 + 4.5)
    write(tmp_path, range(5, 11))
    assert sorted(read(tmp_path)) == list(range(1, 11))


def test_what_lies_before_stays_to_the_last_byte(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    drop_events_after(tmp_path, 1e10)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_damaged_files_stop_nothing(tmp_path: Path) -> None:
    """A last record cut off goes; what is no file of events stays."""
    write(tmp_path, range(1, 8))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    garbage = tmp_path / "events.out.tfevents.garbage"
    garbage.write_bytes(b"garbage" * 50)
    folder = tmp_path / "events.out.tfevents.folder"
    folder.mkdir()
    drop_events_after(tmp_path, 1e9 + 4.5)
    assert garbage.read_bytes() == b"garbage" * 50
    garbage.unlink()
    folder.rmdir()
    assert read(tmp_path) == [1, 2, 3, 4]


def test_files_of_a_lost_start_go_whole(tmp_path: Path) -> None:
    """With what a killed process left of such a removal; the curves of another folder stay."""
    write(tmp_path, range(1, 8))
    (tmp_path / ".events.out.tfevents.1.tmp").touch()
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", range(1, 3))
    drop_events_after(tmp_path, 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    assert read(tmp_path / "other") == [1, 2]
