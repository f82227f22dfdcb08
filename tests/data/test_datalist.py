"""Training and validation images from a manifest."""

import json
from pathlib import Path
from typing import Any

import pytest

from medpixcl.data.datalist import split_validation


def write(folder: Path, **sections: list[dict[str, Any]]) -> Path:
    path = folder / "manifest.json"
    path.write_text(json.dumps(sections))
    return path


def entries(*groups: str | None, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"image": f"images/{start + n}.png", "spacing_mm": [0.5, 0.5], "duplicate_group": group, "sha256": "0"}
        for n, group in enumerate(groups)
    ]


def names(datalist: list[dict[str, Any]]) -> list[str]:
    return [Path(entry["image"]).stem for entry in datalist]


def test_every_image_on_one_side_with_what_loading_needs(tmp_path):
    split = split_validation(
        write(tmp_path, training=entries(*[None] * 20), test=entries(None, start=90)), fraction=0.2
    )
    assert len(split["validation"]) == 4
    assert sorted(names(split["training"]) + names(split["validation"]), key=int) == [str(n) for n in range(20)]
    for entry in split["training"] + split["validation"]:
        assert entry.keys() == {"image", "spacing_mm"}
        assert Path(entry["image"]).parent == tmp_path / "images"


def test_repeats_stay_on_one_side(tmp_path):
    groups = ["a", None, "b", "a", None, "b", "a", None, "c", "c"]
    path = write(tmp_path, training=entries(*groups))
    held = set()
    for seed in range(20):
        split = split_validation(path, fraction=0.4, seed=seed)
        sides = [{groups[int(name)] for name in names(split[side])} - {None} for side in ("training", "validation")]
        assert not sides[0] & sides[1]
        assert split["training"]
        held |= sides[1]
    assert held == {"a", "b", "c"}


def test_seed(tmp_path):
    path = write(tmp_path, training=entries(*[None] * 30))
    assert split_validation(path, seed=1) == split_validation(path, seed=1)
    chosen = {tuple(names(split_validation(path, seed=seed)["validation"])) for seed in range(8)}
    assert len(chosen) > 4


def test_at_least_one_image_is_held_out(tmp_path):
    split = split_validation(write(tmp_path, training=entries(None, None)), fraction=0.01)
    assert len(split["training"]) == len(split["validation"]) == 1


def test_given_validation_section_is_taken_as_it_is(tmp_path):
    path = write(tmp_path, training=entries(None, None, None), validation=entries(None, start=50))
    split = split_validation(path, fraction=0.5, seed=3)
    assert names(split["training"]) == ["0", "1", "2"]
    assert names(split["validation"]) == ["50"]


@pytest.mark.parametrize("groups", [[None], ["a", "a", "a"]], ids=["one image", "one picture three times"])
def test_nothing_to_divide(tmp_path, groups):
    path = write(tmp_path, training=entries(*groups))
    message = rf"manifest\.json has {len(groups)} image\(s\) to train .* two different ones are needed: add images"
    with pytest.raises(ValueError, match=message):
        split_validation(path)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 10.0])
def test_fraction_is_a_share(tmp_path, fraction):
    path = write(tmp_path, training=entries(None, None))
    with pytest.raises(ValueError, match=rf"^fraction is {fraction}; expected a share between 0 and 1, such as 0\.1$"):
        split_validation(path, fraction=fraction)


def test_no_manifest(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.json does not exist"):
        split_validation(tmp_path / "absent.json")


def several(folder: Path) -> list[Path]:
    paths = []
    for name, sections in (
        ("one", {"training": entries(*[None] * 10)}),
        ("two", {"training": entries(None, None), "validation": entries(None, start=50)}),
    ):
        (folder / name).mkdir()
        paths.append(write(folder / name, **sections))
    return paths


def test_several_manifests_are_divided_one_by_one(tmp_path):
    paths = several(tmp_path)
    for path in paths:  # all entries of one checksum would be one picture
        path.write_text(path.read_text().replace('"sha256": "0"', '"sha256": null'))
    both = split_validation(paths, fraction=0.2, seed=4)
    for side in ("training", "validation"):
        for number, path in enumerate(paths):
            own = [entry | {"source": number} for entry in split_validation(path, fraction=0.2, seed=4)[side]]
            assert own == [entry for entry in both[side] if entry["source"] == number]
    assert [len(both[side]) for side in ("training", "validation")] == [8 + 2, 2 + 1]
    assert split_validation(paths[:1]) == split_validation(str(paths[0]))


@pytest.mark.parametrize("same", ["path", "content"])
def test_a_picture_of_two_manifests(tmp_path, same):
    paths = several(tmp_path)
    if same == "path":
        paths = [paths[0], tmp_path / "one" / "again.json"]
        paths[1].write_text(paths[0].read_text().replace('"0"', "null"))
    with pytest.raises(ValueError, match=r"\.png of .*(two|again).* is also in .*one.*: leave it in one of them"):
        split_validation(paths)


def test_no_manifest_at_all():
    with pytest.raises(ValueError, match=r"^no manifest is given"):
        split_validation([])
