"""Which images are templates: named one by one, in a folder or in a manifest."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from medpixcl.data.manifest import Manifest
from medpixcl.data.phantoms import write_phantoms
from medpixcl.data.templates import template_items
from tests.data.dicom_files import write_series


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, of which the first two have landmarks, one of them in a folder of its own."""
    write_phantoms(tmp_path / "images", 4, (24, 24))
    (tmp_path / "images" / "$b").mkdir()
    shutil.move(tmp_path / "images" / "phantom_001.png", tmp_path / "images" / "$b" / "phantom_001.png")
    rows = [f"images/{name},apex,12,10" for name in ("phantom_000.png", "$b/phantom_001.png")]
    (tmp_path / "landmarks.csv").write_text("\n".join(["image,landmark,x_px,y_px", *rows]), encoding="utf-8")
    return tmp_path


def names(items: list[dict]) -> list[str]:
    return sorted(Path(item["image"]).name for item in items)


def test_images_named_one_by_one(folder: Path) -> None:
    """In the order given; one that is named twice, however its path is written, stands once."""
    first, second = folder / "images" / "phantom_000.png", folder / "images" / "$b" / "phantom_001.png"
    again = folder / "images" / "$b" / ".." / "phantom_000.png"
    assert template_items([second, first, again]) == [{"image": str(second)}, {"image": str(first)}]
    assert template_items(str(first), spacing_mm=0.5) == [{"image": str(first), "spacing_mm": 0.5}]
    with pytest.raises(ValueError, match="no template is given"):
        template_items([])


def test_of_a_folder_those_with_landmarks(folder: Path) -> None:
    items = template_items(folder / "images", folder / "landmarks.csv", spacing_mm=0.5)
    assert names(items) == ["phantom_000.png", "phantom_001.png"]
    assert all(item["spacing_mm"] == 0.5 for item in items)
    (folder / "landmarks.csv").write_text("image,landmark,x_px,y_px\nother.png,apex,12,10\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has 4 images, and .* has landmarks of none of them"):
        template_items(folder / "images", folder / "landmarks.csv", spacing_mm=0.5)


def test_of_a_manifest_those_with_landmarks(folder: Path) -> None:
    """The manifest gives the pixel size, that of an image named alone, too."""
    entries = [
        {"image": str(folder / "images" / name), "spacing_mm": [size, size]}
        for name, size in (("phantom_000.png", 0.1), ("$b/phantom_001.png", 0.2), ("phantom_002.png", 0.3))
    ]
    Manifest(training=entries).write(folder / "manifest.json")
    items = template_items(folder / "manifest.json", folder / "landmarks.csv")
    assert [item["spacing_mm"] for item in items] == [[0.1, 0.1], [0.2, 0.2]]
    listed = Manifest.read(folder / "manifest.json").datalist("training")
    (one,) = template_items(folder / "images" / "phantom_002.png", listed=listed)
    assert one["spacing_mm"] == [0.3, 0.3]
    (one,) = template_items(folder / "images" / "phantom_002.png", listed=listed, spacing_mm=1.0)
    assert one["spacing_mm"] == 1.0


def test_the_folder_of_a_series_is_one_template(tmp_path: Path) -> None:
    """Its landmarks may stand in a file that does not name it by a path, so it is taken in any case."""
    write_series(tmp_path / "series", np.arange(3 * 8 * 8, dtype=np.int16).reshape(3, 8, 8))
    (item,) = template_items(tmp_path / "series", tmp_path / "missing.csv")
    image = item["image"]
    assert Path(image if isinstance(image, str) else image[0]).is_relative_to(tmp_path / "series")
    assert template_items(tmp_path / "empty.png") == [{"image": str(tmp_path / "empty.png")}]


def test_one_name_for_two_templates(folder: Path) -> None:
    """A bare name in the landmark file must not stand for the marks of both."""
    shutil.copy(folder / "images" / "phantom_002.png", folder / "images" / "$b" / "phantom_000.png")
    both = [folder / "images" / "phantom_000.png", folder / "images" / "$b" / "phantom_000.png"]
    (folder / "landmarks.csv").write_text("image,landmark,x_px,y_px\nphantom_000.png,apex,12,10\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"names 'phantom_000\.png', which fits 2 images"):
        template_items(both, folder / "landmarks.csv")
