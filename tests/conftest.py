"""Fixtures of all tests: where the real data lie, single-threaded torch in float32, unless a test asks for bfloat16."""

import os
import signal
from pathlib import Path

import pytest
import torch

# Tests compare digits: "auto" means float32 on every CPU, here and in the processes that tests start.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a shell; Ctrl-C is tested, too
    signal.signal(signal.SIGINT, signal.default_int_handler)

DATA = Path(os.environ.get("MEDPIXCL_DATA", Path(__file__).parents[1] / ".." / "shared" / "data")).resolve()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, with the reason."""
    if not DATA.is_dir():
        skip = pytest.mark.skip(reason=f"no real data at {DATA}; set MEDPIXCL_DATA")
        for item in items:
            if "data" in item.keywords:
                item.add_marker(skip)
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Root of the real data sets."""
    return DATA


@pytest.fixture
def generator() -> torch.Generator:
    """Seeded random numbers."""
    return torch.Generator().manual_seed(0)
