"""A process of its own in which damaged inputs are judged, so that a crash is a fault of its input alone."""

import logging
import multiprocessing
import resource
import tempfile
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.judging import LIMIT_S, Inputs, fault_of
from tests.fuzz.readers import COMMANDS, READERS, Reader

MEMORY = 8 * 2**30
"""Bytes of address space of the process that reads."""


class Worker:
    """The process that reads the inputs.

    Args:
        seed: Random seed.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._folder = tempfile.TemporaryDirectory()
        self._start()

    def judged(self, reader: Reader, number: int) -> tuple[str | None, bytes]:
        """Fault and content of a case; the end of the process is a fault, too."""
        self._pipe.send((reader.name, number))
        content = b""
        try:
            if self._pipe.poll(3 * LIMIT_S):
                content = self._pipe.recv()
                if self._pipe.poll(3 * LIMIT_S):
                    return self._pipe.recv(), content
            fault = "hangs in native code"
            self._process.kill()
            self._process.join()
        except (EOFError, ConnectionResetError):
            self._process.join()
            fault = f"ends the process (status {self._process.exitcode})"
        self._start()
        return fault, content

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._folder.cleanup()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        folder = tempfile.mkdtemp(dir=self._folder.name)
        self._process = context.Process(target=_serve, args=(other, self._seed, folder), daemon=True)
        self._process.start()
        other.close()


def _serve(pipe: Connection, seed: int, folder: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    by_name, inputs, met = {one.name: one for one in (*READERS, *COMMANDS)}, Inputs(Path(folder), seed), set()
    while True:
        name, number = pipe.recv()
        reader = by_name[name]
        if name not in met:  # what is imported and started once is no part of the time of a case
            reader.call(inputs.placed(reader, inputs.good(reader).read_bytes()))
            met.add(name)
        path = inputs.case(reader, number)
        pipe.send(path.read_bytes())
        pipe.send(fault_of(reader, path))
