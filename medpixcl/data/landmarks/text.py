"""Text of landmark files."""

from pathlib import Path

from medpixcl.limits import regular_file


def utf8_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: If it is in another encoding.
    """
    try:
        return regular_file(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text; save it in UTF-8.") from None


def require_unique(path: Path, columns: list[str]) -> None:
    """Refuse a table that has a named column twice, of which one would be ignored.

    Raises:
        ValueError: If a name occurs twice.
    """
    twice = next((name for number, name in enumerate(columns) if name and name in columns[:number]), None)
    if twice is not None:
        raise ValueError(f"{path} has the column {twice!r} twice; keep one of the two.")
