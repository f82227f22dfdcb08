"""The data that a training began with: files beside a header are a part of its image."""

from pathlib import Path

import pytest

from medpixcl.training.record import TrainingRecord
from tests.data.test_volumes import metaimage, nrrd


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_changed_voxels_beside_a_header_are_noticed(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(60))
    if name == "a.mhd":
        path = metaimage(tmp_path / name, "ElementSpacing = 1 1 1", data="a.raw")
    else:
        path = nrrd(tmp_path / name, "spacings: 1 1 1", "data file: a.raw", content=b"")
    record, items = TrainingRecord(tmp_path), [{"image": str(path)}]
    record.compare_images(items)
    record.compare_images(items)
    (tmp_path / "a.raw").write_bytes(bytes([1]) * 60)
    with pytest.raises(ValueError, match=rf"the image {name} or its annotation has changed since this training began"):
        record.compare_images(items)
