"""What a scan says of a series with gantry tilt that it resamples, and that it does so once."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medpixcl.data.class_labels import ClassTable
from medpixcl.data.gantry_tilt import TiltResampling
from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan, scan_to_file
from medpixcl.data.sources import SeriesSource
from tests.data.dicom_files import write_series
from tests.data.scanned import reasons

SUFFIXES = pytest.mark.parametrize("suffix", [".json", ".jsonl"])


def tilted(folder: Path, seed: int = 0, **elements: object) -> list[Path]:
    volume = np.random.default_rng(seed).integers(0, 99, (5, 8, 7))
    return write_series(folder, volume, step=(0, 0.6, 2.5), SeriesInstanceUID=f"1.{seed}", **elements)


def rescanned(root: Path, output: Path, **options: object) -> Manifest:
    scan_to_file(root / "images", output, resample_tilt=output.with_name("new"), **options)
    return Manifest.read(output)


def state(file: Path) -> tuple[int, int]:
    return file.stat().st_ino, file.stat().st_mtime_ns


@SUFFIXES
def test_the_volume_keeps_its_modality_and_is_written_once(tmp_path: Path, suffix: str) -> None:
    files, output = tilted(tmp_path / "images" / "p" / "ct"), tmp_path / f"m{suffix}"
    first = rescanned(tmp_path, output)
    (entry,) = first.training
    assert (entry["image"], entry["modality"], entry["resampled_from"]) == ("new/p/ct.nii.gz", "CT", "images/p/ct")
    volume = tmp_path / "new" / "p" / "ct.nii.gz"
    before, content = state(volume), volume.read_bytes()
    assert rescanned(tmp_path, output) == first
    assert state(volume) == before

    volume.unlink()
    assert rescanned(tmp_path, output).training[0]["sha256"] == entry["sha256"]
    assert volume.read_bytes() == content
    assert state(volume) != before

    files[0].write_bytes(tilted(tmp_path / "other", seed=9)[0].read_bytes())
    for other in files[1:]:
        other.write_bytes((tmp_path / "other" / other.name).read_bytes())
    assert rescanned(tmp_path, output).training[0]["sha256"] != entry["sha256"]


@SUFFIXES
def test_other_options_are_other_manifests(tmp_path: Path, suffix: str) -> None:
    tilted(tmp_path / "images" / "ct")
    output = tmp_path / f"m{suffix}"
    scan_to_file(tmp_path / "images", output)
    assert "gantry tilt" in Manifest.read(output).rejected[0]["reason"]
    assert not rescanned(tmp_path, output).rejected
    scan_to_file(tmp_path / "images", output, resample_tilt=tmp_path / "deep" / "new")
    assert Manifest.read(output).training[0]["image"] == "deep/new/ct.nii.gz"
    assert (tmp_path / "deep" / "new" / "ct.nii.gz").exists()
    scan_to_file(tmp_path / "images", output)
    assert "gantry tilt" in Manifest.read(output).rejected[0]["reason"]


def test_a_new_series_beside_others_does_not_take_their_volumes(tmp_path: Path) -> None:
    tilted(tmp_path / "images" / "p", seed=1)
    assert [one["image"] for one in rescanned(tmp_path, tmp_path / "m.jsonl").training] == ["new/p.nii.gz"]
    first = (tmp_path / "new" / "p.nii.gz").read_bytes()
    for file in tilted(tmp_path / "later", seed=2):
        file.rename(tmp_path / "images" / "p" / f"z{file.name}")
    manifest = rescanned(tmp_path, tmp_path / "m.jsonl")
    assert [one["image"] for one in manifest.training] == ["new/p.nii.gz", "new/p_2.nii.gz"]
    assert [len(one["resampled_from"]) for one in manifest.training] == [5, 5]
    assert (tmp_path / "new" / "p.nii.gz").read_bytes() == first


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond a number of bytes."""
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_volume(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 4000, (5, 64, 64))
    files = write_series(tmp_path / "ct", volume, step=(0, 0.6, 2.5))
    source, resampling = SeriesSource(map(str, files)), TiltResampling(tmp_path / "new", tmp_path)
    old = tmp_path / "new" / "ct.nii.gz"
    old.parent.mkdir()
    old.write_bytes(b"old")
    with full_disk(1000), pytest.raises(OSError, match="File too large"):
        resampling(source)
    assert [one.name for one in old.parent.iterdir()] == ["ct.nii.gz"]
    assert old.read_bytes() == b"old"


KEYS = {
    "absolute": lambda root: root / "images" / "p" / "ct",
    "relative to the table": lambda root: "images/p/ct",
    "end": lambda root: "ct",
    "volume": lambda root: "new/p/ct.nii.gz",
}


@pytest.mark.parametrize("key", KEYS)
def test_tables_reach_the_volume_by_either_path(tmp_path: Path, key: str) -> None:
    tilted(tmp_path / "images" / "p" / "ct")
    tilted(tmp_path / "images" / "q" / "cta", seed=1)
    name = KEYS[key](tmp_path)
    (tmp_path / "s.csv").write_text(f"image,split\n{name},test\nimages/q/cta,train\n")
    manifest = rescanned(tmp_path, tmp_path / "m.json", split=tmp_path / "s.csv")
    assert [one["image"] for one in manifest.test] == ["new/p/ct.nii.gz"]
    assert [one["image"] for one in manifest.training] == ["new/q/cta.nii.gz"]
    assert not manifest.rejected

    (tmp_path / "c.csv").write_text(f"image,label,subject\n{name},1,a\nimages/q/cta,0,b\n")
    ClassTable(tmp_path / "c.csv", "label", "subject").add_to(manifest)
    assert [one["label"] for one in (*manifest.test, *manifest.training)] == [1, 0]
    assert manifest.test[0]["group"] != manifest.training[0]["group"]


def test_labels_lie_where_the_series_lies(tmp_path: Path) -> None:
    for seed, patient in enumerate("pq"):
        tilted(tmp_path / "images" / patient / "ct", seed)
    options = {"resample_tilt": tmp_path / "new"}
    scan_to_file(tmp_path / "images", tmp_path / "m.json", **options)
    for patient in "pq":
        volume = nibabel.load(tmp_path / "new" / patient / "ct.nii.gz")
        (tmp_path / "labels" / patient).mkdir(parents=True)
        nibabel.save(nibabel.Nifti1Image(np.ones(volume.shape, np.uint8), volume.affine),
                     tmp_path / "labels" / patient / "ct.nii.gz")  # fmt: skip
    manifest = scan(tmp_path / "images", labels=tmp_path / "labels", **options)
    assert [one["label"] for one in manifest.training] == ["../labels/p/ct.nii.gz", "../labels/q/ct.nii.gz"]


def test_landmarks_that_training_would_not_find_are_named(tmp_path: Path) -> None:
    tilted(tmp_path / "images" / "p" / "ct")
    (tmp_path / "l.csv").write_text("image,landmark,x_mm,y_mm,z_mm\nimages/p/ct,s,-9,-19,31\n")
    manifest = rescanned(tmp_path, tmp_path / "m.json", landmarks=tmp_path / "l.csv")
    assert manifest.training[0]["landmarks"] is None
    reason = "names 'images/p/ct', a series with gantry tilt, which was resampled; name the volume new/p/ct.nii.gz."
    assert reasons(manifest) == {"l.csv": reason}
    (tmp_path / "l.csv").write_text("image,landmark,x_mm,y_mm,z_mm\nnew/p/ct.nii.gz,s,-9,-19,31\n")
    assert rescanned(tmp_path, tmp_path / "m.json", landmarks=tmp_path / "l.csv").training[0]["landmarks"] == "l.csv"


def test_landmarks_of_a_folder_of_two_tilted_series_belong_to_none(tmp_path: Path) -> None:
    tilted(tmp_path / "images" / "ct", seed=1)
    for file in tilted(tmp_path / "later", seed=2):
        file.rename(tmp_path / "images" / "ct" / f"z{file.name}")
    (tmp_path / "l.csv").write_text("image,landmark,x_mm,y_mm,z_mm\nct,s,-9,-19,31\n")
    manifest = rescanned(tmp_path, tmp_path / "m.json", landmarks=tmp_path / "l.csv")
    assert [one["landmarks"] for one in manifest.training] == [None, None]
    assert "names 'ct', a folder of several volumes" in reasons(manifest)["l.csv"]


def test_a_picture_beside_keeps_its_place(tmp_path: Path) -> None:
    tilted(tmp_path / "images" / "b")
    for name in "ac":
        Image.fromarray(np.random.default_rng(ord(name)).integers(0, 99, (9, 9), dtype=np.uint8)).save(
            tmp_path / "images" / f"{name}.png"
        )
    for _ in range(2):
        manifest = rescanned(tmp_path, tmp_path / "m.json", spacing_mm=1)
        assert [one["image"] for one in manifest.training] == ["images/a.png", "images/c.png", "new/b.nii.gz"]
