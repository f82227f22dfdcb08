"""A second scan opens no DICOM file that is as it was, and gives what a fresh scan gives, whatever changed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan_to_file
from tests.data.dicom_files import NOBODY, write_dicom, write_series
from tests.data.scanned import picture


def noise(seed: int, slices: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 99, (slices, 6, 5))


def hospital(root: Path) -> Path:
    """One folder of each kind: series alone, two in one folder, one over two folders, odd slices, other objects."""
    write_series(root / "alone", noise(0), SeriesInstanceUID="1.1")
    for number in (2, 3):
        for file in write_series(root / "tmp", noise(number), SeriesInstanceUID=f"1.{number}"):
            (root / "both").mkdir(parents=True, exist_ok=True)
            file.rename(root / "both" / f"{number}_{file.name}")
    for number, file in enumerate(write_series(root / "tmp", noise(4, 6), SeriesInstanceUID="1.4")):
        (root / "p" / f"part{number % 2}").mkdir(parents=True, exist_ok=True)
        file.rename(root / "p" / f"part{number % 2}" / file.name)
    write_series(root / "odd", noise(5), SeriesInstanceUID="1.5")
    write_series(root / "odd" / "scout", noise(6, 1), SeriesInstanceUID="1.5", ImageType=["ORIGINAL", "X", "LOCALIZER"])
    write_series(root / "short", noise(7, 2), SeriesInstanceUID="1.7")
    write_series(root / "split" / "a", noise(8, 1), SeriesInstanceUID="1.8")
    write_series(root / "split" / "b", noise(9, 1), SeriesInstanceUID="1.8", origin=(-10, -20, 99))
    write_series(root / "nameless", noise(10), SeriesInstanceUID=None)
    write_dicom(root / "film" / "film.dcm", noise(11)[0], Modality="DX", PixelSpacing=[0.2, 0.2])
    contours(root / "film")
    picture(root / "film" / "shot.png", 12)
    shutil.rmtree(root / "tmp")
    return root


def contours(folder: Path) -> None:
    write_dicom(folder / "contours.dcm", noise(0)[0], Modality="RTSTRUCT")


def changed(file: Path, **elements: object) -> None:
    dataset = dcmread(file)
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(file)


def blind(root: Path, *folders: str) -> None:
    """Fill files with zeros, under the old size and time: whoever opens them finds no image."""
    for file in (one for name in folders for one in (root / name).rglob("*") if one.is_file()):
        status = file.stat()
        file.write_bytes(bytes(status.st_size))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def rescanned(root: Path, output: Path) -> str:
    scan_to_file(root, output, spacing_mm=1.0)
    return output.read_text()


FOLDERS = ("alone", "both", "p", "odd", "short", "split", "nameless", "film")
CHANGES: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "nothing": (lambda root: None, ()),
    "a slice is gone": (lambda root: (root / "alone" / "im021").unlink(), ("alone",)),
    "a slice is moved": (lambda root: changed(root / "alone" / "im021", ImagePositionPatient=[0, 0, 999]), ("alone",)),
    "a slice comes into another folder": (
        lambda root: write_series(root / "late", noise(1, 1), SeriesInstanceUID="1.1", origin=(-10, -20, 40)),
        ("alone",),
    ),
    "slices come to a series that was too short": (
        lambda root: write_series(root / "late", noise(1, 2), SeriesInstanceUID="1.7", origin=(-10, -20, 35)),
        ("short",),
    ),
    "a slice comes to two that were refused": (
        lambda root: write_series(root / "late", noise(1, 1), SeriesInstanceUID="1.8", origin=(-10, -20, 64.5)),
        ("split",),
    ),
    "a series comes into a folder": (
        lambda root: write_series(root / "alone", noise(1, 3), SeriesInstanceUID="1.99", origin=(0, 0, 0)),
        ("alone",),
    ),
    "one of two series of a folder is gone": (
        lambda root: [file.unlink() for file in (root / "both").glob("2_*")],
        ("both",),
    ),
    "contours come into a folder": (lambda root: contours(root / "alone"), ("alone",)),
    "a film comes into a folder": (
        lambda root: write_dicom(root / "alone" / "x", noise(1)[0], Modality="DX", PixelSpacing=[1, 1]),
        ("alone",),
    ),
    "contours are gone": (lambda root: (root / "film" / "contours.dcm").unlink(), ()),
    "the scout is gone": (lambda root: shutil.rmtree(root / "odd" / "scout"), ("odd",)),
    "another series is gone": (lambda root: shutil.rmtree(root / "alone"), ("alone",)),
    "a folder is renamed": (lambda root: (root / "alone").rename(root / "named"), ("alone", "named")),
    "a part is renamed": (lambda root: (root / "p" / "part1").rename(root / "p" / "part2"), ("p",)),
    "a slice comes to a film": (
        lambda root: write_series(root / "film", noise(1, 1), SeriesInstanceUID="1.1", origin=(-10, -20, 40)),
        ("alone", "film"),
    ),
    "a slice of none comes": (
        lambda root: write_series(root / "nameless", noise(1, 1), SeriesInstanceUID=None, origin=(0, 0, 0)),
        ("nameless",),
    ),
}


@pytest.mark.parametrize(
    ("change", "suffix"), [*((name, ".jsonl") for name in CHANGES), ("a slice comes into another folder", ".json")]
)
def test_only_what_a_change_touches_is_opened_again(tmp_path: Path, change: str, suffix: str) -> None:
    root, output = hospital(tmp_path / "images"), tmp_path / f"m{suffix}"
    rescanned(root, output)
    act, touched = CHANGES[change]
    act(root)
    fresh = rescanned(root, tmp_path / f"fresh{suffix}")
    blind(root, *(name for name in FOLDERS if name not in touched))
    assert rescanned(root, output) == fresh
    assert rescanned(root, output) == fresh
    assert NOBODY not in fresh


def test_the_hospital_has_what_it_is_for(tmp_path: Path) -> None:
    rescanned(hospital(tmp_path / "images"), tmp_path / "m.json")
    manifest = Manifest.read(tmp_path / "m.json")
    images = [one["image"] for one in manifest.training]
    assert len(images) == 8
    assert [one for one in images if isinstance(one, str)] == [
        "images/alone", "images/film/film.dcm", "images/film/shot.png", "images/nameless", "images/odd",
    ]  # fmt: skip
    assert {one["path"] for one in manifest.rejected} == {
        "images/film/contours.dcm", "images/odd/scout/im000", "images/short", "images/split",
    }  # fmt: skip
    (split,) = (one for one in manifest.rejected if one["path"] == "images/split")
    assert split["files"] == ["a/im000", "b/im000"]
    blind(tmp_path / "images", *FOLDERS)
    scan_to_file(tmp_path / "images", tmp_path / "m.json", spacing_mm=1.0, check_content=True)
    assert not Manifest.read(tmp_path / "m.json").training


def test_all_but_one_of_a_folder_of_two_series_is_left_alone(tmp_path: Path) -> None:
    root, output = hospital(tmp_path / "images"), tmp_path / "m.jsonl"
    (root / "both" / "3_im000").rename(root / "single")
    rescanned(root, output)
    (root / "single").unlink()
    assert rescanned(root, output) == rescanned(root, tmp_path / "fresh.jsonl")


def test_what_a_decoder_could_not_read_is_tried_again(tmp_path: Path) -> None:
    for file in write_series(tmp_path / "ct", noise(0)):
        dataset = dcmread(file)
        dataset.PixelData = encapsulate([b"no JPEG at all"])
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        dataset.save_as(file)
    write_series(tmp_path / "short", noise(0, 2), SeriesInstanceUID="1.7")
    scan_to_file(tmp_path, tmp_path / "m.json")
    stamped = {one["path"]: "stamp" in one for one in Manifest.read(tmp_path / "m.json").rejected}
    assert stamped == {"ct": False, "short": True}
