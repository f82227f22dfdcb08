"""A scan over the workers of a Dask cluster gives the manifest of a local scan, also when a worker dies."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from medpixcl.data.scan import scan_to_file
from tests.data.dicom_files import write_series
from tests.data.scanned import picture

dask = pytest.importorskip("dask", reason="needs the extra dask")
distributed = pytest.importorskip("distributed", reason="needs the extra dask")
NUMBER = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough files for many chunks, of all kinds."""
    root = tmp_path_factory.mktemp("images")
    for number in range(NUMBER):
        picture(root / f"p{number % 7}" / f"{number}.png", number)
    (root / "p0" / "copy.png").write_bytes((root / "p1" / "1.png").read_bytes())
    (root / "p0" / "notes.txt").write_text("no image")
    for series in range(2):
        write_series(root / f"ct{series}", np.random.default_rng(series).integers(0, 99, (5, 6, 5)))
    return root


@pytest.fixture
def cluster(tmp_path: Path) -> "Iterator[distributed.LocalCluster]":
    """A scheduler with two workers of one thread, in processes forked from one that has imported all they need."""
    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        distributed.utils.get_mp_context().set_forkserver_preload(["distributed", "medpixcl.data.reading_process"])
        options = {"dashboard_address": None, "local_directory": str(tmp_path), "silence_logs": logging.CRITICAL}
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, **options) as cluster:
            yield cluster


def kill_one_soon(cluster: "distributed.LocalCluster", killed: list[int]) -> threading.Thread:
    """Kill a worker as soon as it has done something of the scan."""

    def kill() -> None:
        with distributed.Client(cluster.scheduler_address) as client:
            while not client.processing() or not any(client.processing().values()):
                time.sleep(0.01)
            pids = client.run(os.getpid)
            os.kill(pid := next(iter(pids.values())), signal.SIGKILL)
            killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


def test_two_workers_give_the_manifest_of_a_local_scan_and_one_may_die(
    folder: Path, tmp_path: Path, cluster: "distributed.LocalCluster"
) -> None:
    scan_to_file(folder, tmp_path / "local.jsonl", spacing_mm=1.0)
    scan_to_file(folder, tmp_path / "dask.jsonl", spacing_mm=1.0, scheduler=cluster.scheduler_address)
    local = (tmp_path / "local.jsonl").read_text()
    assert (tmp_path / "dask.jsonl").read_text() == local
    assert local.count('"image"') == NUMBER + 3

    killed: list[int] = []
    thread = kill_one_soon(cluster, killed)
    scan_to_file(folder, tmp_path / "killed.jsonl", spacing_mm=1.0, scheduler=cluster.scheduler_address)
    assert killed  # before the scan ended
    thread.join()
    assert (tmp_path / "killed.jsonl").read_text() == local
