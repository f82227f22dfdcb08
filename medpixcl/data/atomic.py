"""Write files completely or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from medpixcl.data.paths import checked_file


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    r"""Write UTF-8 text to a temporary file, then rename it: a crash leaves the old file. Makes missing folders.

    Bytes of a file name that are no UTF-8 are written as escapes (``\udce9``), which JSON reads back as they were.
    """
    write_bytes_atomically(path, text.encode("utf-8", "backslashreplace"))


def write_bytes_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes to a temporary file, then rename it: a crash leaves the old file. Makes missing folders."""
    target, draft = _target_and_draft(path)
    try:
        draft.write_bytes(content)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def replaced_atomically(path: str | os.PathLike[str]) -> Iterator[IO[str]]:
    """Open a temporary file for UTF-8 text, as :func:`write_text_atomically` writes it, and rename it at the end."""
    target, draft = _target_and_draft(path)
    try:
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _target_and_draft(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """The file to write and the temporary file beside it, in a folder that exists."""
    target = checked_file(path, "the output")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target, target.with_name(f".{target.name}.{os.getpid()}.tmp")
