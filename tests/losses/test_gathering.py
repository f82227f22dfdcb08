"""Two processes must train exactly like one that sees the whole batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.losses.gathering_process import Network, step

ROOT = Path(__file__).parents[2]
VALID = {
    "as many on both": [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 1]],
    "more on one": [[0, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]],
    "none on the first": [[0, 0, 0, 0], [1, 0, 1, 1], [1, 1, 1, 1]],
    "none on the second": [[1, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]],
    "none": [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "sampled keys": {"exclusion_radius": 2.0},
    "sampled keys in a window": {"window": 3, "distance_slope": 0.1, "distance_cap": 0.5},
    "keys of the image": {"keys": "image"},
    "all cells": {"keys": "cells", "exclusion_radius": 1.0},
}
IMAGES_OF_FIRST = 1


def make_case(valid: list[list[int]], options: dict[str, Any]) -> dict[str, Any]:
    """Three images; the first process gets one of them, the second two."""
    generator = torch.Generator().manual_seed(3)
    random = {"generator": generator, "dtype": torch.float64}
    whole = {
        "query_image": torch.randn(3, 1, 16, 12, **random),
        "anchor_image": torch.randn(3, 1, 16, 12, **random),
        "query": torch.rand(3, 4, 2, **random) * torch.tensor([15.0, 11.0]),
        "positive": torch.rand(3, 4, 2, **random) * torch.tensor([15.0, 11.0]),
        "valid": torch.tensor(valid, dtype=torch.bool),
    }
    cuts = slice(None, IMAGES_OF_FIRST), slice(IMAGES_OF_FIRST, None)
    return {
        "whole": whole,
        "options": options,
        "parts": [{k: v[cut].clone() for k, v in whole.items()} for cut in cuts],
    }


CASES = {f"{v}, {o}": make_case(VALID[v], OPTIONS[o]) for v in VALID for o in OPTIONS}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two gloo processes found, in rank order."""
    folder = tmp_path_factory.mktemp("gathering")
    torch.save(CASES, folder / "case.pt")
    script = Path(__file__).with_name("gathering_process.py")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script)]
    processes = [
        subprocess.Popen(
            [*command, str(rank), "2", str(folder)], env=environment, stderr=subprocess.PIPE, text=True, cwd=folder
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    return [torch.load(folder / f"result-{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_equals_one_process(name: str, results: list[dict[str, Any]]) -> None:
    expected = step(Network(), CASES[name]["whole"], CASES[name]["options"])
    first, second = (result[name] for result in results)
    exact = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close((first["loss"] + second["loss"]) / 2, expected["loss"], **exact)
    torch.testing.assert_close((first["levels"] + second["levels"]) / 2, expected["levels"], **exact)
    for found in (first, second):
        torch.testing.assert_close(found["gradient"], expected["gradient"], **exact)
    if any(any(row) for row in CASES[name]["whole"]["valid"].tolist()):
        assert expected["gradient"]["fine.weight"].any()


def test_gather_keys(results: list[dict[str, Any]]) -> None:
    """One row of the first process, two of the second; the gradient is the sum over both processes."""
    for result in results:
        assert result["gathered"]["keys"].tolist() == [[0.0, 0.0], [10.0, 10.0], [10.0, 10.0]]
    assert results[0]["gathered"]["gradient"].tolist() == [[0.0, 0.0]]
    assert results[1]["gathered"]["gradient"].tolist() == [[3.0, 3.0], [6.0, 6.0]]
