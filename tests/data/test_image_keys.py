"""A key names the image that it leads to; the end of a path names it only where no other image ends so."""

from pathlib import Path

import pytest

from medpixcl.data.identity import unique_output_names, unique_stems
from medpixcl.data.image_keys import FilesOfImages, ImageKeys

SET = [Path("/set") / name for name in ("p1/ceph.png", "p2/ceph.png", "p3/other.png")]


def keys(*names: str, table: str = "/set/l.csv") -> dict[str, str]:
    found = ImageKeys(Path(table), names).assign(SET)
    return {path.relative_to("/set").as_posix(): key for path, key in found.keys.items()}


@pytest.mark.parametrize("table", ["/set/l.csv", "/elsewhere/l.csv"])
def test_a_key_with_a_folder_names_no_image_of_another(table: str) -> None:
    assert keys("p1/ceph.png", table=table) == {"p1/ceph.png": "p1/ceph.png"}
    assert keys("p9/ceph.png", "p9/other", table=table) == {}


@pytest.mark.parametrize("key", ["other.png", "other", "p3/other", "../set/p3/other.png", "p3\\other.png"])
def test_other_spellings_of_one_image(key: str) -> None:
    assert keys(key) == {"p3/other.png": key}


def test_a_bare_name_of_several_images_names_none() -> None:
    found = ImageKeys(Path("/set/l.csv"), ["ceph.png"]).assign(SET)
    assert found.keys == {}
    assert found.unclear == {"ceph.png": SET[:2]}


def test_a_path_counts_before_the_end_of_one() -> None:
    assert keys("p1/ceph.png", "ceph") == {"p1/ceph.png": "p1/ceph.png"}
    assert keys("ceph.png", table="/set/p2/l.csv") == {"p2/ceph.png": "ceph.png"}


def test_composed_and_decomposed_letters() -> None:
    image = Path("/set/p/Mu\u0308ller.png")
    assert ImageKeys(Path("/set/l.csv"), ["p/M\u00fcller.png"]).assign([image]).keys == {image: "p/M\u00fcller.png"}
    twins = [image, Path("/set/p/M\u00fcller.png")]
    assert ImageKeys(Path("/set/l.csv"), ["p/M\u00fcller.png"]).assign(twins).keys == {}


def test_a_uid_has_no_start() -> None:
    files = FilesOfImages(Path("/maps"), [Path("/maps/1.2.840.5.nii.gz")])
    assert files.find(Path("/images/1.2.840.7"), [Path("/images")]) == []
    assert files.find(Path("/images/1.2.840.5"), [Path("/images")]) == [Path("/maps/1.2.840.5.nii.gz")]


def test_output_names_are_never_one_file() -> None:
    images = ["x.png", "x.dcm", "x.png.png", "X.PNG", "a/b_1.png", "a_b/1.png", "c/b_1.png", "d/1.png", "../a/b_1.png"]
    for names in (unique_stems(images[:-1]), unique_output_names(images)):
        assert len({name.casefold() for name in names.values()}) == len(names)
