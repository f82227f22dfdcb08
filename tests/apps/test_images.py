"""Which images are searched, what is left out and why, and how results name them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medpixcl.apps.images import ImageList
from medpixcl.data.identity import first_file
from medpixcl.data.phantoms import write_phantoms
from medpixcl.data.scan import scan
from tests.data.dicom_files import write_series


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them cut off; beside them a volume, and a picture of the same name further down."""
    images = tmp_path / "images"
    write_phantoms(images, 3, (24, 20))
    cut = images / "phantom_001.png"
    cut.write_bytes(cut.read_bytes()[:150])
    write_phantoms(images / "volumes", 1, (8, 8, 8))
    write_phantoms(images / "more", 1, (20, 24), seed=9)
    return images


def names(images: ImageList) -> list[str]:
    return [images.name(item["image"]) for item in images.datalist]


def test_folder(folder: Path) -> None:
    images = ImageList(str(folder), spacing_mm=1.0, spatial_dims=2)
    assert names(images) == ["phantom_000.png", "phantom_002.png", "more/phantom_000.png"]
    assert images.datalist[0]["spacing_mm"] == [1.0, 1.0]
    assert list(images.rejected) == ["phantom_001.png", "volumes/phantom_000.nii.gz"]
    assert "cut off" in images.rejected["phantom_001.png"]
    assert images.rejected["volumes/phantom_000.nii.gz"] == "has 3 spatial axes; the network takes 2."
    images.check()


def test_any_dimension_unless_told(folder: Path) -> None:
    assert names(ImageList(str(folder), spacing_mm=1.0))[-1] == "volumes/phantom_000.nii.gz"
    assert names(ImageList(str(folder), spacing_mm=1.0, spatial_dims=3)) == ["volumes/phantom_000.nii.gz"]


def test_the_template_is_left_out_however_its_path_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for written in (str(folder / "phantom_000.png"), "phantom_000.png", "more/../phantom_000.png"):
        images = ImageList(".", spacing_mm=1.0, exclude=written, spatial_dims=2)
        assert names(images) == ["phantom_002.png", "more/phantom_000.png"]
        assert "phantom_000.png" not in images.rejected


def test_an_image_asked_for_by_name_is_searched_even_if_it_is_the_template(folder: Path) -> None:
    path = str(folder / "phantom_000.png")
    images = ImageList(path, spacing_mm=1.0, exclude=path)
    assert names(images) == ["phantom_000.png"]
    assert images.stem(path) == "phantom_000"


def test_manifest(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    scan(folder, spacing_mm=1.0).write(path)
    (folder / "phantom_002.png").unlink()
    images = ImageList(str(path), exclude=str(folder / "phantom_000.png"), spatial_dims=2)
    assert names(images) == ["images/more/phantom_000.png"]
    assert images.rejected["images/phantom_002.png"] == "phantom_002.png does not exist."
    assert {"images/phantom_001.png", "images/volumes/phantom_000.nii.gz"} <= images.rejected.keys()


def test_manifest_with_the_template_only(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    template = folder / "phantom_000.png"
    scan(template, spacing_mm=1.0).write(path)
    with pytest.raises(ValueError, match="holds no image to search; give"):
        ImageList(str(path), exclude=str(template)).check()


def test_datalist_without_shapes(folder: Path, tmp_path: Path) -> None:
    """A MONAI datalist that was not made by ``scan``."""
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"training": [{"image": "images/phantom_000.png"}], "validation": []}))
    images = ImageList(str(path), spatial_dims=2)
    assert images.datalist == [{"image": str(folder / "phantom_000.png")}]


def test_stems_tell_images_apart(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(("a.png", "a.bmp", "sub/a.png", "b.png")):
        Image.fromarray(pixels + 3 * number).save(tmp_path / name)
    images = ImageList(str(tmp_path), spacing_mm=1.0)
    stems = {images.name(item["image"]): images.stem(item["image"]) for item in images.datalist}
    assert stems == {"a.png": "a.png", "a.bmp": "a.bmp", "sub/a.png": "sub/a", "b.png": "b"}


def test_entry(folder: Path) -> None:
    images = ImageList(str(folder), spacing_mm=1.0)
    path = str(folder / "phantom_002.png")
    assert images.entry(path) == {"image": path, "spacing_mm": [1.0, 1.0]}
    assert images.name("/elsewhere/c.png") == "c.png"


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    images = ImageList(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="nowhere does not exist"):
        images.check()


def test_no_image_says_what_was_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no image to search; give a folder or manifest with images\.$"):
        ImageList(str(tmp_path)).check()
    write_phantoms(tmp_path, 5, (16, 16))
    with pytest.raises(ValueError, match=r"\(rejected: phantom_000\.png has no pixel spacing.* and 2 more\)"):
        ImageList(str(tmp_path)).check()


def test_series_is_one_image(tmp_path: Path, generator: torch.Generator) -> None:
    """Named by its folder where that holds nothing else, by its first slice where it holds two series."""
    volume = torch.randint(0, 99, (3, 8, 8), generator=generator).numpy()
    write_series(tmp_path / "alone", volume)
    for number in (1, 2):
        for file in write_series(tmp_path / "pair", volume + number, SeriesInstanceUID=f"1.2.{number}"):
            file.rename(file.with_name(f"{number}_{file.name}"))
    images = ImageList(str(tmp_path), spatial_dims=3)
    assert [images.name(first_file(item)) for item in images.datalist] == ["alone", "pair/1_im000", "pair/2_im000"]
    assert images.stem(str(tmp_path / "alone")) == "alone"
    assert images.entry(str(tmp_path / "alone"))["spacing_mm"] == [0.75, 0.5, 2.5]
    itself = ImageList(str(tmp_path / "alone"), spatial_dims=3)
    assert [itself.stem(first_file(item)) for item in itself.datalist] == names(itself) == ["alone"]
