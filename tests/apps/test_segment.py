"""Where the writer of segmentations puts its files: none is written twice."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image

from medpixcl.apps.images import ImageList
from medpixcl.apps.segment import SegmentationWriter
from tests.data.scanned import picture

SHAPE = (6, 8)


def write(folder: Path, names: list[str], classes: list[str], overlapping: bool) -> list[Path]:
    """Segment pictures: in the picture with the number n the classes (of exclusive ones the last) fill n + 1 cells."""
    for number, name in enumerate(names):
        picture(folder / "images" / name, number, SHAPE)
    images = ImageList(folder / "images", spacing_mm=1.0)
    items = [item["image"] for item in images.datalist]
    batch = [{"image": MetaTensor(torch.zeros(1, *SHAPE), meta={"filename_or_obj": one})} for one in items]

    def segmented(engine: Engine, batch: list[dict[str, MetaTensor]]) -> list[dict[str, MetaTensor]]:
        channels = len(classes) if overlapping else len(classes) + 1
        found = torch.zeros(len(batch), channels, *SHAPE)
        for number in range(len(batch)):
            found[number].flatten(1)[:, : number + 1] = 1 if overlapping else torch.eye(channels)[-1][:, None]
        return [{"pred": MetaTensor(one)} for one in found]

    engine = Engine(segmented)
    SegmentationWriter(classes, images, str(folder / "out"), overlapping).attach(engine)
    engine.run([batch])
    return sorted(path for path in (folder / "out").rglob("*") if path.is_file())


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["p1/chest.png", "p2/chest.png"], ["heart", "lung"]),
        (["chest.png", "chest.tif"], ["heart", "lung"]),
        (["p1/chest.png", "p1/Chest.PNG"], ["heart", "lung"]),
        (["a.png", "a_left.png"], ["lung", "left_lung"]),  # a + left_lung, a_left + lung
        (["a.png", "b.png"], ["left/lung", "left_lung"]),
        (["a.png", "b.png"], ["Lung", "lung"]),
    ],
)
def test_every_image_and_class_has_a_file_of_its_own(
    tmp_path: Path, names: list[str], classes: list[str], overlapping: bool
) -> None:
    files = write(tmp_path, names, classes, overlapping)
    assert len({str(file).casefold() for file in files}) == len(names) * (len(classes) if overlapping else 1)
    sizes = [int((np.asarray(Image.open(file)) > 0).sum()) for file in files]
    assert sorted(sizes) == sorted([1, 2] * (len(classes) if overlapping else 1))
