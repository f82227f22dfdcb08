"""Which file is the exogenous channel of which image, in the scan, the manifest and the datalists."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medpixcl.cli import app
from medpixcl.data.datalist import items_of, split_validation
from medpixcl.data.exogenous import ExogenousFiles, with_donors
from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan


def picture(path: Path, seed: int, *, bits: int = 8, size: tuple[int, int] = (40, 50)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = np.uint8 if bits == 8 else np.uint16
    Image.fromarray(np.random.default_rng(seed).integers(1, 200, size).astype(kind)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(["a/one", "b/one", "b/two"]):
        picture(tmp_path / "images" / f"{name}.png", number)
        picture(tmp_path / "images" / "depth" / f"{name}.png", number + 10, bits=16)
    return tmp_path


def test_from_the_scan_to_the_items(folder: Path) -> None:
    manifest = scan(folder / "images", spacing_mm=0.5, exogenous={"depth": folder / "images" / "depth"})
    assert not manifest.rejected
    named = {entry["image"]: entry["exogenous"] for entry in manifest.training}
    assert named == {f"{one}.png": {"depth": f"depth/{one}.png"} for one in ("a/one", "b/one", "b/two")}
    manifest.write(folder / "elsewhere" / "manifest.json")
    read = Manifest.read(folder / "elsewhere" / "manifest.json")
    for entry in read.datalist("training"):
        depth = Path(entry["exogenous"]["depth"])
        assert depth.is_absolute()
        assert depth == folder / "images" / "depth" / Path(entry["image"]).relative_to(folder / "images")
    split = split_validation(folder / "elsewhere" / "manifest.json", fraction=0.3)
    assert all(set(item) == {"image", "spacing_mm", "exogenous"} for side in split.values() for item in side)
    assert all(set(item) == {"image", "spacing_mm"} for item in items_of(read.datalist("training")))


def test_what_does_not_fit_is_rejected_with_its_reason(folder: Path) -> None:
    depth = folder / "images" / "depth"
    picture(depth / "a" / "one.png", 1, bits=16, size=(40, 51))
    Image.fromarray(np.zeros((40, 50), np.uint16)).save(depth / "b" / "one.png")
    (depth / "b" / "two.png").unlink()
    manifest = scan(folder / "images", spacing_mm=0.5, exogenous={"depth": depth})
    assert not manifest.training
    reasons = {one["path"]: one["reason"] for one in manifest.rejected}
    assert reasons["a/one.png"].endswith("one.png: has 40 x 51 voxels, its image 40 x 50; expected the same.")
    assert reasons["a/one.png"].startswith("has a depth file that does not fit: ")
    assert "holds nothing but missing values" in reasons["b/one.png"]
    assert reasons["b/two.png"] == f"has no exogenous channel 'depth' in {depth}; add its file."


def test_command_line(folder: Path) -> None:
    manifest = folder / "manifest.json"
    command = ["scan", str(folder / "images" / "b"), "-o", str(manifest), "--spacing-mm", "0.5"]
    result = CliRunner().invoke(app, [*command, "--exogenous", f"depth={folder / 'images' / 'depth' / 'b'}"])
    assert result.exit_code == 0, result.output
    named = [entry["exogenous"]["depth"] for entry in Manifest.read(manifest).training]
    assert named == ["images/depth/b/one.png", "images/depth/b/two.png"]
    result = CliRunner().invoke(app, [*command, "--exogenous", "depth"])
    assert str(result.exception) == "--exogenous is 'depth'; expected NAME=FOLDER, such as depth=maps/depth"


@pytest.mark.data
def test_depth_camera_in_one_folder_with_its_pictures(data_dir: Path) -> None:
    frames = data_dir / "rgbd_7scenes" / "frames"
    colour = sorted(frames.glob("*.color.jpg"))[:4]
    manifest = scan(colour, spacing_mm=1.0, exogenous={"depth": frames / "*.depth.png"})
    assert not manifest.rejected
    for entry in manifest.training:
        assert entry["exogenous"]["depth"] == entry["image"].replace("color.jpg", "depth.png")
    both = [*colour, *sorted(frames.glob("*.depth.png"))[:4]]
    whole = scan(both, spacing_mm=1.0, exogenous={"depth": frames / "*.depth.png"})
    assert [entry["image"] for entry in whole.training] == [path.name for path in colour]  # maps are no images


def found(place: Path, image: Path, roots: list[Path]) -> Path | None:
    return ExogenousFiles("depth", place).find(image, roots)


def test_names(tmp_path: Path) -> None:
    images, maps = tmp_path / "images", tmp_path / "maps"
    for name in ("a/x.nii.gz", "b/x.nii.gz", "c/y.png", "frame-1.depth.png", "frame-2.depth.png", "frame-2.other.png"):
        (maps / name).parent.mkdir(parents=True, exist_ok=True)
        (maps / name).touch()
    assert found(maps, images / "b" / "x.png", [images]) == maps / "b" / "x.nii.gz"  # same path, other suffix
    assert found(maps, images / "y.jpg", [images]) == maps / "c" / "y.png"  # same name, one of the two in no subfolder
    assert found(maps, images / "z" / "y.jpg", [images]) is None  # the map of an image in another folder
    assert found(maps, images / "frame-1.color.jpg", [images]) == maps / "frame-1.depth.png"  # same start
    assert found(maps, images / "frame-3.color.jpg", [images]) is None
    with pytest.raises(ValueError, match=r"maps: x\.png may belong to any of a/x\.nii\.gz, b/x\.nii\.gz; keep one, or"):
        found(maps, images / "x.png", [images])
    with pytest.raises(ValueError, match=r"frame-2\.color\.jpg may belong to any of"):
        found(maps, images / "frame-2.color.jpg", [images])
    assert found(maps / "*.depth.png", images / "frame-2.color.jpg", [images]) == maps / "frame-2.depth.png"


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere is no folder; give the one that holds .* 'depth'"):
        ExogenousFiles("depth", tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no file of the exogenous channel 'depth'"):
        ExogenousFiles("depth", tmp_path)
    with pytest.raises(ValueError, match=r"is named 'my depth'; expected one word"):
        ExogenousFiles("my depth", tmp_path)


@pytest.mark.parametrize("wrong", ["depth.png", ["depth.png"], {"depth": None}, {"depth": ""}, {"": "a.png"}], ids=str)
def test_manifest_of_another_kind(tmp_path: Path, wrong: Any) -> None:
    manifest = Manifest(training=[{"image": "a.png"}], base_dir=tmp_path)
    manifest.write(tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    content["training"][0]["exogenous"] = wrong
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"m\.json: exogenous of entry 0 of training is .* expected name and path"):
        Manifest.read(tmp_path / "m.json")


@pytest.mark.parametrize("number", [2, 3, 17])
def test_donors_are_a_derangement(number: int) -> None:
    items = [{"image": str(index)} for index in range(number)]
    seen = set()
    for seed in range(20):
        made = with_donors(items, seed=seed)
        assert made == with_donors(items, seed=seed)
        donors = [item["donor"]["image"] for item in made]
        assert sorted(donors) == sorted(item["image"] for item in items)
        assert all(donor != item["image"] for donor, item in zip(donors, items, strict=True))
        seen.add(tuple(donors))
    assert len(seen) >= min(number - 1, 10)
    with pytest.raises(ValueError, match=r"^1 image\(s\) cannot exchange their exogenous channel"):
        with_donors(items[:1])
