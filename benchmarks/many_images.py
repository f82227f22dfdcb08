"""Landmarks in many small cephalograms: memory over time, kills, Dask workers and parts; the files must be equal.

``python benchmarks/many_images.py [--images 2000] [--template 125] [--json FILE]``

The pictures are those of ceph_isbi2015 at a quarter of their size and 2 mm, as often as needed, each time with other
noise; the template is one of them. Four times `medpixcl match` searches them: in one process, which reports its
resident memory on the way; in one that is killed by SIGKILL three times and goes on; on two Dask workers, one of which
is killed; in four parts that are put together. Holds: landmarks.csv, landmarks.json and rejected.csv are the same each
time, and the memory after all images is at most a tenth more than after a tenth of them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ceph import DATA
from PIL import Image

COMPARED = ("landmarks.csv", "landmarks.json", "rejected.csv")
SPACING_MM = 2.0
SHRINK = 4
WORDS = [sys.executable, "-m", "medpixcl"]


def write_pictures(source: Path, folder: Path, number: int) -> None:
    """Small pictures that differ by noise."""
    files, random = sorted((source / "images").glob("*.png")), np.random.default_rng(0)
    for one in range(number):
        with Image.open(files[one % len(files)]) as image:
            small = image.convert("L").reduce(SHRINK)
        noisy = np.asarray(small, dtype=float) + random.normal(0, 3, (small.height, small.width))
        place = folder / f"clinic{one % 7}" / f"{one:05d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(place, compress_level=1)


def write_template(source: Path, folder: Path, name: str) -> list[str]:
    """The template at the same size, with its landmarks in mm; options that name both."""
    with Image.open(source / "images" / f"{name}.png") as image:
        image.convert("L").reduce(SHRINK).save(folder / "template.png")
    lines = (source / "landmarks.csv").read_text().splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
    mine = [row for row in rows if Path(row["image"]).stem == name]
    table = [f"template.png,{row['landmark']},{float(row['x_px']) / SHRINK},{float(row['y_px']) / SHRINK},{SPACING_MM}"
             for row in mine]  # fmt: skip
    (folder / "template.csv").write_text("\n".join(["image,landmark,x_px,y_px,spacing_mm", *table, ""]))
    return ["--template", str(folder / "template.png"), "--landmarks", str(folder / "template.csv")]


def done(output: Path) -> int:
    """Number of images that a run has searched."""
    lines = output / "run.jsonl"
    return lines.read_bytes().count(b'"image": ') if lines.is_file() else 0


@contextmanager
def started(words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs beside this one, and must end well."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        yield process
        process.wait()
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"{' '.join(words)} ended with {process.returncode}")


def wait_for(number: int, output: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until so many images are searched, or the command ends."""
    while done(output) < number and process.poll() is None:
        time.sleep(0.05)


def resident_mib(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def in_one_process(words: Sequence[str], output: Path, number: int) -> dict[str, Any]:
    """Memory after every tenth of the images."""
    start, memory = time.monotonic(), []
    with started([*words, "-o", str(output)]) as process:
        for tenth in range(1, 10):
            wait_for(number * tenth // 10, output, process)
            if process.poll() is not None:
                sys.exit("the command ended before its time")
            memory.append(round(resident_mib(process)))
    return {"seconds": round(time.monotonic() - start), "resident_mib": memory}


def killed(words: Sequence[str], output: Path, number: int) -> dict[str, Any]:
    """Three kills, each after a further quarter of the images."""
    for quarter in (1, 2, 3):
        with started([*words, "-o", str(output), "--continue"]) as process:
            wait_for(number * quarter // 4, output, process)
            process.kill()
    with started([*words, "-o", str(output), "--continue"]):
        pass
    return {"kills": 3}


def on_dask(words: Sequence[str], output: Path, number: int) -> dict[str, Any]:
    """Two workers, one of which is killed after half of the images."""
    import distributed

    start = time.monotonic()
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
        started([*words, "-o", str(output), "--scheduler", cluster.scheduler_address]) as process,
    ):
        wait_for(number // 2, output, process)
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
    return {"seconds": round(time.monotonic() - start)}


def in_parts(words: Sequence[str], output: Path, number: int) -> dict[str, Any]:
    """Four parts, one after the other."""
    for part in range(4):
        with started([*words, "-o", str(output), "--num-parts", "4", "--part-id", str(part)]):
            pass
    start = time.monotonic()
    with started([*words, "-o", str(output), "--num-parts", "4"]):
        pass
    return {"seconds to put them together": round(time.monotonic() - start)}


def main() -> None:
    """Search in all ways, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--template", default="125")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    table: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pictures(options.data / "ceph_isbi2015", folder / "images", options.images)
        manifest = folder / "images.jsonl"
        scan = ["scan", str(folder / "images"), "-o", str(manifest), "--spacing-mm", str(SPACING_MM)]
        subprocess.run([*WORDS, *scan], stdout=subprocess.DEVNULL, check=True)
        template = write_template(options.data / "ceph_isbi2015", folder, options.template)
        words = [*WORDS, "match", *template, "--images", str(manifest), "--format", "csv,json"]
        words += ["--spacing-mm", str(SPACING_MM)]
        for way in (in_one_process, killed, on_dask, in_parts):
            table[way.__name__] = way(words, folder / way.__name__, options.images)
            same = [(folder / way.__name__ / name).read_bytes() == (folder / "in_one_process" / name).read_bytes()
                    for name in COMPARED]  # fmt: skip
            table[way.__name__]["same files"] = all(same)
            print(way.__name__, json.dumps(table[way.__name__]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    memory = table["in_one_process"]["resident_mib"]
    if not all(one["same files"] for one in table.values()) or memory[-1] > 1.1 * memory[0]:
        sys.exit("files differ, or the memory grows")


if __name__ == "__main__":
    main()
