"""The workers of a Dask cluster: an existing one, or one on this machine."""

import logging
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

from medpixcl.data.paths import shown_value

if TYPE_CHECKING:
    import distributed

RETRIES = 3
"""Number of times that Dask gives the work of a lost worker to another one."""
_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)


@runtime_checkable
class Pending(Protocol[_T_co]):
    """Work on its way."""

    def result(self) -> _T_co:
        """Wait for the work and return what it gives."""


class DaskCluster:
    """Connection to the workers of a Dask cluster, made when it is needed.

    Args:
        address: Address of the scheduler, such as ``tcp://10.0.0.1:8786``; the workers must have this package, and see
            the files under the same paths.

    Raises:
        ValueError: If the address is no text.
        ModuleNotFoundError: If Dask is not installed.
    """

    def __init__(self, address: str) -> None:
        if not isinstance(address, str) or not address:
            raise ValueError(f"scheduler is {shown_value(address)}; expected its address, as 'tcp://10.0.0.1:8786'.")
        self._address = address
        _require_dask()

    @property
    def number(self) -> int:
        """Number of the workers' threads."""
        client = self.client
        with _in_one_sentence(self._address):
            return max(1, sum(client.nthreads().values()))

    @cached_property
    def client(self) -> "distributed.Client":
        """The connection.

        Raises:
            OSError: If the scheduler does not answer.
        """
        import distributed

        with _in_one_sentence(self._address):
            return distributed.Client(self._address)

    def submit(self, function: Callable[..., _T], *arguments: Any, if_lost: Callable[[], _T]) -> "DaskWork[_T]":
        """Let a worker call a function.

        Args:
            function: The function.
            arguments: Its arguments, or what :meth:`lend` returns for them.
            if_lost: Gives the result if every worker that tried it died.
        """
        return DaskWork(self.client.submit(function, *arguments, pure=False, retries=RETRIES), self._address, if_lost)

    def lend(self, thing: Any) -> "distributed.Future":
        """Send something that all the work needs to every worker, once."""
        client = self.client
        with _in_one_sentence(self._address):
            return client.scatter(thing, broadcast=True, hash=False)

    def close(self, tidy: Callable[[], None] | None = None) -> None:
        """End the connection; the workers stay.

        Args:
            tidy: Function that every worker calls before.
        """
        if "client" not in self.__dict__:
            return
        try:
            if tidy is not None:
                self.client.run(tidy, on_error="ignore")
        finally:
            self.client.close()


class DaskWork(Generic[_T]):
    """Work at a Dask worker.

    Args:
        future: The work.
        address: Address of the scheduler.
        if_lost: Gives the result if every worker that tried it died.
    """

    def __init__(self, future: "distributed.Future", address: str, if_lost: Callable[[], _T]) -> None:
        self._future, self._address, self._if_lost = future, address, if_lost

    def result(self) -> _T:
        """Wait for the work and return what it gives.

        Raises:
            OSError: If the scheduler is lost, or the workers cannot call the function at all.
        """
        import distributed

        with _in_one_sentence(self._address):
            try:
                return self._future.result()
            except distributed.KilledWorker:
                return self._if_lost()


@contextmanager
def _in_one_sentence(address: str) -> Iterator[None]:
    """Turn whatever a cluster fails with into one sentence."""
    try:
        yield
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise OSError(
            f"the Dask scheduler {address} or its workers failed ({said}); see that it is up at this address, and that "
            "its workers have the same version of medpixcl"
        ) from error


@contextmanager
def dask_cluster(scheduler: str | None = None, workers: int | None = None) -> Iterator[DaskCluster | None]:
    """Connect to a cluster, or start one, for a block.

    Args:
        scheduler: Address of a Dask scheduler.
        workers: Number of processes to start on this machine, with one thread each.

    Yields:
        The cluster; None if neither is asked for.

    Raises:
        ValueError: If both are given, or one is no address or number.
        ModuleNotFoundError: If Dask is not installed.
    """
    if scheduler is not None and workers is not None:
        raise ValueError("workers starts a cluster on this machine, and scheduler names another one; give one of them")
    with ExitStack() as stack:
        if workers is not None:
            scheduler = stack.enter_context(_started(workers)).scheduler_address
        cluster = None if scheduler is None else DaskCluster(scheduler)
        if cluster is not None:
            stack.callback(cluster.close)
        if cluster is not None and workers is not None:
            cluster.client.run(_ignore_interrupts)
        yield cluster


def in_order(tasks: Iterable[_T], submit: Callable[[_T], Pending[_T_co]], ahead: int) -> Iterator[_T_co]:
    """Results of tasks in their order, with a limited number of tasks on their way.

    Args:
        tasks: The tasks; they are asked for as the work goes on.
        submit: Gives a task to a worker.
        ahead: Number of tasks that are given before the first result is awaited.
    """
    pending: deque[Pending[_T_co]] = deque()
    for task in tasks:
        pending.append(submit(task))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _started(workers: int) -> "distributed.LocalCluster":
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ValueError(f"workers is {shown_value(workers)}; expected a whole number of at least 1.")
    _require_dask()
    import distributed

    options = {"dashboard_address": None, "silence_logs": logging.ERROR}
    return distributed.LocalCluster(n_workers=workers, threads_per_worker=1, **options)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the one that started this worker and ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _require_dask() -> None:
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "work on a Dask cluster needs the package distributed: pip install 'medpixcl[dask]'", name="distributed"
        ) from None
