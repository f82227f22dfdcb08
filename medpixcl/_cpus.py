"""Number of CPUs that this process may use, and how torch's threads share them."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""Folder in which Linux gives a container's limits."""


def available_cpus() -> int:
    """Number of CPUs that the process may run on, or fewer where a container's quota gives less CPU time."""
    quota = cpu_quota()
    return _cpus() if quota == math.inf else min(_cpus(), max(1, math.ceil(quota)))


def cpu_quota(folder: Path = CGROUPS) -> float:
    """CPU time that a container may use, in CPUs; infinite without a limit.

    Args:
        folder: Mounted control groups, of version 2 (``cpu.max``) or 1 (``cpu/cpu.cfs_quota_us``).
    """
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((folder / name).read_text(encoding="ascii") for name in files).split()
        except (OSError, ValueError):
            continue
        return int(quota) / int(period) if quota not in ("max", "-1") else math.inf
    return math.inf


def set_threads() -> None:
    """Let torch's threads leave the CPUs to others: no more of them than a container's quota gives, none that spins.

    A thread that waits for the others spins by default. Where another process wants the CPU, that thread keeps the one
    it waits for from running, and a training step takes several times as long as with one thread. ``OMP_NUM_THREADS``
    and ``OMP_WAIT_POLICY`` stay as the user set them. To be called before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if (cpus := available_cpus()) < _cpus():
        os.environ.setdefault("OMP_NUM_THREADS", str(cpus))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
