"""A DICOM series to a tensor with its affine, against MONAI's ``LoadImage``.

``python benchmarks/bench_reading.py [--slices 200] [--size 512] [--json FILE] [--rounds 3]``

The series is written to a temporary folder: 16-bit CT slices, each with a header of about 250 elements. Files come from
the page cache, so that what is measured is the work of the processor. All readers give the same voxels and affine,
checked before anything is timed.

Holds: MONAI's ITKReader takes at least 3.5 times as long.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import timing  # first, for one thread  # isort: skip
import itk
import numpy as np
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from torch import Tensor

from medpixcl.data.images import read_image

_PRIVATE = 200


def write_series(folder: Path, slices: int, size: int) -> None:
    """CT slices of noise, 1.25 mm apart, with as many elements as scanners write."""
    generator = np.random.default_rng(0)
    series = generate_uid()
    for number in range(slices):
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = CTImageStorage, generate_uid(), "CT"
        dataset.StudyInstanceUID = dataset.SeriesInstanceUID = dataset.FrameOfReferenceUID = series
        dataset.ImageType, dataset.SeriesNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 1
        dataset.InstanceNumber, dataset.SliceThickness = number + 1, 1.25
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.7, 0.7]
        dataset.ImagePositionPatient = [-150.0, -150.0, 1.25 * number]
        dataset.Rows = dataset.Columns = size
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
        block = dataset.private_block(0x0029, "BENCH", create=True)
        for element in range(_PRIVATE):
            block.add_new(element, "LO", f"value {element}")
        dataset.PixelData = generator.integers(0, 3000, (size, size), dtype=np.int16).tobytes()
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def readers(folder: Path) -> dict[str, Any]:
    """Candidates: each gives a tensor (i, j, k); SimpleITK without its affine."""
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return {
        "ours": partial(read_image, folder),
        "MONAI ITKReader": partial(LoadImage(reader="ITKReader"), str(folder)),
        "MONAI PydicomReader": partial(LoadImage(reader="PydicomReader"), str(folder)),
        "SimpleITK": partial(by_simpleitk, folder),
    }


def by_simpleitk(folder: Path) -> Tensor:
    """SimpleITK's series reader, as float32."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    reader.SetOutputPixelType(SimpleITK.sitkFloat32)
    return torch.from_numpy(SimpleITK.GetArrayFromImage(reader.Execute()).transpose())


def check_volumes(results: dict[str, MetaTensor]) -> dict[str, float]:
    """Greatest difference of voxels to ours, and of the affine to that of MONAI's ITKReader."""
    ours, itk_read = results["ours"], results["MONAI ITKReader"]
    errors = {
        name: float((torch.as_tensor(found).squeeze(0) - ours.as_tensor()[0]).abs().max())
        for name, found in results.items()
    }
    errors["affine"] = float((ours.affine - itk_read.affine).abs().max())
    if max(errors.values()) > 1e-4:
        raise SystemExit(f"the readers disagree: {errors}")
    return errors


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_series(Path(folder), options.slices, options.size)
        title = f"series of {options.slices} slices of {options.size} x {options.size}"
        candidates = readers(Path(folder))
        table = timing.compare(title, candidates, reference="ours", check=check_volumes, rounds=options.rounds)
    timing.show(table)
    print("  " + ", ".join(f"{name}: {error:.2g}" for name, error in table["errors"].items()))
    if options.json:
        timing.save(options.json, [table], packages=["torch", "monai", "pydicom", "SimpleITK", "itk"])


if __name__ == "__main__":
    main()
