"""Digests of annotated images change with everything that decides what is found with them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from monai.transforms import Compose

from medpixcl.apps.digests import annotated_digest, path_digest
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.matching import AnnotatedImage
from medpixcl.transforms import LoadImageMMd, WorkingSpacingd
from tests.data.dicom_files import write_series

MARKS = LandmarkSet(("a",), torch.tensor([[2.0, 3.0, 1.0]]), torch.ones(1), ("",))


LOADED = Compose([LoadImageMMd("image")])


def digest(image: object, marks: LandmarkSet = MARKS) -> str:
    return annotated_digest([AnnotatedImage({"image": image}, marks, LOADED)])


def test_pixels_beside_a_header(tmp_path: Path) -> None:
    """The header stays as it is, the file of voxels that it names does not."""
    voxels = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(tmp_path / "t.mhd"))
    before, of_path = digest(str(tmp_path / "t.mhd")), path_digest(tmp_path / "t.mhd")
    raw = tmp_path / "t.raw"
    raw.write_bytes(raw.read_bytes()[::-1])
    assert digest(str(tmp_path / "t.mhd")) != before
    assert path_digest(tmp_path / "t.mhd") != of_path


@pytest.mark.parametrize("listed", [True, False])
def test_any_slice_of_a_series(listed: bool, tmp_path: Path) -> None:
    voxels = np.arange(5 * 6 * 7).reshape(5, 6, 7).astype(np.int16)
    for name, step in (("one", 0), ("other", 1)):
        changed = voxels.copy()
        changed[2] += step
        write_series(tmp_path / name, changed)
    image = tmp_path / "image"
    digests = []
    for name in ("one", "one", "other"):
        shutil.rmtree(image, ignore_errors=True)
        shutil.copytree(tmp_path / name, image)
        digests.append(digest(sorted(map(str, image.iterdir())) if listed else str(image)))
    assert digests[0] == digests[1] != digests[2]


def test_spacing_that_the_file_does_not_state(tmp_path: Path) -> None:
    flat = LandmarkSet(("a",), torch.tensor([[2.0, 3.0]]), torch.ones(1), ("",))
    picture = SimpleITK.GetImageFromArray(np.arange(48, dtype=np.uint8).reshape(6, 8))
    SimpleITK.WriteImage(picture, str(tmp_path / "t.png"))
    alike = Compose([LoadImageMMd("image"), WorkingSpacingd("image", [1.0, 1.0])])
    for loaded in (LOADED, alike):  # as it is in the file, and as all images are brought to one spacing
        items = [{"image": str(tmp_path / "t.png"), "spacing_mm": [size, size]} for size in (1.0, 0.5)]
        assert len({annotated_digest([AnnotatedImage(item, flat, loaded)]) for item in items}) == 2
