"""Write files completely or not at all."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from medpixcl.data.paths import checked_file

_note: ContextVar[Callable[[Path], None] | None] = ContextVar("note", default=None)


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    r"""Write UTF-8 text to a temporary file, then rename it: a crash leaves the old file. Makes missing folders.

    Bytes of a file name that are no UTF-8 are written as escapes (``\udce9``), which JSON reads back as they were.
    """
    write_bytes_atomically(path, text.encode("utf-8", "backslashreplace"))


def write_bytes_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes to a temporary file, then rename it: a crash leaves the old file. Makes missing folders."""
    with drafted(path) as draft:
        draft.write_bytes(content)


@contextmanager
def replaced_atomically(path: str | os.PathLike[str]) -> Iterator[IO[str]]:
    """Open a temporary file for UTF-8 text, as :func:`write_text_atomically` writes it, and rename it at the end."""
    with drafted(path) as draft, draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
        yield file


@contextmanager
def drafted(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Name a temporary file beside the one to write, in a folder that exists; it is renamed at the end, or removed.

    What was written is on the disk before it gets its name, so that a power failure leaves the old file, too.

    Raises:
        OSError: If it cannot be written, as on a full disk; the error names the file that was to be written.
    """
    target = checked_file(path, "the output")
    target.parent.mkdir(parents=True, exist_ok=True)
    if (note := _note.get()) is not None:
        note(target)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        if error.filename not in (None, str(draft)):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def noting(note: Callable[[Path], None]) -> Iterator[None]:
    """Call a function with the path of every file that is written in a block, before it is written."""
    token = _note.set(note)
    try:
        yield
    finally:
        _note.reset(token)


def remove_drafts(path: str | os.PathLike[str]) -> None:
    """Remove what killed processes left of :func:`drafted` beside a file that no other process writes now."""
    target = Path(path)
    named = re.compile(rf"\.{re.escape(target.name)}(\.\d+)?\.tmp")
    for one in target.parent.iterdir() if target.parent.is_dir() else ():
        if named.fullmatch(one.name):
            one.unlink(missing_ok=True)
