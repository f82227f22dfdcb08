"""What a file may be and claim: the number of voxels of an image, the bytes of a file, and that it is a file at all.

A file's claims are compared with these limits before memory is taken for them.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from os import PathLike
from pathlib import Path

from medpixcl._cpus import CGROUPS

MAX_VOXELS = "MEDPIXCL_MAX_VOXELS"
"""Environment variable with the largest number of voxels of one image; ``medpixcl --max-voxels`` sets it."""
RAISE_LIMIT = f"raise the limit ({MAX_VOXELS}, or medpixcl --max-voxels before the command) where the memory allows it"
"""Advice on an image beyond the limit."""
BYTES_PER_VOXEL = 24
"""Memory that reading a volume and bringing it to the spacing of a network takes at most, for each voxel."""
_WITHOUT_FACTS = 8 * 2**30
"""Memory in bytes that is assumed where the system does not tell it."""
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def max_voxels() -> int:
    """Largest number of voxels that one image may have: ``$MEDPIXCL_MAX_VOXELS``, else what the memory holds.

    Raises:
        ValueError: If the environment variable is no number of at least 1.
    """
    given = os.environ.get(MAX_VOXELS, "")
    if not given:
        return memory_bytes() // BYTES_PER_VOXEL
    try:
        number = int(float(given))
    except (ValueError, OverflowError):
        number = 0
    if number < 1:
        raise ValueError(
            f"{MAX_VOXELS} (medpixcl --max-voxels) is {given!r}; expected a number of voxels of at least 1, such as 5e8"
        )
    return number


@cache
def memory_bytes(cgroups: Path = CGROUPS, membership: Path = Path("/proc/self/cgroup")) -> int:
    """Memory that this process may use: that of the machine, or less where a container, a job or ulimit gives less.

    Args:
        cgroups: Mounted control groups, of version 2 (``memory.max``) or 1 (``memory/memory.limit_in_bytes``).
        membership: File that names the control groups of this process.
    """
    return min([_physical(), *_address_space(), *_cgroup_limits(cgroups, membership)])


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return _WITHOUT_FACTS


def _address_space() -> Iterator[int]:
    with suppress(ImportError):  # Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit


def _cgroup_limits(cgroups: Path, membership: Path) -> Iterator[int]:
    """Limits of the control groups that this process is in, and of those above them."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text(encoding="utf-8").splitlines()]
    except OSError:
        lines = []
    places = [parts[2].strip("/") for parts in lines if len(parts) == 3 and parts[1] in ("", "memory")]
    for root, name in ((cgroups, "memory.max"), (cgroups / "memory", "memory.limit_in_bytes")):
        for folder in {root, *(above for place in places for above in _up_to(root, root / place))}:
            with suppress(OSError, ValueError):  # no such group, or "max"
                yield int((folder / name).read_text(encoding="ascii"))


def _up_to(root: Path, folder: Path) -> list[Path]:
    """The folder and those above it, below ``root``."""
    return [one for one in (folder, *folder.parents) if root in one.parents]


def special_kind(path: str | PathLike[str]) -> str:
    """What a path is that is neither file nor folder, such as "a named pipe"; empty for all others, also for none.

    Example:
        >>> special_kind("/dev/null")
        'a device'
    """
    try:
        return _KINDS.get(stat.S_IFMT(Path(path).stat().st_mode), "")
    except (OSError, ValueError):  # no such file, or no name of one
        return ""


def why_not_read(path: str | PathLike[str]) -> str:
    """Reason why a file is not opened: that may wait for ever, or the file cannot fit into memory; empty for others.

    A path that does not exist has no such reason: opening it raises the usual error.
    """
    if kind := special_kind(path):
        return f"is {kind}, which is not read; save its content to a file and give that."
    with suppress(OSError):
        if (size := Path(path).stat().st_size) > memory_bytes():
            return (
                f"has {size / 1e9:.3g} GB, more than the memory of {memory_bytes() / 1e9:.3g} GB; give a smaller file."
            )
    return ""


def regular_file(path: str | PathLike[str]) -> Path:
    """The path of a file that may be opened and read whole, see :func:`why_not_read`.

    Raises:
        ValueError: If it is a pipe, a socket or a device, or larger than the memory.
    """
    if reason := why_not_read(path):
        raise ValueError(f"{path} {reason}")
    return Path(path)
