"""Which annotated images are trained on, and the target that several readers make."""

import csv
import json
from pathlib import Path

import pytest
import torch

from medpixcl.coordinates import image_affine
from medpixcl.data.annotated import (
    landmark_names,
    split_annotated,
    target_points,
    target_weights,
    weighted_mean,
)
from medpixcl.data.manifest import Manifest
from medpixcl.data.phantoms import write_landmark_phantoms, write_phantoms
from medpixcl.data.scan import scan
from medpixcl.data.seeded import EpochSampler
from tests.tiny import medpixcl


def entries(number: int, start: int = 0, **more: object) -> list[dict]:
    return [{"image": f"{start + index}.png", "landmarks": "l.csv", **more} for index in range(number)]


def names(items: list[dict]) -> list[str]:
    return [Path(item["image"]).stem for item in items]


def test_images_without_landmarks_are_not_taken(tmp_path: Path) -> None:
    Manifest(
        training=[*entries(4), {"image": "9.png", "landmarks": None}, {"image": "8.png"}],
        test=entries(2, 20),
        base_dir=tmp_path,
    ).write(tmp_path / "m.json")
    split = split_annotated(tmp_path / "m.json", fraction=0.25)
    assert len(split["validation"]) == 1
    assert sorted(names(split["training"]) + names(split["validation"])) == ["0", "1", "2", "3"]
    assert split["training"][0]["landmarks"] == str(tmp_path / "l.csv")


def test_a_validation_section_is_taken_as_it_is(tmp_path: Path) -> None:
    Manifest(training=entries(4), validation=entries(2, 10)).write(tmp_path / "m.json")
    split = split_annotated(tmp_path / "m.json", images=3)
    assert names(split["validation"]) == ["10", "11"]
    assert len(split["training"]) == 3


@pytest.mark.parametrize("seed", range(5))
def test_repeats_stay_on_one_side(seed: int, tmp_path: Path) -> None:
    pairs = [{"image": f"{n}.png", "landmarks": "l.csv", "duplicate_group": f"r{n // 2}"} for n in range(8)]
    Manifest(training=pairs).write(tmp_path / "m.json")
    split = split_annotated(tmp_path / "m.json", fraction=0.3, seed=seed)
    sides = [{int(name) // 2 for name in names(split[side])} for side in ("training", "validation")]
    assert not sides[0] & sides[1]
    assert len(sides[1]) == 2


def test_draws_are_nested_and_differ_by_seed(tmp_path: Path) -> None:
    Manifest(training=entries(30)).write(tmp_path / "m.json")
    drawn = {
        (seed, number): set(
            names(split_annotated(tmp_path / "m.json", fraction=0, seed=seed, images=number)["training"])
        )
        for seed in range(3)
        for number in (1, 5, 25)
    }
    for seed in range(3):
        assert drawn[seed, 1] < drawn[seed, 5] < drawn[seed, 25]
        assert [len(drawn[seed, number]) for number in (1, 5, 25)] == [1, 5, 25]
    assert len({frozenset(drawn[seed, 5]) for seed in range(3)}) == 3


def test_bad_splits(tmp_path: Path) -> None:
    Manifest(training=[{"image": "a.png"}]).write(tmp_path / "none.json")
    with pytest.raises(ValueError, match="has no training image with landmarks; make a manifest with"):
        split_annotated(tmp_path / "none.json")
    Manifest(training=entries(2)).write(tmp_path / "two.json")
    with pytest.raises(ValueError, match="has 2 training images with landmarks; 3 are asked for"):
        split_annotated(tmp_path / "two.json", images=3)
    with pytest.raises(ValueError, match=r"fraction is 1.0; expected a share"):
        split_annotated(tmp_path / "two.json", fraction=1.0)
    (tmp_path / "bad.json").write_text(json.dumps({"training": [{"image": "a.png", "landmarks": {"senior": 1}}]}))
    with pytest.raises(ValueError, match=r"landmarks of entry 0 of training is .*; expected the path of a landmark"):
        Manifest.read(tmp_path / "bad.json")


def test_target_weights() -> None:
    assert target_weights(["a", "b"], None) == target_weights(["a", "b"], "mean") == {"a": 1, "b": 1}
    assert target_weights(["mean", "a"], "mean") == {"mean": 1}
    assert target_weights(["a", "b"], {"a": 2, "b": 0}) == {"a": 2}
    for target, message in (
        ("c", "target names the reader 'c'; the manifest has a, b"),
        ({"a": -1, "b": 2}, "expected none below 0"),
        ({"a": 0}, "expected none below 0, and one above"),
    ):
        with pytest.raises(ValueError, match=message):
            target_weights(["a", "b"], target)


def test_weighted_mean_of_three_readers() -> None:
    """By hand: (1 * 0 + 2 * 3 + 1 * 4) / 4; without the second (0 + 4) / 2; nobody."""
    nan = float("nan")
    points = torch.tensor([[[0.0], [0.0], [nan]], [[3.0], [nan], [nan]], [[4.0], [4.0], [nan]]])
    torch.testing.assert_close(weighted_mean(points, [1, 2, 1]), torch.tensor([[2.5], [2.0], [nan]]), equal_nan=True)


def test_target_of_an_image(tmp_path: Path) -> None:
    """Pixels of 0.5 mm, LPS in files, RAS inside; names in the order asked for, a foreign one left out."""
    for reader, shift in (("senior", 0.0), ("junior", 2.0)):
        with (tmp_path / f"{reader}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image", "landmark", "x_px", "y_px", "spacing_mm"])
            table.writerows([["a.png", "N", 10 + shift, 20, 0.5], ["a.png", "S", 4, 6, 0.5], ["a.png", "X", 1, 1, 0.5]])
    files = {reader: str(tmp_path / f"{reader}.csv") for reader in ("senior", "junior")}
    place = (["S", "N", "missing"], str(tmp_path / "a.png"), image_affine((0.5, 0.5)), [40, 40])
    nan = float("nan")
    for target, column in (("senior", 10.0), ("mean", 11.0), ({"senior": 1, "junior": 3}, 11.5)):
        found = target_points(files, target, *place)
        wanted = torch.tensor([[-2.0, -3.0], [-column / 2, -10.0], [nan, nan]], dtype=torch.float64)
        torch.testing.assert_close(found, wanted, equal_nan=True)


def test_a_series_is_found_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("image,landmark,x_px,y_px,z_px\nscans/ct,tip,1,2,3\n")
    found = target_points(
        str(tmp_path / "l.csv"), None, ["tip"], str(tmp_path / "scans/ct/0.dcm"), torch.eye(4), [9] * 3
    )
    assert found.tolist() == [[1, 2, 3]]


def test_scan_lists_several_readers(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "images", 2, (24, 20))
    for reader, rows in (("a", [0, 1]), ("b", [1])):
        lines = [f"images/phantom_{row:03d}.png,{name},5,5,1" for row in rows for name in ("p", f"of_{reader}")]
        (tmp_path / f"{reader}.csv").write_text("\n".join(["image,landmark,x_px,y_px,spacing_mm", *lines]) + "\n")
    readers = {reader: tmp_path / f"{reader}.csv" for reader in "ab"}
    manifest = scan(tmp_path / "images", spacing_mm=1, landmarks=readers)
    assert [one["landmarks"] for one in manifest.training] == [{"a": "../a.csv"}, {"a": "../a.csv", "b": "../b.csv"}]
    words = [word for reader, path in readers.items() for word in ("--landmarks", f"{reader}={path}")]
    assert medpixcl("scan", tmp_path / "images", "-o", tmp_path / "m.json", "--spacing-mm", 1, *words) == 0
    item = Manifest.read(tmp_path / "m.json").datalist("training")[1]
    assert item["landmarks"] == {reader: str(path) for reader, path in readers.items()}
    assert landmark_names(tmp_path / "m.json", []) == ["p", "of_a", "of_b"]
    assert landmark_names(tmp_path / "none.json", ["x"]) == ["x"]


def test_volume_phantoms_are_bright_round_their_landmarks(tmp_path: Path) -> None:
    """The shell round a landmark: in mm of the file, read back into voxels."""
    from medpixcl.data.images import read_image

    (item,) = write_landmark_phantoms(tmp_path, 1, (30, 34, 28), landmarks=3)
    image = read_image(Path(item["image"]))
    points = target_points(item["landmarks"], None, ["3"], item["image"], image.affine, image.shape[1:])
    grid = torch.stack(torch.meshgrid(*[torch.arange(n) for n in image.shape[1:]], indexing="ij"), -1).double()
    distance = (grid - points[0]).norm(dim=-1)
    near = (distance - 0.12 * 28).abs() < 0.5
    assert image[0][near].mean() > 0.7
    assert image[0][distance < 1].mean() < 0.4


@pytest.mark.parametrize("size", [3, 40])
def test_an_epoch_has_the_items_asked_for(size: int) -> None:
    sampler = EpochSampler(range(size * 10), items=12)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    assert len(sampler) == len(epochs[0]) == len(set(epochs[0])) == 12
    assert [index for _, index in epochs[0]] != [index for _, index in epochs[1]]
    assert len(EpochSampler(range(5), items=12)) == 5
