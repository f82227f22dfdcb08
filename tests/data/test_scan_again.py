"""A second scan gives what a fresh scan gives, whatever changed in between."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from monai.utils import optional_import

from medpixcl.data.annotated import target_points
from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan_to_file
from medpixcl.data.sources import attached_files, group_files, visible_files
from tests.data.dicom_files import write_series
from tests.data.scanned import picture

nibabel, _ = optional_import("nibabel")
NOBODY = 65534


def header_and_data(folder: Path) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(0, 99, (4, 6, 5), dtype=np.uint8)
    (folder / "a.raw").write_bytes(values.tobytes())
    lines = "ObjectType = Image\nNDims = 3\nDimSize = 5 6 4\nElementSpacing = 1 1 2\nElementType = MET_UCHAR\n"
    (folder / "a.mhd").write_text(f"{lines}ElementDataFile = a.raw\n")
    return folder / "a.mhd", folder / "a.raw"


def label(path: Path, shape: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.uint8), np.diag([1.0, 2, 3, 1])), path)


def part_comes_later(part: int) -> tuple[Callable[[Path], object], Callable[[Path], object]]:
    def before(root: Path) -> None:
        files = header_and_data(root / "images")
        shutil.move(files[part], root / files[part].name)

    def after(root: Path) -> None:
        name = ("a.mhd", "a.raw")[part]
        shutil.move(root / name, root / "images" / name)

    return before, after


def two_labels(root: Path) -> None:
    for name, size in (("a", 4), ("b", 5)):
        label(root / "images" / f"{name}.nii", (5, 6, 4))
        label(root / "labels" / f"{name}.nii", (5, 6, size))


CHANGES = {
    "header comes later": part_comes_later(0),
    "data come later": part_comes_later(1),
    "label is mended": (two_labels, lambda root: label(root / "labels" / "b.nii", (5, 6, 4))),
}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_rejected_for_another_file_is_looked_at_again(tmp_path: Path, change: str, suffix: str) -> None:
    before, after = CHANGES[change]
    before(tmp_path)
    options = {"labels": tmp_path / "labels"} if (tmp_path / "labels").exists() else {}
    for _ in range(2):
        scan_to_file(tmp_path / "images", tmp_path / f"m{suffix}", **options)
    assert Manifest.read(tmp_path / f"m{suffix}").rejected
    after(tmp_path)
    scan_to_file(tmp_path / "images", tmp_path / f"m{suffix}", **options)
    scan_to_file(tmp_path / "images", tmp_path / f"fresh{suffix}", **options)
    again = Manifest.read(tmp_path / f"m{suffix}")
    assert again == Manifest.read(tmp_path / f"fresh{suffix}")
    assert again.training
    assert not again.rejected


@pytest.mark.parametrize("name", ["m.json", "m.jsonl"])
def test_a_manifest_in_the_folder_is_not_listed_in_itself(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "a.png", 0)
    texts = []
    for _ in range(2):
        scan_to_file(tmp_path, tmp_path / name, spacing_mm=1.0)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]


DAMAGES = {
    "another file": lambda text: "[]",
    "cut off": lambda text: text[:-40],
    "stamp that is none": lambda text: text.replace('"stamp": "', '"stamp": 5, "other": "'),
    "entry without fingerprint": lambda text: text.replace('"fingerprint"', '"other"'),
    "rejection without reason": lambda text: text.replace('"reason"', '"other"'),
}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_is_not_taken_over(tmp_path: Path, damage: str, suffix: str) -> None:
    picture(tmp_path / "images" / "a.png", 0)
    (tmp_path / "images" / "notes.txt").write_text("no image")
    output = tmp_path / f"m{suffix}"
    scan_to_file(tmp_path / "images", output, spacing_mm=1.0)
    fresh = output.read_text()
    output.write_text(DAMAGES[damage](fresh))
    assert output.read_text() != fresh
    scan_to_file(tmp_path / "images", output, spacing_mm=1.0)
    assert output.read_text() == fresh


@contextmanager
def without_rights() -> Iterator[None]:
    """Act as a user without special rights, if the tests run as root."""
    user = os.geteuid()
    if user == 0:
        try:
            os.seteuid(NOBODY)
        except OSError:
            pytest.skip("this root cannot act as another user")
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def closed() -> Iterator[Path]:
    """Images beside a folder that cannot be listed, and one whose files cannot be opened; others may reach them."""
    place = tempfile.TemporaryDirectory()
    root = Path(place.name) / "images"
    picture(root / "a.png", 0)
    picture(root / "closed" / "b.png", 1)
    header_and_data(root / "locked")
    root.parent.chmod(0o755)
    (root / "closed").chmod(0)
    (root / "locked").chmod(0o644)
    with place:
        yield root
        for name in ("closed", "locked"):
            (root / name).chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs rights as POSIX has them")
def test_a_closed_folder_costs_itself_only(closed: Path) -> None:
    group_files(visible_files([closed]))  # imports all that it needs, which others may not be allowed to read
    with without_rights():
        files = visible_files([closed], list_closed=True)
        sources, rejected = group_files(files)
        assert attached_files(files) == set()
        with pytest.raises(ValueError, match=r"closed cannot be opened \(Permission denied\); give read permission"):
            visible_files([closed])
    assert [source.place.name for source in sources] == ["a.png"]
    reason = "cannot be opened (Permission denied)."
    assert {one.path.name: one.reason for one in rejected} == dict.fromkeys(["closed", "a.mhd", "a.raw"], reason)
    assert not any(one.lasting for one in rejected)  # they are looked at again once the rights are given


def volumes_of_one_folder(root: Path) -> Path:
    for number in range(2):
        values = np.random.default_rng(number).integers(0, 99, (4, 6, 5))
        for file in write_series(root / "parts" / str(number), values, SeriesInstanceUID=f"1.2.{number}"):
            (root / "images" / "p" / "CT").mkdir(parents=True, exist_ok=True)
            file.rename(root / "images" / "p" / "CT" / f"{number}_{file.name}")
    return root / "images"


def test_landmarks_of_a_folder_belong_to_none_of_its_volumes(tmp_path: Path) -> None:
    images, table = volumes_of_one_folder(tmp_path), tmp_path / "l.csv"
    table.write_text("image,landmark,x_px,y_px,z_px\np/CT,s,1,1,1\n")
    scan_to_file(images, tmp_path / "m.json", landmarks=table)
    manifest = Manifest.read(tmp_path / "m.json")
    assert [entry["landmarks"] for entry in manifest.training] == [None, None]
    reason = "names 'p/CT', a folder of several volumes; give each a folder of its own."
    assert [(one["path"], one["reason"]) for one in manifest.rejected] == [("l.csv", reason)]


def test_a_label_of_a_folder_belongs_to_none_of_its_volumes(tmp_path: Path) -> None:
    images = volumes_of_one_folder(tmp_path)
    label(tmp_path / "labels" / "p" / "CT.nii", (5, 6, 4))
    scan_to_file(images, tmp_path / "m.json", labels=tmp_path / "labels")
    manifest = Manifest.read(tmp_path / "m.json")
    assert not manifest.training
    assert all("is one of 2 images whose label" in one["reason"] for one in manifest.rejected)


def test_a_channel_and_a_label_of_one_name_are_counted_apart(tmp_path: Path) -> None:
    for seed, name in enumerate(["images/p/x", "images/q/x", "depth/p/x", "depth/q/x", "labels/x"]):
        picture(tmp_path / f"{name}.png", seed)
    options = {"exogenous": {"label": tmp_path / "depth"}, "labels": tmp_path / "labels"}
    scan_to_file(tmp_path / "images", tmp_path / "m.json", spacing_mm=1.0, **options)
    assert not Manifest.read(tmp_path / "m.json").training


@pytest.mark.parametrize("columns", ["x_px,y_px,z_px", "x_mm,y_mm,z_mm"])
def test_voxels_of_a_tilted_series_are_not_those_of_the_resampled_volume(tmp_path: Path, columns: str) -> None:
    values = np.random.default_rng(0).integers(0, 99, (6, 20, 20))
    write_series(tmp_path / "images" / "CT", values, step=(0, 0.6, 2.5), origin=(0, 0, 0))
    table = tmp_path / "l.csv"
    options = {"landmarks": table, "resample_tilt": tmp_path / "m_resampled"}
    table.write_text(f"image,landmark,{columns}\nCT,s,3,4,5\n")
    if columns.startswith("x_px"):
        with pytest.raises(ValueError, match="'CT' has landmarks in voxels of a series with gantry tilt"):
            scan_to_file(tmp_path / "images", tmp_path / "m.json", **options)
        table.write_text(f"image,landmark,{columns}\nm_resampled/CT.nii.gz,s,3,4,5\n")
    scan_to_file(tmp_path / "images", tmp_path / "m.json", **options)
    assert Manifest.read(tmp_path / "m.json").training[0]["landmarks"] == "l.csv"


def test_training_finds_the_landmarks_of_a_series_over_several_folders(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 99, (4, 6, 5))
    files = write_series(tmp_path / "p1" / "a", values, spacing=(1, 1), origin=(0, 0, 0))
    (tmp_path / "p1" / "b").mkdir()
    files[2].rename(tmp_path / "p1" / "b" / files[2].name)
    (tmp_path / "l.csv").write_text("image,landmark,x_mm,y_mm,z_mm\np1,s,1,2,3\n")
    scan_to_file(tmp_path, tmp_path / "m.json", landmarks=tmp_path / "l.csv")
    entry = Manifest.read(tmp_path / "m.json").datalist("training")[0]
    assert len(entry["image"]) == 4
    image = read_image(entry["image"])
    points = target_points(entry["landmarks"], None, ["s"], entry["image"][0], image.affine, image.shape[1:])
    np.testing.assert_allclose(points, [[-1, -2, 3]], atol=1e-6)  # RAS+
    voxels = read_landmarks(tmp_path / "l.csv").for_image(entry["image"], image.affine, image.shape[1:]).voxels
    np.testing.assert_allclose(voxels, [[1, 2, 3 / 2.5]], atol=1e-6)
