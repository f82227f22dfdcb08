"""Labels of pixels: maps and masks as written, numbers of classes, and one sentence for what does not fit."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from medpixcl.cli import app
from medpixcl.coordinates import image_affine
from medpixcl.data.datalist import section_items, split_validation
from medpixcl.data.exogenous import Grid
from medpixcl.data.labels import class_names, read_label
from medpixcl.data.manifest import Manifest
from medpixcl.data.phantoms import write_organ_phantoms
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.scan import scan

SHAPE = (6, 9)
GRID = Grid(SHAPE, image_affine((1.0, 1.0)))
NAMES = ["liver", "spleen"]


def png(folder: Path, name: str, values: np.ndarray) -> str:
    Image.fromarray(values.astype(np.uint8)).save(folder / name)
    return str(folder / name)


def numbers(*values: int) -> np.ndarray:
    return np.random.default_rng(0).choice(values, SHAPE)


def test_label_map_as_map_and_as_masks(tmp_path: Path) -> None:
    values = numbers(0, 1, 2)
    path = png(tmp_path, "map.png", values)
    assert np.array_equal(read_label(path, GRID, NAMES).numpy(), values[None])
    masks = read_label(path, GRID, NAMES, overlapping=True)
    assert np.array_equal(masks.numpy(), np.stack([values == 1, values == 2]))


def test_chosen_numbers_get_the_order_of_the_names(tmp_path: Path) -> None:
    """The other numbers are background."""
    values = numbers(0, 1, 5, 7)
    path = png(tmp_path, "map.png", values)
    found = read_label(path, GRID, {"liver": 7, "spleen": 1}).numpy()[0]
    assert np.array_equal(found, np.select([values == 7, values == 1], [1, 2], 0))


def test_masks_may_overlap_and_be_empty(tmp_path: Path) -> None:
    one, other = numbers(0, 255), np.zeros(SHAPE)
    paths = [png(tmp_path, "a.png", one), png(tmp_path, "b.png", other)]
    found = read_label(paths, GRID, NAMES, overlapping=True)
    assert np.array_equal(found.numpy(), np.stack([one > 0, other > 0]))
    assert torch.equal(found.affine, GRID.affine)


def test_volume(tmp_path: Path) -> None:
    values, affine = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8), np.diag([1.0, 2.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "map.nii.gz")
    grid = Grid((4, 5, 6), torch.from_numpy(affine))
    assert np.array_equal(read_label(tmp_path / "map.nii.gz", grid, NAMES).numpy(), values[None])
    moved = affine.copy()
    moved[0, 3] = 10
    with pytest.raises(ImageFileError, match=r"lies up to 10\.0 mm away from its image"):
        read_label(tmp_path / "map.nii.gz", Grid((4, 5, 6), torch.from_numpy(moved)), NAMES)


def test_what_does_not_fit_says_so(tmp_path: Path) -> None:
    fine = png(tmp_path, "fine.png", numbers(0, 1))
    with pytest.raises(ImageFileError, match=r"large.png: has 7 x 9 voxels, its image 6 x 9"):
        read_label(png(tmp_path, "large.png", np.zeros((7, 9))), GRID, NAMES)
    with pytest.raises(ImageFileError, match=r"gone.png: does not exist"):
        read_label(str(tmp_path / "gone.png"), GRID, NAMES)
    with pytest.raises(ImageFileError, match=r"more.png: holds the class 3, 9, but there are names for 1 to 2"):
        read_label(png(tmp_path, "more.png", numbers(0, 3, 9)), GRID, NAMES)
    with pytest.raises(ImageFileError, match=r"grey.png: holds 3 values; a mask has 0 and one more"):
        read_label([fine, png(tmp_path, "grey.png", numbers(0, 128, 255))], GRID, NAMES, overlapping=True)
    with pytest.raises(ValueError, match=r"there are 1 mask\(s\) for 2 classes; give one per class"):
        read_label([fine], GRID, NAMES, overlapping=True)
    with pytest.raises(ValueError, match="set overlapping, or give a label map"):
        read_label([fine, fine], GRID, NAMES)


@pytest.mark.parametrize("classes", [[], ["a", "a"], {"a": 0}, {"a": 2, "b": 2}])
def test_bad_names(classes: list | dict) -> None:
    with pytest.raises(ValueError, match="expected names, each once"):
        class_names(classes)


def test_paths_in_a_manifest_are_made_absolute_and_back(tmp_path: Path) -> None:
    entries = [
        {"image": "a.png", "label": "labels/a.png"},
        {"image": "b.png", "label": ["labels/b1.png", "labels/b2.png"]},
        {"image": "c.png", "label": 1},
        {"image": "d.png", "label": 0},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"training": entries, "test": entries[:1]}))
    items = Manifest.read(tmp_path / "manifest.json").datalist("training")
    at = tmp_path.absolute() / "labels"
    assert [item["label"] for item in items] == [str(at / "a.png"), [str(at / "b1.png"), str(at / "b2.png")], 1, 0]
    Manifest.read(tmp_path / "manifest.json").write(tmp_path / "copy" / "manifest.json", base_dir=tmp_path)
    assert json.loads((tmp_path / "copy" / "manifest.json").read_text())["training"] == entries
    assert section_items(tmp_path / "manifest.json") == [
        {"image": str(at.parent / "a.png"), "label": str(at / "a.png")}
    ]
    divided = split_validation(tmp_path / "manifest.json", fraction=0.25)
    assert all("label" in item for side in divided.values() for item in side), "class 0 is a class"
    with pytest.raises(ValueError, match="no image in the section validation"):
        section_items(tmp_path / "manifest.json", "validation")


@pytest.mark.parametrize("label", ["", [], ["a.png", 3], {"a": "b"}, 1.5, True])
def test_bad_label_in_a_manifest(label: object, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"training": [{"image": "a.png", "label": label}]}))
    with pytest.raises(ValueError, match=r"label of entry 0 of training is .*; expected the path of a label map"):
        Manifest.read(tmp_path / "manifest.json")


@pytest.mark.parametrize("overlapping", [False, True])
def test_scan_finds_labels_by_name(overlapping: bool, tmp_path: Path) -> None:
    items = write_organ_phantoms(tmp_path / "data", 3, (24, 20), organs=2, overlapping=overlapping)
    labels = tmp_path / "data" / "labels"
    given: list[str] = []
    expected: list = [f"labels/phantom_{n:03d}.png" for n in range(3)]
    if overlapping:
        for organ, name in enumerate(NAMES, start=1):
            (tmp_path / name).mkdir()
            for n in range(3):
                (labels / f"phantom_{n:03d}_{organ}.png").rename(tmp_path / name / f"phantom_{n:03d}.png")
        labels.rmdir()
        given = [text for name in NAMES for text in ("--labels", f"{name}={tmp_path / name}")]
        expected = [[f"../{name}/phantom_{n:03d}.png" for name in NAMES] for n in range(3)]
    options = ["scan", str(tmp_path / "data"), "-o", str(tmp_path / "data" / "manifest.json"), "--spacing-mm", "1"]
    result = CliRunner().invoke(app, [*options, *(given or ["--labels", str(labels)])])
    assert result.exit_code == 0, result.output
    found = Manifest.read(tmp_path / "data" / "manifest.json")
    assert [entry["label"] for entry in found.training] == expected
    assert not found.rejected
    assert len(items) == 3


def test_scan_rejects_images_without_a_label_that_fits(tmp_path: Path) -> None:
    write_organ_phantoms(tmp_path, 3, (24, 20), overlapping=False)
    (tmp_path / "labels" / "phantom_000.png").unlink()
    png(tmp_path / "labels", "phantom_001.png", np.zeros((9, 9)))
    manifest = scan(tmp_path, spacing_mm=1.0, labels=tmp_path / "labels")
    assert [entry["image"] for entry in manifest.training] == ["phantom_002.png"]
    reasons = [record["reason"] for record in manifest.rejected]
    assert "has no label 'label' in" in reasons[0]
    assert "has a label file that does not fit" in reasons[1]
    assert "has 9 x 9 voxels, its image 24 x 20" in reasons[1]
    with pytest.raises(ValueError, match="expected NAME=FOLDER, such as heart=masks/heart"):
        CliRunner().invoke(
            app, ["scan", str(tmp_path), "-o", "x.json", "--labels", "a", "--labels", "b"], catch_exceptions=False
        )
