"""A scan over the workers of a Dask cluster gives the manifest of a local scan, also when a worker dies."""

from pathlib import Path

import numpy as np
import pytest

from medpixcl.data.scan import scan_to_file
from tests.dask_workers import one_killed, two_workers
from tests.data.dicom_files import write_series
from tests.data.scanned import picture

NUMBER = 150


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


def test_two_workers_give_the_manifest_of_a_local_scan_and_one_may_die(folder: Path, tmp_path: Path) -> None:
    scan_to_file(folder, tmp_path / "local.jsonl", spacing_mm=1.0)
    local = (tmp_path / "local.jsonl").read_text()
    assert local.count('"image"') == NUMBER + 3
    with two_workers(tmp_path, ["medpixcl.data.reading_process"]) as address:
        scan_to_file(folder, tmp_path / "dask.jsonl", spacing_mm=1.0, scheduler=address)
        assert (tmp_path / "dask.jsonl").read_text() == local
        with one_killed(address):
            scan_to_file(folder, tmp_path / "killed.jsonl", spacing_mm=1.0, scheduler=address)
    assert (tmp_path / "killed.jsonl").read_text() == local
