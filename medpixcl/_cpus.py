"""Number of CPUs that this process may use, and torch's thread count."""

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


def limit_threads() -> None:
    """Let torch, which knows nothing of a container's quota, start no more threads than it gives CPUs.

    ``OMP_NUM_THREADS`` stays as the user set it. To be called before torch is imported.
    """
    if (cpus := available_cpus()) < _cpus():
        os.environ.setdefault("OMP_NUM_THREADS", str(cpus))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
