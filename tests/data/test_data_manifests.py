"""The manifests that travel with the project: complete, without values, true to the files."""

from pathlib import Path

import pytest

from medpixcl.data.examination import content_sha256
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import Manifest

FOLDER = Path(__file__).parents[2] / "data_manifests"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_complete_and_holds_no_values(name: str) -> None:
    manifest = Manifest.read(FOLDER / f"{name}.json")
    entries = [entry for _, entry in manifest.entries()]
    assert manifest.licence
    assert manifest.description
    assert len({entry["image"] for entry in entries}) == len(entries) > 0
    for entry in entries:
        assert entry.keys() == {
            "image", "spacing_mm", "shape", "modality", "sha256", "licence", "split", "duplicate_group", "landmarks"
        }  # fmt: skip
        assert not Path(entry["image"]).is_absolute()
        assert ".." not in entry["image"]
        assert len(entry["sha256"]) == 64
        unlabelled = entry["split"].endswith("unlabelled")
        assert entry["landmarks"] == (None if unlabelled else "landmarks.csv")
        assert entry["licence"]


def test_twenty_cephalograms_of_the_test_section_repeat_one_of_training() -> None:
    manifest = Manifest.read(FOLDER / "ceph_isbi2015.json")
    trained = {entry["duplicate_group"] for entry in manifest.training} - {None}
    assert (len(manifest.training), len(manifest.test)) == (150, 150)
    assert sum(entry["duplicate_group"] in trained for entry in manifest.test) == 20
    assert len({entry["duplicate_group"] for _, entry in manifest.entries()} - {None}) == 23


def test_mouse_heads_are_divided_as_their_table_says() -> None:
    manifest = Manifest.read(FOLDER / "mouse_head_ct.json")
    assert sum(entry["landmarks"] is not None for entry in manifest.training) == 15
    assert (len(manifest.training), len(manifest.test)) == (20, 5)
    table = dict(line.split(",") for line in (FOLDER / "mouse_head_ct_splits.csv").read_text().splitlines()[1:])
    assert {Path(entry["image"]).name: entry["split"] for _, entry in manifest.entries()} == table


@pytest.mark.data
@pytest.mark.parametrize("name", NAMES)
def test_entries_match_the_files(data_dir: Path, name: str) -> None:
    manifest = Manifest.read(FOLDER / f"{name}.json", base_dir=data_dir / name)
    landmarks = read_landmarks(data_dir / name / "landmarks.csv")
    for section in ("training", "validation", "test"):
        for item in manifest.datalist(section):
            assert content_sha256([Path(item["image"])]) == item["sha256"]
            assert (landmarks.find(item["image"]) is not None) == (item["landmarks"] is not None)
