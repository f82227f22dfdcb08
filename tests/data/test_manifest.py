"""A manifest is a MONAI datalist, moves with its file, and refuses what is none."""

import json
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist

from medpixcl.data.manifest import SUMMARY_COLUMNS, Manifest


def entry(image: object, **more: object) -> dict:
    rest = dict.fromkeys(("modality", "split", "licence", "duplicate_group", "landmarks"))
    return {"image": image, "spacing_mm": [0.5, 0.5], "shape": [480, 387], "sha256": "0", **rest, **more}


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    for name in ("images/a.png", "series/1", "series/2", "landmarks.csv"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    return Manifest(
        name="set",
        licence="CC0",
        base_dir=tmp_path / "set",
        training=[entry("images/a.png", landmarks="landmarks.csv", split="train", duplicate_group="repeat-001")],
        validation=[entry("series", shape=[64, 64, 20], spacing_mm=[1.0, 1.0, 2.0], modality="CT")],
        test=[entry(["series/1", "series/2"], split="test1", duplicate_group="repeat-001", shape=[400, 387])],
        rejected=[{"path": "images/b.png", "reason": "is empty (0 bytes)."}],
    )


@pytest.mark.parametrize("place", ["set", ".", "elsewhere/deep"])
def test_paths_hold_wherever_the_file_is_written(tmp_path: Path, manifest: Manifest, place: str) -> None:
    path = tmp_path / place / "manifest.json"
    manifest.write(path)
    again = Manifest.read(path)
    assert again.datalist("training")[0]["image"] == str(tmp_path / "set" / "images" / "a.png")
    assert again.datalist("training")[0]["landmarks"] == str(tmp_path / "set" / "landmarks.csv")
    assert again.datalist("validation")[0]["image"] == str(tmp_path / "set" / "series")
    assert again.datalist("test")[0]["image"] == [str(tmp_path / "set" / "series" / name) for name in "12"]
    assert again.summary() == manifest.summary()
    assert not any(Path(one["image"]).is_absolute() for one in json.loads(path.read_text())["training"])


@pytest.mark.parametrize("section", ["training", "validation", "test"])
def test_monai_reads_the_same_images(tmp_path: Path, manifest: Manifest, section: str) -> None:
    manifest.write(tmp_path / "set" / "manifest.json")
    theirs = load_decathlon_datalist(str(tmp_path / "set" / "manifest.json"), True, section)
    assert [one["image"] for one in theirs] == [one["image"] for one in manifest.datalist(section)]
    assert [one["spacing_mm"] for one in theirs] == [one["spacing_mm"] for one in manifest.datalist(section)]


def test_paths_may_start_from_a_folder_that_is_elsewhere(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "project" / "set.json"
    manifest.write(path, base_dir=tmp_path / "set")
    assert json.loads(path.read_text())["training"][0]["image"] == "images/a.png"
    assert Manifest.read(path, base_dir="/mnt/set").datalist("training")[0]["image"] == "/mnt/set/images/a.png"


def test_summary_counts_what_a_person_asks_for(manifest: Manifest) -> None:
    rows = manifest.summary()
    assert all(tuple(row) == SUMMARY_COLUMNS for row in rows)
    assert [list(row.values()) for row in rows] == [
        ["training", "2D", "1", "480 x 387", "0.5 x 0.5", "train (1)", "1", "1"],
        ["validation", "3D CT", "1", "64 x 64 x 20", "1 x 1 x 2", "", "0", "0"],
        ["test", "2D", "1", "400 x 387", "0.5 x 0.5", "test1 (1)", "0", "1 (1 of training)"],
        ["rejected", "", "1", "", "", "", "", ""],
    ]


def test_a_plain_monai_datalist_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"training": [{"image": "a.nii.gz", "label": "b.nii.gz"}], "test": ["c.nii.gz"]}))
    manifest = Manifest.read(path)
    assert manifest.datalist("test") == [{"image": str(tmp_path / "c.nii.gz")}]
    assert [row["kind"] for row in manifest.summary()] == ["?", "?"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{\n", r"is not JSON \(line 2\)"),
        ("[]", "has none of the lists training, validation, test"),
        ('{"train": []}', "has none of the lists training, validation, test"),
        ('{"training": {}}', "training is no list"),
        ('{"training": [{"image": "a"}, {"label": "b"}]}', "entry 1 of training names no image"),
        ('{"test": [{"image": []}]}', "entry 0 of test names no image"),
        ('{"test": [5]}', "entry 0 of test names no image"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_broken_manifest_gives_one_sentence(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=sentence) as caught:
        Manifest.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_absent_manifest_and_unknown_section_are_refused(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(ValueError, match=r"m\.json does not exist; make a manifest with `medpixcl scan`"):
        Manifest.read(tmp_path / "m.json")
    with pytest.raises(ValueError, match="section is 'train'; expected one of training, validation, test"):
        manifest.datalist("train")
