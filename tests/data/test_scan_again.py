"""A second scan gives what a fresh scan gives, whatever changed in between."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from monai.utils import optional_import
from PIL import Image

from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan_to_file
from medpixcl.data.sources import attached_files, group_files, visible_files

nibabel, _ = optional_import("nibabel")
NOBODY = 65534


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 32), dtype=np.uint8)).save(path)
    return path


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


@contextmanager
def without_rights() -> Iterator[None]:
    """Act as a user without special rights, if the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """Images beside a folder that cannot be listed, and one whose files cannot be opened."""
    root = tmp_path / "images"
    picture(root / "a.png", 0)
    picture(root / "closed" / "b.png", 1)
    header_and_data(root / "locked")
    for one in (tmp_path, *tmp_path.parents[:2]):
        one.chmod(one.stat().st_mode | 0o055)
    (root / "closed").chmod(0)
    (root / "locked").chmod(0o644)
    yield root
    for name in ("closed", "locked"):
        (root / name).chmod(0o755)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs rights as POSIX has them")
def test_a_closed_folder_costs_itself_only(closed: Path) -> None:
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
