"""Any engine can call a finder: it is pickled, and finds in one image what a run finds in it."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from medpixcl import Detector, Landmarks, Matcher
from medpixcl.apps.match import LandmarkFinder
from medpixcl.data.phantoms import write_landmark_phantoms

SHAPE = (64, 56)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_landmark_phantoms(folder, 3, SHAPE)
    return folder


@pytest.fixture(scope="module", params=["matcher", "detector"])
def finder(request: pytest.FixtureRequest, folder: Path) -> LandmarkFinder:
    if request.param == "detector":
        return Detector.from_bundle("cephalometric_landmark_detection", device="cpu")
    matcher = Matcher.from_bundle("xray_landmark_matching", device="cpu")
    return matcher.fit(folder / "phantom_000.png", folder / "landmarks.csv", spacing_mm=1.0)


@pytest.fixture(scope="module")
def expected(finder: LandmarkFinder, folder: Path) -> list[Landmarks]:
    return finder.run([folder / "phantom_001.png", folder / "phantom_002.png"], spacing_mm=1.0).landmarks


def assert_same(found: list[Landmarks], expected: list[Landmarks]) -> None:
    assert [one.image for one in found] == [one.image for one in expected]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.mm, other.mm, rtol=0, atol=1e-4, equal_nan=True)
        assert one.flags == other.flags
        assert one.files == other.files


def test_a_pickled_finder_finds_the_same(finder: LandmarkFinder, folder: Path, expected: list[Landmarks]) -> None:
    copy = pickle.loads(pickle.dumps(finder))
    assert_same([copy(folder / f"phantom_00{number}.png", spacing_mm=1.0) for number in (1, 2)], expected)


def test_an_image_in_memory(finder: LandmarkFinder, folder: Path, expected: list[Landmarks]) -> None:
    from medpixcl import read_image

    found = finder(read_image(folder / "phantom_001.png", spacing_mm=1.0))
    torch.testing.assert_close(found.mm, expected[0].mm, rtol=0, atol=1e-4, equal_nan=True)


def test_one_image_at_a_time(finder: LandmarkFinder, folder: Path) -> None:
    with pytest.raises(ValueError, match=f"there are .* images, and a call searches one; .* call {finder.command}"):
        finder(folder, spacing_mm=1.0)
    with pytest.raises(ValueError, match=r"phantom_009\.png"):
        finder(folder / "phantom_009.png", spacing_mm=1.0)


@pytest.mark.slow
def test_processes(finder: LandmarkFinder, folder: Path, expected: list[Landmarks]) -> None:
    files = [folder / "phantom_001.png", folder / "phantom_002.png"]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = [pool.submit(finder, file, spacing_mm=1.0).result() for file in files]
    assert_same(found, expected)


@pytest.mark.slow
def test_submitit(finder: LandmarkFinder, folder: Path, expected: list[Landmarks], tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    executor = submitit.AutoExecutor(tmp_path / "logs", cluster="local")
    executor.update_parameters(timeout_min=5)
    with executor.batch():
        jobs = [executor.submit(finder, folder / one.image, spacing_mm=1.0) for one in expected]
    assert_same([job.result() for job in jobs], expected)


@pytest.mark.slow
def test_ray(finder: LandmarkFinder, folder: Path, expected: list[Landmarks]) -> None:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        rows = ray.data.from_items([str(folder / one.image) for one in expected])
        found = rows.map(
            lambda row: {"file": row["item"], "mm": finder(row["item"], spacing_mm=1.0).mm.numpy()}
        ).take_all()
    finally:
        ray.shutdown()
    places = {Path(row["file"]).name: row["mm"] for row in found}
    for one in expected:
        np.testing.assert_allclose(places[one.image], one.mm.numpy(), rtol=0, atol=1e-4)
