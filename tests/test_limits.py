"""Memory that a process may use, the limit of voxels, and what is no file to read."""

import os
import socket
from pathlib import Path

import pytest

from medpixcl.limits import BYTES_PER_VOXEL, MAX_VOXELS, max_voxels, memory_bytes, regular_file, special_kind

GROUPS = {
    "version 2, a container": ({"memory.max": 3000}, "0::/"),
    "version 2, a job": ({"jobs/7/memory.max": 3000, "jobs/memory.max": 4000, "other/memory.max": 5}, "0::/jobs/7"),
    "version 2, above the job": ({"jobs/memory.max": 3000}, "0::/jobs/7/step"),
    "version 1": ({"memory/memory.limit_in_bytes": 3000}, "7:cpu,cpuacct:/x\n4:memory:/"),
    "version 1, a job": ({"memory/j/memory.limit_in_bytes": 3000, "memory/x/memory.limit_in_bytes": 5}, "4:memory:/j"),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_memory_of_a_container(tmp_path: Path, kind: str) -> None:
    files, membership = GROUPS[kind]
    for name, limit in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{limit}\n")
    (tmp_path / "cgroup").write_text(f"{membership}\n")
    assert memory_bytes(tmp_path, tmp_path / "cgroup") == 3000


def test_memory_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    stated = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert memory_bytes(tmp_path, tmp_path / "none") <= int(stated.split()[1]) * 1024


def test_the_limit_of_voxels_is_given_or_follows_from_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MAX_VOXELS, raising=False)
    assert max_voxels() == memory_bytes() // BYTES_PER_VOXEL
    monkeypatch.setenv(MAX_VOXELS, "2.5e9")
    assert max_voxels() == 2_500_000_000
    for wrong in ("many", "0", "-5", "nan", "inf"):
        monkeypatch.setenv(MAX_VOXELS, wrong)
        with pytest.raises(ValueError, match=f"MEDPIXCL_MAX_VOXELS .medpixcl --max-voxels. is '{wrong}'; expected"):
            max_voxels()


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        kinds = [special_kind(tmp_path / name) for name in ("pipe", "s", "file", "none", ".", "a\0b")]
    assert kinds == ["a named pipe", "a socket", "", "", "", ""]
    assert special_kind("/dev/zero") == "a device"
    with pytest.raises(ValueError, match=r"pipe is a named pipe, which is not read; save its content to a file"):
        regular_file(tmp_path / "pipe")


def test_a_file_larger_than_the_memory(tmp_path: Path) -> None:
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(memory_bytes() + 1)  # takes no place on the disk
    with pytest.raises(ValueError, match=r"large\.csv has .* GB, more than the memory of"):
        regular_file(tmp_path / "large.csv")
