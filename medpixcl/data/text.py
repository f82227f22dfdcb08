"""Text of files that people write or change."""

from collections.abc import Sequence
from pathlib import Path

from medpixcl.limits import regular_file

_SHOWN = 100
"""Number of characters that a message repeats of what a file holds."""


def utf8_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark; line ends stay as they are.

    Raises:
        ValueError: If it is in another encoding.
    """
    try:
        with regular_file(path).open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; save it in UTF-8.") from None


def require_unique(path: Path, columns: Sequence[str]) -> None:
    """Refuse a table that has a named column twice, of which one would be ignored.

    Raises:
        ValueError: If a name occurs twice.
    """
    twice = next((name for number, name in enumerate(columns) if name and name in columns[:number]), None)
    if twice is not None:
        raise ValueError(f"{path} has the column {quoted(twice)} twice; keep one of the two.")


def quoted(value: object) -> str:
    """What a file holds, for a message: on one line, and cut off where it is long.

    Example:
        >>> quoted("left"), len(quoted("x" * 10**6))
        ("'left'", 103)
    """
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def shown(name: str) -> str:
    """A name that a file holds, for a message: as it is if it is short and fits on one line, else as :func:`quoted`."""
    return name if name.isprintable() and len(name) <= _SHOWN else quoted(name)


def shown_names(names: Sequence[str]) -> str:
    """Names that a file holds, such as its columns, for a message; see :func:`shown`."""
    text = ", ".join(map(shown, names)) or "(none)"
    return text if len(text) <= 3 * _SHOWN else f"{text[: 3 * _SHOWN]}..."
