"""A folder belongs to one process; the kernel takes the lock back whatever happens to that process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medpixcl.data.folder_lock import locked_folder
from tests.tiny import environment

HOLDER = """
import os, sys, time
from medpixcl.data.folder_lock import locked_folder
lock = locked_folder(sys.argv[1])
lock.__enter__()
if os.fork() == 0:  # as a data loader does; it outlives its parent
    time.sleep(20)
    os._exit(0)
print("held", flush=True)
time.sleep(600)
"""


def test_another_process_is_refused_until_this_one_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    sentence = rf"another process \(number {process.pid}\) is working in {tmp_path}: wait until it has ended, or give"
    with pytest.raises(ValueError, match=sentence), locked_folder(tmp_path):
        pass
    process.kill()
    process.wait()
    with locked_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())
    process.stdout.close()


def test_nested_in_one_process(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "new"):
        with locked_folder(tmp_path / "new" / ".." / "new"):
            pass
        assert (tmp_path / "new" / ".lock").exists()
    assert list((tmp_path / "new").iterdir()) == []


def test_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ValueError, match="file is a file; expected the name of a folder"),
        locked_folder(tmp_path / "file"),
    ):
        pass
