"""Is what a reader does with a damaged input a fault?"""

import re
import shutil
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import FrameType

from tests.fuzz.readers import Reader

LIMIT_S = 20
"""Seconds after which a reader hangs."""


class _HangError(BaseException):
    """Passes through every ``except Exception``."""


class Inputs:
    """Makes the cases of readers.

    Args:
        folder: Folder for good inputs and cases.
        seed: Random seed.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self._good: dict[str, Path] = {}

    def case(self, reader: Reader, number: int) -> Path:
        """Write the damaged input of a number into a new folder, and return its path."""
        good = self.good(reader)
        random = Random(f"{self.seed} {reader.name} {number}")
        return self.placed(reader, reader.mutate(good.read_bytes(), random))

    def placed(self, reader: Reader, content: bytes) -> Path:
        """Write an input of this content, with the files beside it, into a new folder."""
        good, case = self.good(reader), self.folder / "case"
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(self.folder / reader.name, case)
        path = case / good.relative_to(self.folder / reader.name)
        path.write_bytes(content)
        return path

    def good(self, reader: Reader) -> Path:
        """Path of a good input, which is made once."""
        if reader.name not in self._good:
            folder = self.folder / reader.name
            folder.mkdir()
            self._good[reader.name] = reader.make(folder)
        return self._good[reader.name]


def fault_of(reader: Reader, path: Path) -> str | None:
    """What is wrong with how a reader takes an input; None if it uses it, or refuses it in one sentence."""
    folder = next(one for one in path.parents if one.name == "case")
    before = _listing(folder)
    try:
        with _limited():
            reader.call(path)
    except _HangError as hang:
        return f"hangs: {_place(hang)}"
    except (ValueError, OSError) as error:
        return _fault_of_refusal(error, path, _listing(folder) - before)
    except Exception as error:
        return f"traceback of {type(error).__name__} ({str(error)[:150]!r}): {_place(error)}"
    return None


def _fault_of_refusal(error: Exception, path: Path, written: set[Path]) -> str | None:
    said = str(error)
    named = path.name in said or re.search(rf"{re.escape(str(path.parent))}(?![\w/])", said)
    if not named and not any(str(one) in said for one in written):
        return f"names no file ({type(error).__name__}: {said[:150]!r}): {_place(error)}"
    if "\n" in said or len(said) > 3000:
        return f"is no sentence ({said[:80]!r}, {len(said)} characters): {_place(error)}"
    unsaid = sorted(one.name for one in written if str(one) not in said)
    return f"wrote {unsaid[0]} before it refused: {_place(error)}" if unsaid else None


def _place(error: BaseException) -> str:
    """Innermost place in the package that an error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [one for one in frames if "/medpixcl/" in one.filename and "site-packages" not in one.filename]
    last = (inside or frames)[-1]
    return f"{last.filename.rpartition('/medpixcl/')[2]}:{last.name}"


def _listing(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.name.startswith(".")}


@contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
