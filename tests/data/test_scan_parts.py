"""A scan in parts gives the manifest of one scan, and opens nothing twice but what no part saw whole."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medpixcl.data.scan import scan_to_file
from tests.data.dicom_files import write_series
from tests.data.scanned import picture
from tests.data.test_intake import CASES
from tests.data.test_scan_again import header_and_data
from tests.data.test_scan_dicom_again import FOLDERS, blind, hospital, noise
from tests.tiny import medpixcl

PARTS = 3


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """DICOM of all kinds, pictures of which two are alike, a header with its voxels, and files that are no images."""
    root = hospital(tmp_path / "images")
    for number in range(7):
        picture(root / "pictures" / f"{number}.png", number)
    shutil.copy(root / "pictures" / "2.png", root / "pictures" / "copy.png")
    (root / "pictures" / "damaged.png").write_bytes(b"damaged")
    (root / "notes.txt").write_text("no image")
    header_and_data(root / "volumes")
    return root


def in_parts(root: Path, output: Path, **options: object) -> str:
    for number in range(PARTS):
        scan_to_file(root, output, spacing_mm=1.0, num_parts=PARTS, part_id=number, **options)
    scan_to_file(root, output, spacing_mm=1.0, num_parts=PARTS, **options)
    return output.read_text()


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_the_manifest_is_that_of_one_scan(root: Path, tmp_path: Path, suffix: str) -> None:
    output = root / f"m{suffix}"  # in the folder, as its parts are, which are no images
    scan_to_file(root, output, spacing_mm=1.0)
    expected = output.read_text()
    assert in_parts(root, output) == expected
    output.unlink()
    (tmp_path / "link").symlink_to(root)
    scan_to_file(tmp_path / "link", output, spacing_mm=1.0)
    by_link = output.read_text()
    output.unlink()
    assert in_parts(tmp_path / "link", output) == by_link
    output.write_text(expected)
    assert not (root / f".m{suffix}.parts").exists()
    scan_to_file(root, output, spacing_mm=1.0)
    assert output.read_text() == expected


def test_what_a_part_saw_whole_is_not_opened_again(root: Path, tmp_path: Path) -> None:
    """The slices of two series lie in two folders each, which fall to two parts."""
    scan_to_file(root, tmp_path / "whole.jsonl", spacing_mm=1.0)
    for number in range(PARTS):
        scan_to_file(root, tmp_path / "m.jsonl", spacing_mm=1.0, num_parts=PARTS, part_id=number)
    parts = [tmp_path / ".m.jsonl.parts" / f"{number}-of-3.jsonl" for number in range(PARTS)]
    sizes = [len(file.read_text().splitlines()) for file in parts]
    assert min(sizes) > 4
    blind(root, *(set(FOLDERS) - {"p", "split", "odd"}), "pictures")
    scan_to_file(root, tmp_path / "m.jsonl", spacing_mm=1.0, num_parts=PARTS)
    assert (tmp_path / "m.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


def test_tables_and_labels(tmp_path: Path) -> None:
    """They name images of all parts; a label that two images could have is seen by the whole scan alone."""
    root = tmp_path / "images"
    for number in range(8):
        picture(root / f"{number}.png", number)
        (tmp_path / "labels").mkdir(exist_ok=True)
        Image.fromarray(np.ones(np.asarray(Image.open(root / f"{number}.png")).shape[:2], np.uint8)).save(
            tmp_path / "labels" / f"{number}.png"
        )
    (tmp_path / "labels" / "5.png").unlink()
    rows = [f"{number}.png,{('training', 'test')[number % 2]}" for number in range(7)]
    (tmp_path / "split.csv").write_text("\n".join(["image,split", *rows, ""]))
    (tmp_path / "points.csv").write_text("image,landmark,x_px,y_px\n0.png,a,1,2\n6.png,a,2,1\nabsent.png,a,1,1\n")
    options = {key: tmp_path / name for key, name in
               {"labels": "labels", "split": "split.csv", "landmarks": "points.csv"}.items()}  # fmt: skip
    scan_to_file(root, tmp_path / "whole.jsonl", spacing_mm=1.0, **options)
    expected = (tmp_path / "whole.jsonl").read_text()
    assert in_parts(root, tmp_path / "m.jsonl", **options) == expected
    assert "absent.png" in expected


@pytest.mark.parametrize("case", sorted(CASES))
def test_hospital_folders(case: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    CASES[case][0](folder)
    scan_to_file(folder, tmp_path / "whole.jsonl", spacing_mm=1.0)
    assert in_parts(folder, tmp_path / "m.jsonl") == (tmp_path / "whole.jsonl").read_text()


def test_what_is_refused(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one sentence, before anything is read."""
    words = ["scan", root, "-o", tmp_path / "m.jsonl", "--spacing-mm", 1, "--num-parts", 2]

    def refused(*more: object) -> str:
        capsys.readouterr()
        assert medpixcl(*words, *more) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "lacks parts 0, 1 of 2; scan with --part-id 0 first" in refused()
    assert "--part-id 2 is no part: there are 2 parts, counted from 0" in refused("--part-id", 2)
    assert "leave out num_parts, and give workers" in refused("--part-id", 0, "--resample-tilt")
    assert medpixcl(*words, "--part-id", 0) == 0
    assert "the same command without --part-id puts them together" in capsys.readouterr().out
    assert "lacks part 1 of 2" in refused()
    words[-1] = 3
    assert "holds parts of a scan in 2 parts; give --num-parts 2 to go on with it" in refused("--part-id", 1)
    words[-1] = 2
    assert medpixcl(*words, "--part-id", 1, "--licence", "CC0") == 0
    assert "1-of-2.jsonl is damaged, or was scanned with other options" in refused()
    assert medpixcl(*words, "--part-id", 1) == 0
    whole = (tmp_path / ".m.jsonl.parts" / "0-of-2.jsonl").read_bytes()
    (tmp_path / ".m.jsonl.parts" / "0-of-2.jsonl").write_bytes(whole[:-9])
    assert "0-of-2.jsonl is damaged" in refused()
    assert medpixcl(*words, "--part-id", 0) == 0
    write_series(root / "late", noise(1, 1), SeriesInstanceUID="1.1", origin=(-10, -20, 40))
    assert medpixcl(*words) == 0, "what came later is read"
    assert "they were put together, or not begun; leave out num_parts" in refused()
    scan_to_file(root, tmp_path / "whole.jsonl", spacing_mm=1.0)
    assert (tmp_path / "m.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


def test_a_file_that_changes_between_the_parts(tmp_path: Path) -> None:
    """It is damaged in one part and mended in the other, which has it too, as a new file has moved the shares."""
    picture(tmp_path / "images" / "b.png", 1)
    (tmp_path / "images" / "a.png").write_bytes(b"damaged")
    scan_to_file(tmp_path / "images", tmp_path / "m.jsonl", spacing_mm=1.0, num_parts=2, part_id=0)
    picture(tmp_path / "images" / "0.png", 2)
    picture(tmp_path / "images" / "a.png", 3)
    scan_to_file(tmp_path / "images", tmp_path / "m.jsonl", spacing_mm=1.0, num_parts=2, part_id=1)
    scan_to_file(tmp_path / "images", tmp_path / "m.jsonl", spacing_mm=1.0, num_parts=2)
    scan_to_file(tmp_path / "images", tmp_path / "whole.jsonl", spacing_mm=1.0)
    assert (tmp_path / "m.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


def test_more_parts_than_files_that_a_process_may_open(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "images" / f"{number}.png", number)
    options = {"spacing_mm": 1.0, "num_parts": 3000}
    for number in range(4):
        scan_to_file(tmp_path / "images", tmp_path / "m.jsonl", part_id=number, **options)
    parts = tmp_path / ".m.jsonl.parts"
    with pytest.raises(ValueError, match="lacks parts 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 and 2986 more of 3000; "):
        scan_to_file(tmp_path / "images", tmp_path / "m.jsonl", **options)
    for number in range(4, 3000):
        shutil.copy(parts / "3-of-3000.jsonl", parts / f"{number}-of-3000.jsonl")
    scan_to_file(tmp_path / "images", tmp_path / "m.jsonl", **options)
    scan_to_file(tmp_path / "images", tmp_path / "whole.jsonl", spacing_mm=1.0)
    assert (tmp_path / "m.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert not parts.exists()
