"""A Dask cluster of two workers, one of which may be killed."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

dask = pytest.importorskip("dask", reason="needs the extra dask")
distributed = pytest.importorskip("distributed", reason="needs the extra dask")


@contextmanager
def two_workers(folder: Path, preload: Sequence[str]) -> Iterator[str]:
    """Address of a scheduler with two workers of one thread, forked from a process that has imported all they need."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        distributed.utils.get_mp_context().set_forkserver_preload(["distributed", *preload])
        options = {"dashboard_address": None, "local_directory": str(folder), "silence_logs": logging.CRITICAL}
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster:
            yield cluster.scheduler_address


@contextmanager
def one_killed(address: str, soon: Callable[[], bool] = lambda: True) -> Iterator[list[int]]:
    """Kill a worker as soon as it works in a block, and yield the list that its process number is then in.

    Args:
        address: Address of the scheduler.
        soon: What must be true before.
    """
    killed: list[int] = []

    def kill() -> None:
        with distributed.Client(address) as client:
            while not soon() or not client.processing() or not any(client.processing().values()):
                time.sleep(0.01)
            pids = client.run(os.getpid)
            os.kill(pid := next(iter(pids.values())), signal.SIGKILL)
            killed.append(pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    yield killed
    assert killed, "the work ended before"
    thread.join()
