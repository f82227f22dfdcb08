"""A process of its own in which files are read, so that a reader that crashes costs one image and not the scan."""

import atexit
import logging
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from medpixcl.data.examination import Examination, examine
from medpixcl.data.sources import recognise
from medpixcl.data.unusable import Unusable

log = logging.getLogger(__name__)
_THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)
_START = "import sys; sys.path[:] = {path!r}; from medpixcl.data.reading_process import serve; serve()"
_LENGTH = struct.Struct("<Q")


Task = Examination | str
"""An image to read, or a file of which to tell what it is."""


def answer_to(task: Task) -> Any:
    """Read an image (:func:`medpixcl.data.examination.examine`), or :func:`medpixcl.data.sources.recognise` a file."""
    return recognise(Path(task)) if isinstance(task, str) else examine(task)


def _place_of(task: Task) -> Path:
    return Path(task) if isinstance(task, str) else task.source.place


class ReadingProcess:
    """Reads files in a Python process of its own, with one thread, which is started anew after a crash.

    The process ends with this one, whatever way that ends, because its input then ends.

    Attributes:
        closed: True after :meth:`close`; nothing more is read.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.closed = False

    def answers(self, tasks: Sequence[Task]) -> list[Any]:
        """Do some tasks (:func:`answer_to`); a file that ends the process is unusable."""
        results: list[Any] = []
        while len(results) < len(tasks):
            process = self._started()
            waiting = tasks[len(results) :]
            with suppress(BrokenPipeError):
                _send(process.stdin, list(waiting))
            results += _received(process.stdout, len(waiting))
            if len(results) < len(tasks):
                results.append(Unusable(_place_of(tasks[len(results)]), f"{_how_it_ended(self._ended())}."))
        return results

    def close(self) -> None:
        """End the process for good."""
        self.closed = True
        if self._process is not None:
            self._process.kill()
            self._ended()

    def _started(self) -> subprocess.Popen[bytes]:
        if self.closed:
            raise RuntimeError("the reading process was closed; make another one.")
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START.format(path=sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | dict.fromkeys(_THREAD_SETTINGS, "1"),
            )
        return self._process

    def _ended(self) -> int:
        """Wait for the end of the process and return its exit status."""
        process, self._process = self._process, None
        if process is None:  # another thread closed it
            raise RuntimeError("the reading process was closed while it read.")
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                assert stream is not None
                stream.close()
        return process.wait()


_of_thread = threading.local()


def answers_apart(tasks: Sequence[Task]) -> list[Any]:
    """Do some tasks in the reading process of this thread, which stays for the next call."""
    if not hasattr(_of_thread, "process") or _of_thread.process.closed:
        _of_thread.process = ReadingProcess()
        _all.append(_of_thread.process)
    return _of_thread.process.answers(tasks)


_all: list[ReadingProcess] = []


@atexit.register
def close_all() -> None:
    """End the reading processes of all threads."""
    while _all:
        _all.pop().close()


def serve() -> None:
    """Do tasks until the input ends: the work of the reading process. Its standard output carries the results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who asked decides what an interruption means
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what a library prints is no answer
    import torch

    torch.set_num_threads(1)
    while (tasks := _next(sys.stdin.buffer)) is not None:
        for task in tasks:
            _send(answers, answer_to(task))


def _received(stream: IO[bytes] | None, number: int) -> Iterator[Any]:
    """At most so many objects; fewer if the other side ends."""
    for _ in range(number):
        if (one := _next(stream)) is None:
            return
        yield one


def _send(stream: IO[bytes] | None, content: object) -> None:
    assert stream is not None
    data = pickle.dumps(content)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _next(stream: IO[bytes] | None) -> Any:
    """The next object from another process of this program, None at the end."""
    assert stream is not None
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    data = stream.read(_LENGTH.unpack(head)[0])
    return pickle.loads(data) if len(data) == _LENGTH.unpack(head)[0] else None


def _how_it_ended(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        return f"ends the process that reads it ({name}), as damaged files do, or files larger than the memory"
    return f"ends the process that reads it (exit status {status}), as damaged files do"
