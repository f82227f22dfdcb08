"""File of what an unfinished run has done, one line of JSON for each file, image and drawing."""

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from medpixcl._json import parsed_json
from medpixcl.data.folder_lock import locked_folder

log = logging.getLogger(__name__)


class RunLines:
    """Lines of one run, which are appended one by one. A last line that was cut off counts as not written.

    Args:
        path: The file.

    Attributes:
        files: Names of the files that the run has begun to write, relative to its folder.
        found: Landmarks that were found, as data, by search and image.
        searched: Number of images by search.
        drawn: Names of the images that were drawn without a search, or after the searches.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._clear()

    @property
    def done(self) -> int:
        """Number of images that are done, of several searches those of the longest."""
        return max([*self.searched.values(), len(self.drawn)])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder of the file, and open the file, for a block.

        Raises:
            ValueError: If another process has locked it, or the file is a link or no file.
        """
        if self._path.is_symlink() or (self._path.exists() and not self._path.is_file()):
            raise ValueError(f"{self._path} is a link or no regular file, and would be written; remove it")
        with locked_folder(self._path.parent), self._path.open("a+b") as self._file:
            try:
                yield
            finally:
                if not os.fstat(self._file.fileno()).st_size:  # nothing was begun
                    self.remove()

    def read(self, number: str, *, landmarks: bool = False) -> int:
        """Read the lines of a run.

        Args:
            number: Number of the run.
            landmarks: Whether to hold the landmarks that were found, too.

        Returns:
            Position after the last whole line; 0 if there is none, or they are of another run.
        """
        self._clear()
        end = 0
        if self._path.is_file():
            with self._path.open("rb") as file:
                for text in file:
                    line = _line(text)
                    if line is None or (not end and line.get("run") != number) or not self._take(line, landmarks):
                        break
                    end += len(text)
        return end

    def add_found(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Add landmarks, as data, by search and image, that another run found; those of this run stay."""
        for step, by_image in found.items():
            self.found[step] = {**by_image, **self.found.get(step, {})}

    def begin(self, number: str, end: int = 0) -> None:
        """Go on after a position that :meth:`read` returned; from 0 on the lines are those of a new run."""
        self._opened.truncate(end)
        if not end:
            self._clear()
            self.append({"run": number})

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line, which a process that is killed now has written."""
        self._take(line, False)
        self._opened.write(json.dumps(line).encode() + b"\n")
        self._opened.flush()

    def keep(self, line: Mapping[str, Any]) -> None:
        """Append a line, which is on the disk when this returns."""
        self.append(line)
        os.fsync(self._opened.fileno())

    def remove(self) -> None:
        """Remove the file; where an open file cannot be removed, as on Windows, it stays."""
        try:
            self._path.unlink(missing_ok=True)
        except PermissionError:
            log.debug("%s stays", self._path)

    @property
    def _opened(self) -> IO[bytes]:
        assert self._file is not None
        return self._file

    def _clear(self) -> None:
        self.files: dict[str, None] = {}
        self.found: dict[str, dict[str, Any]] = {}
        self.searched = Counter[str]()
        self.drawn: set[str] = set()

    def _take(self, line: Mapping[str, Any], landmarks: bool) -> bool:
        """Take over what a line says; False if it is none of a run."""
        try:
            if "file" in line:
                self.files[str(line["file"])] = None
            elif "drawn" in line:
                self.drawn.add(line["drawn"])
            elif "image" in line:
                self.searched[line["search"]] += 1
                if landmarks:
                    self.found.setdefault(line["search"], {})[line["image"]] = line["landmarks"]
        except (KeyError, TypeError):
            return False
        return True


def _line(text: bytes) -> dict[str, Any] | None:
    """Content of a line; None if it was cut off."""
    try:
        content = parsed_json(text) if text.endswith(b"\n") else None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
