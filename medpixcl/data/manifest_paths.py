"""Paths as a manifest names them: relative to its folder, with slashes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def has_utf8_name(name: str, base_dir: Path) -> bool:
    """True if the relative path of a file, given as text, can be written as UTF-8."""
    return name.isascii() or shown_path(Path(name), base_dir) == relative_path(Path(name), base_dir)


def shown_path(path: Path, base_dir: Path) -> str:
    """Relative path as text; bytes that are not UTF-8 are written with a backslash."""
    return os.fsencode(relative_path(path, base_dir)).decode("utf-8", "backslashreplace")


def relative_path(path: Path | Sequence[Path], base_dir: Path) -> Any:
    """Path from a folder, or list of the paths of several files, with slashes."""
    if not isinstance(path, Path):
        return [relative_path(one, base_dir) for one in path]
    text, base = str(path), f"{base_dir}{os.sep}"
    return (Path(text[len(base) :]) if text.startswith(base) else Path(os.path.relpath(path, base_dir))).as_posix()
