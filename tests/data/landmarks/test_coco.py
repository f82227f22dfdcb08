"""COCO keypoints: indices as they are, visibility for missing landmarks, and files of others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from medpixcl.coordinates import image_affine
from medpixcl.data.landmarks.coco import read_coco_rows, write_coco
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.landmarks.points import LandmarkSet

NAN = float("nan")


def picture(name: str, names: tuple[str, ...], voxels: list[list[float]]) -> ImageLandmarks:
    points = LandmarkSet(names, torch.tensor(voxels), torch.tensor([0.5] * len(names)), ("",) * len(names))
    return ImageLandmarks(name, points, image_affine((0.5, 0.25)), (20, 30))


def test_fields_by_hand(tmp_path: Path) -> None:
    first = picture("a/1.png", ("s", "n"), [[3.5, 10.0], [NAN, NAN]])
    second = picture("a/2.png", ("n", "p"), [[0.0, 0.0], [19.0, 29.0]])
    write_coco(tmp_path / "c.json", [first, second])
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["categories"][0]["keypoints"] == ["s", "n", "p"]
    assert content["images"][1] == {"id": 2, "file_name": "a/2.png", "width": 30, "height": 20}
    one, two = content["annotations"]
    assert one["keypoints"] == [10.0, 3.5, 2, 0, 0, 0, 0, 0, 0]  # centre of the first pixel is (0, 0)
    assert (one["num_keypoints"], one["bbox"], one["area"]) == (1, [10.0, 3.5, 1.0, 1.0], 1.0)
    assert one["positions_lps_mm"] == [[2.5, 1.75], None, None]
    assert one["keypoint_scores"] == [0.5, 0.5, None]
    assert two["keypoints"] == [0, 0, 0, 0.0, 0.0, 2, 29.0, 19.0, 2]
    assert two["bbox"] == [0.0, 0.0, 30.0, 20.0]  # from corner to corner of the picture


def test_random_positions_come_back_to_the_last_bit(tmp_path: Path) -> None:
    voxels = torch.rand(40, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 19
    names = tuple(f"l{number}" for number in range(40))
    one = ImageLandmarks("x.png", LandmarkSet(names, voxels), image_affine((0.3, 0.7)), (20, 30))
    write_coco(tmp_path / "c.json", [one])
    assert torch.equal(read_landmarks(tmp_path / "c.json").for_image("x.png", one.affine, (20, 30)).voxels, voxels)


def others(**changes: Any) -> dict[str, Any]:
    """A file as other tools write it."""
    annotation = {"id": 7, "image_id": 4, "category_id": 9, "keypoints": [5, 6, 1, 0, 0, 0, 7.5, 8.5, 2], **changes}
    return {
        "images": [{"id": 4, "file_name": "hip.png", "width": 30, "height": 20}],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 2, "bbox": [0, 0, 1, 1]}, annotation],
        "categories": [{"id": 2, "name": "box"}, {"id": 9, "name": "hip", "keypoints": ["a", "b", "c"]}],
    }


def test_a_file_of_another_tool(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(others()))
    points = read_landmarks(tmp_path / "c.json").for_image("hip.png", image_affine((1.0, 1.0)), (20, 30))
    assert points.names == ("a", "b", "c")
    expected = torch.tensor([[6, 5], [NAN, NAN], [8.5, 7.5]], dtype=torch.float64)  # an occluded one has a position
    torch.testing.assert_close(points.voxels, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": [1, 2, 2]}, "annotation 7 has 3 numbers for 3 keypoints; expected three each"),
        ({"keypoints": [1, 2, 5] * 3}, r"annotation 7: keypoint 'a' is \(1, 2, 5\); expected x, y and 0, 1 or 2"),
        ({"keypoints": [None, 2, 2] * 3}, "keypoint 'a' is"),
        ({"image_id": 99}, "is no COCO keypoint file"),
    ],
)
def test_bad_annotations(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps(others(**changes)))
    with pytest.raises(ValueError, match=message):
        read_coco_rows(tmp_path / "c.json")


def test_a_volume_is_refused(tmp_path: Path) -> None:
    volume = ImageLandmarks(
        "v.nii", LandmarkSet(("a",), torch.ones(1, 3)), torch.eye(4, dtype=torch.float64), (4, 4, 4)
    )
    with pytest.raises(ValueError, match=r"v\.nii is a volume, and COCO keypoints are 2D; write csv"):
        write_coco(tmp_path / "c.json", [volume])
