"""CPUs that a process may use, with a container's limits as Linux writes them."""

import math
import os

import pytest

from medpixcl import _cpus
from medpixcl._cpus import available_cpus, cpu_quota, set_threads


def write(folder, **files):
    (folder / "cpu").mkdir()
    for name, text in files.items():
        (folder / name.replace("__", "/").replace("_dot_", ".")).write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu_dot_max": "150000 100000"}, 1.5),
        ({"cpu_dot_max": "max 100000"}, math.inf),
        ({"cpu__cpu_dot_cfs_quota_us": "400000", "cpu__cpu_dot_cfs_period_us": "100000"}, 4),
        ({"cpu__cpu_dot_cfs_quota_us": "-1", "cpu__cpu_dot_cfs_period_us": "100000"}, math.inf),
        ({}, math.inf),
    ],
)
def test_quota(tmp_path, files, expected):
    assert cpu_quota(write(tmp_path, **files)) == expected


def test_threads_stay_below_the_quota(monkeypatch):
    monkeypatch.setattr(_cpus, "_cpus", lambda: 64)
    monkeypatch.setattr(_cpus, "cpu_quota", lambda: 1.5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    set_threads()
    assert (available_cpus(), os.environ["OMP_NUM_THREADS"]) == (2, "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    set_threads()
    assert os.environ["OMP_NUM_THREADS"] == "8", "the user's choice stays"


def test_waiting_threads_sleep_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    set_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    set_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_no_limit_sets_no_number_of_threads(monkeypatch):
    monkeypatch.setattr(_cpus, "cpu_quota", lambda: math.inf)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    set_threads()
    assert "OMP_NUM_THREADS" not in os.environ
    assert available_cpus() == _cpus._cpus() >= 1
