"""How every bench here measures: one process, one thread, candidates turn by turn, CPU time, ratios.

A bench imports this module before torch and numpy, so that their thread pools start with one thread::

    import timing

    table = timing.compare("box, 32 bins", {"ours": ours, "scikit-image": peer}, reference="ours", check=errors)
    timing.show(table)
    timing.save(path, [table], packages=["torch", "scikit-image"])
"""

import os

for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

import ctypes  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Mapping, Sequence  # noqa: E402
from importlib.metadata import version  # noqa: E402
from pathlib import Path  # noqa: E402
from statistics import median  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402

torch.set_num_threads(1)


def cpu_seconds(action: Callable[[], object]) -> float:
    """CPU time of one call, all threads of the process together."""
    start = time.process_time()
    action()
    return time.process_time() - start


def peak_mib(action: Callable[[], object]) -> float | None:
    """Highest resident memory during a call above that before it, result included; None off Linux with glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or what earlier calls freed would hide what this one takes
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except (OSError, AttributeError):
        return None
    before = _resident_mib("VmRSS")
    result = action()
    peak = _resident_mib("VmHWM") - before
    del result
    return peak


def _resident_mib(field: str) -> float:
    """A line of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def compare(
    title: str,
    candidates: Mapping[str, Callable[[], Any]],
    *,
    reference: str,
    check: Callable[[dict[str, Any]], dict[str, float]],
    rounds: int = 3,
) -> dict[str, Any]:
    """Run every candidate once and check what it gives, once for memory, then all of them in turn, round after round.

    Args:
        title: Of the table.
        candidates: Calls to measure, by name.
        reference: The candidate that the others are divided by.
        check: Takes the results of the first calls (which also compile) and gives errors by name; raises to stop.
        rounds: At least 3.

    Returns:
        Title, reference, rounds, errors, and a row for each candidate: least CPU seconds, their ratio to the reference,
        the median of the ratios of single rounds, peak MiB.
    """
    if rounds < 3:
        raise ValueError(f"rounds is {rounds}; expected at least 3.")
    errors = check({name: action() for name, action in candidates.items()})
    peaks = {name: peak_mib(action) for name, action in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, action in candidates.items():
            seconds[name].append(cpu_seconds(action))
    rows = {
        name: {
            "seconds": min(times),
            "ratio": min(times) / min(seconds[reference]),
            "median_ratio": median(one / other for one, other in zip(times, seconds[reference], strict=True)),
            "peak_mib": peaks[name],
        }
        for name, times in seconds.items()
    }
    return {"title": title, "reference": reference, "rounds": rounds, "errors": errors, "rows": rows}


def show(table: Mapping[str, Any]) -> None:
    """Print a table: ratios first, since only they mean something on another machine."""
    print(f"\n{table['title']}: CPU time as a multiple of '{table['reference']}'")
    for name, row in table["rows"].items():
        peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:10.1f} MiB"
        times = f"{row['ratio']:8.2f} (median {row['median_ratio']:.2f})"
        print(f"  {name:36s} x {times:24s} {1e3 * row['seconds']:10.1f} ms {peak}")


def environment(packages: Sequence[str]) -> dict[str, Any]:
    """Machine, threads, versions, commit."""
    return {
        "python": platform.python_version(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in packages},
        "commit": _git("rev-parse", "HEAD"),
        "clean": _git("status", "--porcelain", "--untracked-files=no") == "",
    }


def _processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(*arguments: str) -> str | None:
    """Answer of git in this repository, None without it."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def save(path: Path, tables: Sequence[Mapping[str, Any]], *, packages: Sequence[str]) -> None:
    """Write tables and environment as JSON."""
    content = {"environment": environment(packages), "tables": list(tables)}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
