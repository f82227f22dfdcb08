"""Advice in the words of who reads it: arguments of Python, or the options of the command line.

Sentences are made with Python's words, ``give spacing_mm`` and ``trust=True``, wherever they are raised, also in
another process. They are translated where they are printed, or written to a manifest or a page.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_translate: ContextVar[Callable[[str], str]] = ContextVar("wording", default=str)


def worded(sentence: str) -> str:
    """A sentence in the words of the caller, for a file that people read."""
    return _translate.get()(sentence)


@contextmanager
def about(what: str) -> Iterator[None]:
    """Put the files that a block compares before the sentence of its ValueError.

    Args:
        what: Names of the files.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


@contextmanager
def wording(translate: Callable[[str], str]) -> Iterator[None]:
    """Translate what is written in a block.

    Args:
        translate: Function from a sentence in Python's words to the one that is wanted.
    """
    token = _translate.set(translate)
    try:
        yield
    finally:
        _translate.reset(token)
