"""Paths that a caller gives, checked before they are used."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any


def checked_path(path: Any, what: str) -> Path:
    """Return a path, or refuse what is none in one sentence.

    Args:
        path: Text or path.
        what: Subject of the sentence in the singular, such as "the file of weights".

    Raises:
        ValueError: If it is anything else, or empty text.

    Example:
        >>> checked_path(5, "the file of weights")
        Traceback (most recent call last):
        ValueError: the file of weights is 5; expected its path, as text or pathlib.Path
    """
    if not isinstance(path, str | PathLike) or not str(path):
        raise ValueError(f"{what} is {path!r}; expected its path, as text or pathlib.Path")
    return Path(path)


def checked_paths(paths: Any, what: str) -> list[Path]:
    """Return one path or several as a list; see :func:`checked_path`.

    Args:
        paths: A path, or a list of paths.
        what: Subject of the sentence in the singular.

    Raises:
        ValueError: If any is no path.
    """
    several = paths if isinstance(paths, Sequence) and not isinstance(paths, str) else [paths]
    return [checked_path(path, what) for path in several]
