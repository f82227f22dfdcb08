"""A lock on a folder, so that one process alone works in it; the kernel releases it when the process ends or dies."""

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medpixcl.data.paths import checked_folder

try:
    import fcntl
except ModuleNotFoundError:  # not on Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LOCK = ".lock"
"""Name of the locked file; it holds the number of the process and goes when the lock is released."""
_held: dict[Path, int] = {}


@contextmanager
def locked_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Lock a folder, which is made if it is missing, for this process; calls of one process may be nested.

    Processes that this one forks, such as those of a data loader, do not hold the lock.

    Raises:
        ValueError: If another process has locked the folder.
    """
    first = _lock(folder)
    try:
        yield
    finally:
        if first:
            _release(Path(folder).resolve())


def _lock(folder: str | os.PathLike[str]) -> bool:
    """Lock a folder; False if this process had locked it already."""
    place = checked_folder(folder, "the folder of the run")
    place.mkdir(parents=True, exist_ok=True)
    place = place.resolve()
    if place in _held or fcntl is None:
        return False
    file = _locked_file(place / LOCK)
    os.ftruncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    _held[place] = file
    return True


def _locked_file(path: Path) -> int:
    """Open and lock the file; again if the process that held it has removed it meanwhile."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            # A lock of POSIX: it belongs to this process alone and also holds between the machines of a cluster.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                log.warning("%s cannot be locked (%s): start no second process in it", path.parent, error.strerror)
                return file
            holder = os.pread(file, 20, 0).decode("ascii", "replace") or "unknown"
            os.close(file)
            raise ValueError(
                f"another process (number {holder}) is working in {path.parent}: wait until it has ended, or give "
                "another folder"
            ) from None
        if path.exists() and path.stat().st_ino == os.fstat(file).st_ino:
            return file
        os.close(file)


def _release(place: Path) -> None:
    (place / LOCK).unlink(missing_ok=True)
    os.close(_held.pop(place))
