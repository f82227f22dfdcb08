"""Repeats are found by content, look-alikes are not."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as pictures

from medpixcl.data.duplicates import duplicate_groups, image_fingerprint
from medpixcl.data.images import read_image


@pytest.fixture(scope="module")
def camera() -> np.ndarray:
    return pictures.camera().astype(np.float32)


def resaved(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(buffer, format="JPEG", quality=quality)
    return np.asarray(Image.open(buffer), dtype=np.float32)


@pytest.mark.parametrize("change", ["same", "contrast", "offset", "jpeg", "smaller", "noise"])
def test_the_same_picture_again_is_a_repeat(camera: np.ndarray, change: str) -> None:
    again = {
        "same": camera.copy(),
        "contrast": 255 * (camera / 255) ** 1.3,
        "offset": camera * 4 - 1024,
        "jpeg": resaved(camera, 40),
        "smaller": np.asarray(Image.fromarray(camera).resize((300, 300), Image.Resampling.BOX)),
        "noise": camera + np.random.default_rng(0).normal(0, 5, camera.shape).astype(np.float32),
    }[change].astype(np.float32)
    assert duplicate_groups([image_fingerprint(camera), image_fingerprint(again)]) == ["repeat-001", "repeat-001"]


@pytest.mark.parametrize("change", ["mirrored", "shifted", "blurred noise"])
def test_another_picture_is_no_repeat(camera: np.ndarray, change: str) -> None:
    other = {
        "mirrored": camera[:, ::-1],
        "shifted": np.roll(camera, 40, axis=0),
        "blurred noise": np.random.default_rng(0).normal(0, 1, camera.shape),
    }[change].astype(np.float32)
    assert duplicate_groups([image_fingerprint(camera), image_fingerprint(other)]) == [None, None]


def test_groups_join_through_a_common_member_and_keep_the_order(camera: np.ndarray) -> None:
    other = pictures.coins().astype(np.float32)
    prints = [image_fingerprint(one) for one in (other, camera, camera + 1, other, np.flipud(camera).copy())]
    assert duplicate_groups(prints) == ["repeat-001", "repeat-002", "repeat-002", "repeat-001", None]
    assert duplicate_groups(prints, declared=[(4, 2), (3, 4)]) == ["repeat-001"] * 5


def test_constant_images_repeat_only_if_equal() -> None:
    prints = [image_fingerprint(np.full((8, 8), value, np.float32)) for value in (0, 0, 1)]
    assert duplicate_groups(prints) == ["repeat-001", "repeat-001", None]


def test_volumes_repeat_by_content_and_never_with_pictures(camera: np.ndarray) -> None:
    volume = np.stack([np.roll(camera, shift, axis=1)[::8, ::8] for shift in range(0, 64, 4)])
    prints = [image_fingerprint(one) for one in (volume, volume * 2 - 5, volume[::-1].copy(), camera)]
    assert duplicate_groups(prints) == ["repeat-001", "repeat-001", None, None]


def test_no_image_no_group() -> None:
    assert duplicate_groups([]) == []


@pytest.mark.data
@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("cxr_nih/images/*", {("00002658_001", "00002658_002")}),
        ("headct_hemorrhage/images/*", {("011", "061")}),
        ("natural_bsds/*.jpg", set()),
        ("hippocampus_mr/images/*", set()),
    ],
)
def test_no_false_repeat_among_look_alikes(data_dir: Path, pattern: str, expected: set) -> None:
    """Chest films of one patient, neighbouring CT slices and aligned MR crops stay apart."""
    paths = sorted(data_dir.glob(pattern))
    assert len(paths) >= 90
    assert repeats(paths) == expected


@pytest.mark.data
def test_the_known_repeats_of_the_cephalograms_are_found_and_no_other(data_dir: Path) -> None:
    folder = data_dir / "ceph_isbi2015"
    with (folder / "splits.csv").open(encoding="utf-8") as file:
        known = {tuple(sorted((row["id"], row["duplicate_of"]))) for row in csv.DictReader(file) if row["duplicate_of"]}
    assert len(known) == 23
    assert repeats(sorted((folder / "images").iterdir())) == known


def repeats(paths: list[Path]) -> set[tuple[str, str]]:
    groups = duplicate_groups([image_fingerprint(read_image(path, spacing_mm=1)[0].numpy()) for path in paths])
    members: dict[str, list[str]] = {}
    for path, group in zip(paths, groups, strict=True):
        if group is not None:
            members.setdefault(group, []).append(path.stem)
    assert all(len(one) == 2 for one in members.values())
    return {(one[0], one[1]) for one in members.values()}
