"""Why files were left out, in a few lines: one for each kind of reason."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

SHOWN = 6
"""Number of reasons that a summary lists."""
_MOST = 1000
"""Number of kinds of reason that are told apart, so that a scan of any length needs little memory."""
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[\d/\\]\S*|\S+\.\w\S*")
"""Words that belong to one file: names in quotation marks, numbers, paths and file names."""


@dataclass
class _Kind:
    path: str
    reason: str
    files: int = 0

    def __str__(self) -> str:
        what = self.path if self.files == 1 else f"{self.files} files, the first of them {self.path}"
        return f"rejected {what}: {self.reason}"


class Reasons:
    """Counts the files that were left out, by reason; reasons that differ in names and numbers only are one.

    Args:
        rejected: Path and reason of files.

    Example:
        >>> reasons = Reasons([("a.png", "has 1 axis."), ("b.txt", "is not an image."), ("c.txt", "is not an image.")])
        >>> reasons.lines()
        ['rejected 2 files, the first of them b.txt: is not an image.', 'rejected a.png: has 1 axis.']
    """

    def __init__(self, rejected: Iterable[tuple[str, str]] = ()) -> None:
        self._kinds: dict[str, _Kind] = {}
        for path, reason in rejected:
            self.add(path, reason)

    def add(self, path: str, reason: str) -> None:
        """Count a file."""
        key = _PARTICULAR.sub("", reason)
        if key not in self._kinds and len(self._kinds) >= _MOST:
            key = next(reversed(self._kinds))
        self._kinds.setdefault(key, _Kind(path, reason)).files += 1

    def lines(self) -> list[str]:
        """The most frequent reasons, each with its number of files and the first of them; how many more there are."""
        kinds = sorted(self._kinds.values(), key=lambda kind: -kind.files)
        rest = kinds[SHOWN:]
        files = sum(kind.files for kind in rest)
        more = [f"rejected {files} more files for {len(rest)} other reasons"] if rest else []
        return [*map(str, kinds[:SHOWN]), *more]
