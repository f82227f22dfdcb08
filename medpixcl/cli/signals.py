"""Ctrl-C and SIGTERM as an exception that ends a command with the exit status of the signal."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asks the program to end; like :class:`KeyboardInterrupt` it is no error.

    What was interrupted may add a note that says what it kept and how to go on (:meth:`add_note`).

    Args:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __str__(self) -> str:
        return " ".join(["stopped", *getattr(self, "__notes__", [])])

    @property
    def status(self) -> int:
        """Exit status as a shell gives it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number


@contextmanager
def stopping() -> Iterator[None]:
    """Raise :class:`Stopped` at the first Ctrl-C or SIGTERM in a block; the second one ends the process at once.

    A signal that the process ignores, as one started by ``nohup``, stays ignored; processes forked in the block end
    as if there were no handler.
    """
    if threading.current_thread() is not threading.main_thread():  # no other thread can handle signals
        yield
        return
    owner = os.getpid()
    before: dict[int, Any] = {one: signal.getsignal(one) for one in SIGNALS}

    def stop(number: int, frame: FrameType | None) -> None:
        for one in handled:
            signal.signal(one, signal.SIG_DFL)
        if os.getpid() != owner:
            os.kill(os.getpid(), number)
            return
        raise Stopped(number)

    handled = [one for one, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    for one in handled:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one in handled:
            signal.signal(one, before[one])
