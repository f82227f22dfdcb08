"""Progress of long steps: a bar in a terminal, lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from tqdm import tqdm

EVERY_S = 60.0
"""Seconds between two lines of a log."""
_T = TypeVar("_T")


class ProgressLines:
    """Prints a line about a long step now and then, for a log that no progress bar is shown in.

    Args:
        what: Beginning of the line, such as ``read``.
        unit: Plural of the items.
        every_s: Seconds between two lines.
    """

    def __init__(self, what: str, unit: str, *, every_s: float = EVERY_S) -> None:
        self._what, self._unit, self._every_s = what, unit, every_s
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Note the number of finished items, and print it if it is time."""
        now = time.monotonic()
        if done >= total or now - self._last < self._every_s:
            return
        self._last = now
        rate = done / max(now - self._start, 1e-9)
        left = timedelta(seconds=round((total - done) / max(rate, 1e-9)))
        self.show(f"{self._what} {done} of {total} {self._unit}, {rate:.1f} {self._unit}/s, about {left} left")

    def show(self, line: str) -> None:
        """Print a line."""
        print(line, file=sys.stderr, flush=True)


def progress(items: Sequence[_T], what: str, unit: str) -> Iterator[_T]:
    """Iterate over items and show how far it is: a bar in a terminal, else a line a minute on the error stream.

    Args:
        items: The items.
        what: Name of the step.
        unit: Singular of the items.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, desc=what, unit=unit, leave=False)
        return
    lines = ProgressLines(f"{what}:", f"{unit}s", every_s=EVERY_S)
    for done, item in enumerate(items, start=1):
        yield item
        lines(done, len(items))


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar.

    Args:
        unit: Singular of the items.

    Yields:
        Function to call with the number of finished items and their total.
    """
    with tqdm(unit=unit) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
