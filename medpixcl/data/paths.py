"""Paths that a caller gives, checked before they are used."""

from collections.abc import Iterable, Mapping
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
        raise ValueError(f"{what} is {shown_value(path)}; expected its path, as text or pathlib.Path")
    return Path(path)


def checked_file(path: Any, what: str) -> Path:
    """Return the path of a file to write, which may exist; see :func:`checked_path`.

    Raises:
        ValueError: If it is no path, or that of a folder.
    """
    path = checked_path(path, what)
    if path.is_dir():
        raise ValueError(f"{what} {path} is a folder; expected the name of a file")
    return path


def checked_folder(path: Any, what: str) -> Path:
    """Return the path of a folder to write into, which may exist; see :func:`checked_path`.

    Raises:
        ValueError: If it is no path, or that of a file.
    """
    path = checked_path(path, what)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{what} {path} is a file; expected the name of a folder")
    return path


def shown_value(value: Any) -> str:
    """A wrong value for a message: numbers and text as they are, of others the type alone.

    What else is given by mistake may be an image or a DICOM header, whose text is long and names the patient.

    Example:
        >>> shown_value("yes"), shown_value([1, 2])
        ("'yes'", 'of type list')
    """
    return repr(value) if isinstance(value, bool | int | float | str | None) else f"of type {type(value).__name__}"


def checked_paths(paths: Any, what: str) -> list[Path]:
    """Return one path or several as a list; see :func:`checked_path`.

    Args:
        paths: A path, or a list of paths.
        what: Subject of the sentence in the singular.

    Returns:
        The paths in their order; an empty list stays empty.

    Raises:
        ValueError: If any is no path.
    """
    several = isinstance(paths, Iterable) and not isinstance(paths, str | bytes | PathLike | Mapping)
    return [checked_path(path, what) for path in (paths if several else [paths])]
