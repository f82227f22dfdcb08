"""A scan gives one manifest for any number of processes, loses no file to a crash, and reads nothing twice."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medpixcl.data import parallel_reading
from medpixcl.data.examination import Examination
from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan, scan_to_file
from tests.data.dicom_files import write_series
from tests.data.scanned import picture, reasons


def deadly(path: Path, modules: Path) -> None:
    """A NRRD, and in a folder of modules a SimpleITK that ends the process on it, as a bug of the real one would."""
    SimpleITK.WriteImage(SimpleITK.Image([4, 4, 4], SimpleITK.sitkUInt8), str(path))
    modules.mkdir()
    (modules / "SimpleITK.py").write_text("import os\n\n\ndef __getattr__(name):\n    os.kill(os.getpid(), 11)\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for number in range(5):
        picture(root / f"p{number}" / "a.png", number)
    (root / "p4" / "copy.png").write_bytes((root / "p3" / "a.png").read_bytes())
    (root / "p0" / "damaged.png").write_bytes(b"\x89PNG\r\n and no more")
    picture(root / "t.png", 9).rename(root / os.fsdecode(b"M\xfcller.png"))
    write_series(root / "ct", np.random.default_rng(0).integers(0, 99, (3, 6, 5)))
    return root


def test_any_number_of_processes_gives_one_manifest_and_a_crash_costs_one_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = scan(folder, spacing_mm=1.0)
    deadly(folder / "p2" / "deadly.nrrd", tmp_path / "modules")
    monkeypatch.syspath_prepend(tmp_path / "modules")  # for the reading process, which takes the path of this one
    (folder / "p2" / "pattern.mhd").write_text("ObjectType = Image\nNDims = 3\nElementDataFile = s%02d.raw 1 8 1\n")
    apart = scan(folder, spacing_mm=1.0, workers=1)
    assert here.training == apart.training
    assert [one["image"] for one in here.training] == [
        "ct", "p0/a.png", "p1/a.png", "p2/a.png", "p3/a.png", "p4/a.png", "p4/copy.png",
    ]  # fmt: skip
    assert [one["duplicate_group"] for one in here.training][-3:] == ["repeat-001", None, "repeat-001"]
    found = reasons(apart)
    assert found.items() >= reasons(here).items()
    assert found.keys() == {"M\\xfcller.png", "p0/damaged.png", "p2/deadly.nrrd", "p2/pattern.mhd"}
    assert "SIGSEGV" in found["p2/deadly.nrrd"]
    assert found["M\\xfcller.png"] == "has a name that is not UTF-8; rename it."
    assert "without the size of its axes" in found["p2/pattern.mhd"]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are read from now on; they are read all the same."""
    read: list[str] = []
    real = parallel_reading.examine

    def examine(task: Examination) -> object:
        read.append(task.source.place.name)
        return real(task)

    monkeypatch.setattr(parallel_reading, "examine", examine)
    return read


@pytest.mark.parametrize("name", ["m.json", "m.jsonl"])
def test_a_second_scan_reads_what_changed(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, output, read = tmp_path / "images", tmp_path / "out" / name, counted(monkeypatch)
    for number in range(4):
        picture(root / f"{number}.png", number)
    (root / "notes.txt").write_text("no image")
    write_series(root / "ct", np.random.default_rng(0).integers(0, 99, (3, 6, 5)))

    def again(**options: object) -> list[str]:
        read.clear()
        summary = scan_to_file(root, output, spacing_mm=1.0, **options)
        fresh = scan(root, spacing_mm=1.0, licence=options.get("licence"))
        fresh.write(tmp_path / "out" / f"fresh_{name}")
        assert summary.rows() == fresh.summary()
        assert output.read_text() == (tmp_path / "out" / f"fresh_{name}").read_text()
        return read[: -summary.images]  # the fresh scan reads all

    assert sorted(again()) == ["0.png", "1.png", "2.png", "3.png", "ct"]
    assert again() == []
    picture(root / "1.png", 11)
    picture(root / "5.png", 0)  # repeats one that is not read again
    (root / "2.png").unlink()
    assert again() == ["1.png", "5.png"]
    os.utime(root / "0.png", (1, 1))
    assert again(check_content=True) == []
    assert again(licence="CC0") != []


def test_settings_that_change_what_is_read_are_never_taken_over(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png", 0)
    output = tmp_path / "m.json"
    scan_to_file(tmp_path / "images", output)
    assert "has no pixel spacing" in Manifest.read(output).rejected[0]["reason"]
    scan_to_file(tmp_path / "images", output, spacing_mm=0.5)
    assert Manifest.read(output).training[0]["spacing_mm"] == [0.5, 0.5]


def test_landmarks_of_an_image_that_is_not_read_again_are_checked(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 0)
    scan_to_file(tmp_path, tmp_path / "m.jsonl", spacing_mm=1.0)
    table = tmp_path / "l.csv"
    table.write_text("image,landmark,x_px,y_px\na.png,1,5,5\n")
    scan_to_file(tmp_path, tmp_path / "m.jsonl", spacing_mm=1.0, landmarks=table)
    assert Manifest.read(tmp_path / "m.jsonl").training[0]["landmarks"] == "l.csv"
    table.write_text("image,landmark,x_px,y_px\na.png,1,50,5\n")
    with pytest.raises(ValueError, match="outside the image"):
        scan_to_file(tmp_path, tmp_path / "m.jsonl", spacing_mm=1.0, landmarks=table)


def test_json_lines_hold_what_json_holds(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png", number)
    (tmp_path / "s.csv").write_text("image,split\n0.png,train\n1.png,val\n2.png,test\n")
    for suffix in ("json", "jsonl"):
        scan_to_file(tmp_path / "images", tmp_path / f"m.{suffix}", spacing_mm=1.0, split=tmp_path / "s.csv")
    lines, whole = Manifest.read(tmp_path / "m.jsonl"), Manifest.read(tmp_path / "m.json")
    assert lines == whole
    assert [json.loads(line).get("section") for line in (tmp_path / "m.jsonl").read_text().splitlines()] == [
        None, "training", "validation", "test",
    ]  # fmt: skip
    (tmp_path / "m.jsonl").write_text('{"name": "x"}\n{"section": "training", "image": "a.png"}\n{"section"\n')
    with pytest.raises(ValueError, match=r"m\.jsonl is not a manifest in JSON Lines \(line 3\)"):
        Manifest.read(tmp_path / "m.jsonl")


def test_a_map_of_two_images_belongs_to_neither(tmp_path: Path) -> None:
    for name in ("images/p1/a.png", "images/p2/a.png", "maps/a.png"):
        picture(tmp_path / name, len(name))
    manifest = scan(tmp_path / "images", spacing_mm=1.0, exogenous={"depth": tmp_path / "maps"})
    assert not manifest.training
    assert "is one of 2 images whose exogenous channel 'depth' could be a.png" in reasons(manifest)["p1/a.png"]


def two_patients(root: Path) -> Sequence[Path]:
    return [picture(root / patient / "ceph.png", seed) for seed, patient in enumerate(("p1", "p2"))]


def test_landmarks_and_splits_go_to_the_image_that_they_name(tmp_path: Path) -> None:
    two_patients(tmp_path / "images")
    (tmp_path / "l.csv").write_text("image,landmark,x_px,y_px\np1/ceph.png,sella,1,2\n")
    manifest = scan(tmp_path / "images", spacing_mm=1.0, landmarks=tmp_path / "l.csv")
    assert [one["landmarks"] for one in manifest.training] == ["../l.csv", None]
    (tmp_path / "l.csv").write_text("image,landmark,x_px,y_px\nceph.png,sella,1,2\n")
    manifest = scan(tmp_path / "images", spacing_mm=1.0, landmarks=tmp_path / "l.csv")
    assert [one["landmarks"] for one in manifest.training] == [None, None]
    assert "names 'ceph.png', which fits 2 images (p1/ceph.png, p2/ceph.png)" in reasons(manifest)["../l.csv"]
    (tmp_path / "s.csv").write_text("image,split\nceph,test\n")
    assert len(scan(tmp_path / "images", spacing_mm=1.0, split=tmp_path / "s.csv").rejected) == 3
