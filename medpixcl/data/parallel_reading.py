"""Read many files: here, in several processes, or over a Dask cluster; the results are the same and in order."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from medpixcl._cpus import available_cpus
from medpixcl.data.dask_cluster import DaskCluster, Pending, in_order
from medpixcl.data.dicom_geometry import SliceGeometry
from medpixcl.data.dicom_header import is_compressed_dicom
from medpixcl.data.examination import Examination, Usable, examine
from medpixcl.data.reading_process import ReadingProcess, Task, answer_to, answers_apart, close_all
from medpixcl.data.sources import Source
from medpixcl.data.unusable import Unusable
from medpixcl.data.volumes import ITK_SUFFIXES, MINC_SUFFIX

_CHUNK = 32
_FEW_FILES, _FEW_IMAGES, _FEW_BYTES = 2000, 500, 200_000_000
"""Less is read in this process, because other processes take seconds to start."""
_AHEAD = 4
"""Chunks given to each worker before the first one is awaited."""


class ParallelReading:
    """The processes that read the files of one scan; they start when they are needed, and end with the context.

    A reader that may crash runs in a process of its own, always: whatever it does costs one image.

    Args:
        workers: Number of reading processes, each with one thread. The default is one for each CPU that this process
            may use; few files are read in this process.
        scheduler: Address of a Dask scheduler whose workers read, such as ``tcp://10.0.0.1:8786``; they must see the
            files under the same paths.

    Raises:
        ValueError: If ``workers`` is not positive, or ``scheduler`` is no text.
        ModuleNotFoundError: If ``scheduler`` is given and Dask is not installed.
        OSError: While reading, if the scheduler does not answer.
    """

    def __init__(self, workers: int | None = None, scheduler: str | None = None) -> None:
        if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
            raise ValueError(f"workers is {workers!r}; expected a whole number of at least 1.")
        self._here = workers is None and scheduler is None
        self._readers: _Readers = _Processes(workers or available_cpus()) if scheduler is None else _Dask(scheduler)

    def __enter__(self) -> "ParallelReading":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers.close()

    def recognise(self, files: Sequence[str]) -> Iterator[Source | SliceGeometry | Unusable]:
        """Tell what files are (:func:`medpixcl.data.sources.recognise`), in their order."""
        if self._here and len(files) <= _FEW_FILES:
            return map(answer_to, files)
        return self._apart(files, len(files))

    def examine(self, tasks: Iterable[Examination], number: int) -> Iterator[Usable | Unusable]:
        """Read images (:func:`medpixcl.data.examination.examine`), in their order.

        Args:
            tasks: Images to read; they are asked for as the reading goes on.
            number: How many they are.
        """
        if self._here and number <= _FEW_IMAGES and _are_small(tasks := list(tasks)):
            return (answers_apart([task])[0] if _may_crash(task) else examine(task) for task in tasks)
        return self._apart(tasks, number)

    def _apart(self, tasks: Iterable[Task], number: int) -> Iterator[Any]:
        if number:
            workers = self._readers.number
            chunks = _chunks(tasks, max(1, min(_CHUNK, number // (_AHEAD * workers))))
            yield from itertools.chain.from_iterable(in_order(chunks, self._readers.submit, workers * _AHEAD))


def _are_small(tasks: Iterable[Examination]) -> bool:
    return sum(file.stat().st_size for task in tasks for file in task.source.files if file.exists()) < _FEW_BYTES


def _may_crash(task: Examination) -> bool:
    """True for readers in C++ that damaged files bring down: ITK, and the decoders of compressed DICOM."""
    files = (task.source.files[0], *(one.path for one in task.maps))
    return any(file.name.lower().endswith((*ITK_SUFFIXES, MINC_SUFFIX)) or is_compressed_dicom(file) for file in files)


class _Processes:
    """Reading processes of this machine.

    Attributes:
        number: How many.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._all = [ReadingProcess() for _ in range(number)]
        self._free: SimpleQueue[ReadingProcess] = SimpleQueue()
        for process in self._all:
            self._free.put(process)
        self._pool = ThreadPoolExecutor(number)

    def submit(self, chunk: Sequence[Task]) -> "Future[list[Any]]":
        return self._pool.submit(self._answers, chunk)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in self._all:
            process.close()

    def _answers(self, chunk: Sequence[Task]) -> list[Any]:
        process = self._free.get()
        try:
            return process.answers(chunk)
        finally:
            self._free.put(process)


class _Dask:
    """The workers of a Dask cluster.

    An image cannot be the reason why they die, since it is read in a process of its own; then its chunk is read here.
    """

    def __init__(self, address: str) -> None:
        self._cluster = DaskCluster(address)

    @property
    def number(self) -> int:
        """Number of the workers' threads."""
        return self._cluster.number

    def submit(self, chunk: Sequence[Task]) -> Pending[list[Any]]:
        return self._cluster.submit(answers_apart, chunk, if_lost=partial(answers_apart, chunk))

    def close(self) -> None:
        self._cluster.close(tidy=close_all)


_Readers = _Processes | _Dask


def _chunks(tasks: Iterable[Task], size: int) -> Iterator[Sequence[Task]]:
    tasks = iter(tasks)
    while chunk := list(itertools.islice(tasks, size)):
        yield chunk
