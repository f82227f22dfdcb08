"""A scan of many small files: seconds, images a second, memory, and the same again when nothing changed.

``python benchmarks/bench_scan.py [--json FILE] [--images 20000 100000] [--series 100] [--workers 2] [--dask]``

The files are made on the spot, on the disk of the temporary folder: pictures of 16 x 16 that differ, 33 to a folder;
and CT series of 100 slices of 64 x 64. Every scan is a process of its own, with reading processes beside it. Its memory
is its largest resident size, less that after the imports.

With ``--dask`` the largest set of pictures is scanned by two Dask workers on this machine, too, and once more with one
of them killed when a third of the images is read.

Holds: the second scan takes at most a twentieth of the first, and every scan of the same files gives the same manifest.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medpixcl.data.scan import scan_to_file

SMALLEST_FACTOR = 20
SLICES, PICTURES = 100, 33
"""Files to a folder."""


def write_pictures(root: Path, number: int) -> Path:
    """Pictures of noise."""
    random = np.random.default_rng(0)
    for one in range(number):
        folder = root / f"patient{one // PICTURES:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        values = random.integers(0, 255, (16, 16), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"image{one % PICTURES:03d}.png", compress_level=1)
    return root


def write_series(root: Path, number: int) -> Path:
    """CT series of noise, two to a patient."""
    random = np.random.default_rng(0)
    for series in range(number):
        folder = root / f"patient{series // 2:03d}" / f"ct{series % 2}"
        folder.mkdir(parents=True)
        for place in range(SLICES):
            values = random.integers(0, 2000, (64, 64)).astype("<u2")
            ct_slice(series, place, values).save_as(folder / f"im{place:04d}.dcm", enforce_file_format=True)
    return root


def ct_slice(series: int, place: int, values: np.ndarray) -> Dataset:
    """One slice with the elements that scanners write."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, f"1.2.826.9.{series}.{place}"
    one.StudyInstanceUID, one.SeriesInstanceUID = f"1.2.826.8.{series}", f"1.2.826.7.{series}"
    one.FrameOfReferenceUID, one.PatientID, one.Modality = f"1.2.826.6.{series}", f"P{series // 2}", "CT"
    one.ImageType, one.SeriesNumber, one.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], series, place + 1
    one.SliceThickness, one.KVP, one.ConvolutionKernel = 2, 120, "B30"
    one.Rows = one.Columns = 64
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit, one.PixelRepresentation, one.RescaleSlope, one.RescaleIntercept = 15, 0, 1, -1024
    one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [-100, -100, 2.0 * place]
    one.PixelSpacing, one.PixelData = [0.8, 0.8], values.tobytes()
    return one


def timed_scan(folder: str, output: str, workers: str) -> None:
    """Scan once and print what it took, as JSON: the work of a process of its own."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    summary = scan_to_file(folder, output, spacing_mm=1.0, workers=int(workers))
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"images": summary.images, "seconds": seconds, "mb": grown / 1024}))


def measured(folder: Path, output: Path, workers: int, files: int) -> dict[str, Any]:
    """First and second scan of a folder."""
    words = [sys.executable, __file__, "--one", str(folder), str(output), str(workers)]
    scans, texts = [], []
    for _ in range(2):
        found = subprocess.run(words, stdout=subprocess.PIPE, check=True, text=True).stdout
        scans.append(json.loads(found.splitlines()[-1]))
        texts.append(output.read_bytes())
    assert texts[0] == texts[1], f"the second scan of {folder} gives another manifest"
    factor = scans[0]["seconds"] / scans[1]["seconds"]
    rate = files / scans[0]["seconds"]
    result = {"files": files, "first": scans[0], "second": scans[1], "factor": factor, "files_per_s": rate}
    took = [f"{one['seconds']:.2f} s and {one['mb']:.0f} MB" for one in scans]
    print(f"{folder.name}: {files} files, first scan {took[0]} ({rate:.0f} files/s), second {took[1]}, ", end="")
    print(f"{factor:.0f} times faster", flush=True)
    return result


def over_dask(folder: Path, output: Path, local: bytes) -> None:
    """Scan with two Dask workers, and again with one that is killed on the way."""
    import distributed

    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        for name, progress in (("two workers", None), ("one of them killed", killing_one(address))):
            output.unlink(missing_ok=True)
            start = time.perf_counter()
            scan_to_file(folder, output, spacing_mm=1.0, scheduler=address, progress=progress)
            assert output.read_bytes() == local, f"{name}: another manifest"
            print(f"Dask, {name}: {time.perf_counter() - start:.1f} s, the same manifest", flush=True)


def killing_one(address: str) -> Callable[[int, int], None]:
    """Progress that kills a worker when a third of the images is read."""
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        if not killed and done > total / 3:
            import distributed

            with distributed.Client(address, set_as_default=False) as client:
                killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    return progress


def main() -> None:
    """Measure, print, and check what holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[20_000, 100_000])
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--dask", action="store_true")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = write_series(root / "series", options.series)
        results["series"] = measured(folder, root / "series.jsonl", options.workers, options.series * SLICES)
        for number in options.images:
            name = f"pictures_{number}"
            folder = write_pictures(root / name, number)
            results[name] = measured(folder, root / f"{name}.jsonl", options.workers, number)
        small, large = results[f"pictures_{options.images[0]}"], results[name]
        if large["files"] > small["files"]:
            more = (large["first"]["mb"] - small["first"]["mb"]) * 2**20 / (large["files"] - small["files"])
            print(f"memory of the first scan for each further picture: {more:.0f} bytes")
        if options.dask:
            over_dask(folder, root / "dask.jsonl", (root / f"{name}.jsonl").read_bytes())
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    slow = [name for name, one in results.items() if one["factor"] < SMALLEST_FACTOR]
    assert not slow, f"second scan less than {SMALLEST_FACTOR} times faster: {slow}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        timed_scan(*sys.argv[2:])
    else:
        main()
