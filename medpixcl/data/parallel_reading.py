"""Read many images: here, in several processes, or over a Dask cluster; the results are the same and in order."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from medpixcl._cpus import available_cpus
from medpixcl.data.dicom_header import read_dataset
from medpixcl.data.examination import Examination, Usable, examine
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.reading_process import ReadingProcess, close_all, examine_apart
from medpixcl.data.unusable import Unusable
from medpixcl.data.volumes import ITK_SUFFIXES

if TYPE_CHECKING:
    import distributed

_Result = Usable | Unusable
_CHUNK = 32
_FEW_IMAGES, _FEW_BYTES = 500, 200_000_000
"""Less is read in this process, because other processes take seconds to start."""
_AHEAD = 4
"""Chunks given to each worker before the first one is awaited."""


def examine_all(
    tasks: Sequence[Examination], *, workers: int | None = None, scheduler: str | None = None
) -> Iterator[_Result]:
    """Read images and yield what was found, in the order of the images.

    A reader that may crash runs in a process of its own, always: whatever it does costs one image.

    Args:
        tasks: Images to read.
        workers: Number of reading processes, each with one thread. The default is one for each CPU that this process
            may use; a few images are read in this process.
        scheduler: Address of a Dask scheduler whose workers read, such as ``tcp://10.0.0.1:8786``; they must see the
            files under the same paths.

    Raises:
        ValueError: If ``workers`` is not positive.
        ModuleNotFoundError: If ``scheduler`` is given and Dask is not installed.
        OSError: If the scheduler does not answer.
    """
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise ValueError(f"workers is {workers!r}; expected a whole number of at least 1.")
    if scheduler is not None:
        yield from _over_dask(tasks, scheduler)
    elif workers is None and _are_few(tasks):
        for task in tasks:
            yield from examine_apart([task]) if _may_crash(task) else [examine(task)]
    else:
        yield from _over_processes(tasks, min(workers or available_cpus(), max(1, len(tasks))))


def _are_few(tasks: Sequence[Examination]) -> bool:
    if len(tasks) > _FEW_IMAGES:
        return False
    return sum(file.stat().st_size for task in tasks for file in task.source.files if file.exists()) < _FEW_BYTES


def _may_crash(task: Examination) -> bool:
    """True for readers in C++ that damaged files bring down: ITK, and the decoders of compressed DICOM."""
    files = (task.source.files[0], *(one.path for one in task.maps))
    return any(file.name.lower().endswith(ITK_SUFFIXES) or _is_compressed_dicom(file) for file in files)


def _is_compressed_dicom(file: Any) -> bool:
    try:
        return read_dataset(file, stop_before_pixels=True, specific_tags=[]).file_meta.TransferSyntaxUID.is_compressed
    except (ImageFileError, OSError, ValueError):
        return False  # no DICOM, or so damaged that its pixels are never reached


def _over_processes(tasks: Sequence[Examination], workers: int) -> Iterator[_Result]:
    processes = [ReadingProcess() for _ in range(workers)]
    free: SimpleQueue[ReadingProcess] = SimpleQueue()
    for process in processes:
        free.put(process)

    def read(chunk: Sequence[Examination]) -> list[_Result]:
        process = free.get()
        try:
            return process.examine(chunk)
        finally:
            free.put(process)

    pool = ThreadPoolExecutor(workers)
    try:
        yield from _in_order(_chunks(tasks, workers), lambda chunk: pool.submit(read, chunk), workers * _AHEAD)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.close()


def _over_dask(tasks: Sequence[Examination], address: str) -> Iterator[_Result]:
    try:
        import distributed
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "a scan over Dask needs the package distributed: pip install 'medpixcl[dask]'", name="distributed"
        ) from None
    with distributed.Client(address) as client:
        workers = max(1, sum(client.nthreads().values()))
        try:
            yield from _in_order(_chunks(tasks, workers), lambda chunk: _DaskFuture(client, chunk), workers * _AHEAD)
        finally:
            client.run(close_all, on_error="ignore")


class _DaskFuture:
    """One chunk at a Dask worker; if its workers die again and again, it is read here.

    An image cannot be the reason, since it is read in a process of its own.
    """

    def __init__(self, client: "distributed.Client", chunk: Sequence[Examination]) -> None:
        self.chunk = chunk
        self.future = client.submit(examine_apart, chunk, pure=False, retries=3)

    def result(self) -> list[_Result]:
        import distributed

        try:
            return self.future.result()
        except distributed.KilledWorker:
            return examine_apart(self.chunk)


def _in_order(
    chunks: Iterator[Sequence[Examination]],
    submit: Callable[[Sequence[Examination]], "Future[list[_Result]] | _DaskFuture"],
    ahead: int,
) -> Iterator[_Result]:
    """Results in order, with a limited number of chunks on their way."""
    pending: deque[Future[list[_Result]] | _DaskFuture] = deque()
    for chunk in chunks:
        pending.append(submit(chunk))
        if len(pending) >= ahead:
            yield from pending.popleft().result()
    while pending:
        yield from pending.popleft().result()


def _chunks(tasks: Sequence[Examination], workers: int) -> Iterator[Sequence[Examination]]:
    size = max(1, min(_CHUNK, len(tasks) // (_AHEAD * workers)))
    return (tasks[start : start + size] for start in range(0, len(tasks), size))
