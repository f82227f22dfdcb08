"""Files are whole or as before; what killed processes left is removed, and nothing else."""

import errno
from pathlib import Path

import pytest

from medpixcl.data.atomic import drafted, remove_drafts, write_text_atomically


def test_what_killed_processes_left(tmp_path: Path) -> None:
    left = [".model.pt.tmp", ".model.pt.123.tmp"]
    others = ["model.pt", ".model.pt.good.tmp", ".other.pt.5.tmp", "model.pt.123.tmp", ".modelXpt.123.tmp"]
    for name in left + others:
        (tmp_path / name).touch()
    remove_drafts(tmp_path / "model.pt")
    assert {path.name for path in tmp_path.iterdir()} == set(others)
    remove_drafts(tmp_path / "no folder" / "model.pt")


def test_full_disk_names_the_file(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "a.txt", "before")
    with pytest.raises(OSError, match="No space left") as caught, drafted(tmp_path / "a.txt"):
        Path("/dev/full").write_text("half")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a.txt"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_errors_of_other_files_keep_their_names(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, drafted(tmp_path / "a.txt"):
        (tmp_path / "b.txt").read_text()
    assert caught.value.filename == str(tmp_path / "b.txt")
