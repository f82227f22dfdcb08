"""Labels of images reach the manifest without the patients' names; splits share neither patient nor repeat."""

import json
from collections import Counter

import numpy as np
import pytest

from medpixcl.data.class_labels import ClassTable, split_labelled, tied_images
from medpixcl.data.phantoms import write_phantoms
from medpixcl.data.scan import scan
from tests.tiny import medpixcl


def write_rows(path, rows, header="image,sick,who"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def labelled_manifest(path, number=60, patients=20, **sections):
    """Entries without images: two classes, patients of several images, two pairs of repeats."""
    random = np.random.default_rng(0)
    entries = [
        {"image": f"{i}.png", "label": i % 2, "group": f"group-{(i // 2) % patients:04d}", "duplicate_group": None}
        for i in random.permutation(number).tolist()
    ]
    for first, second, name in ((0, 9, "repeat-001"), (4, 30, "repeat-002")):
        entries[first]["duplicate_group"] = entries[second]["duplicate_group"] = name
    path.write_text(json.dumps({"training": entries, **sections}), encoding="utf-8")
    return entries


def test_scan_takes_classes_and_hides_patients(tmp_path):
    write_phantoms(tmp_path / "images", 4, (24, 24))
    rows = [f"phantom_00{i}.png,{i % 2},Doe^{'AB'[i // 2]}" for i in range(3)]
    table = write_rows(tmp_path / "images" / "labels.csv", rows)
    options = ["--classes", table, "--class-column", "sick", "--group-column", "who", "--spacing-mm", 1]
    assert medpixcl("scan", tmp_path / "images", "-o", tmp_path / "m.json", *options) == 0
    text = (tmp_path / "m.json").read_text(encoding="utf-8")
    assert "Doe" not in text
    found = [(entry.get("label"), entry.get("group")) for entry in json.loads(text)["training"]]
    assert found == [(0, "group-0001"), (1, "group-0001"), (0, "group-0002"), (None, None)]
    assert json.loads(text)["rejected"] == []


def test_ties_go_through_patients_and_repeats():
    """One patient's image repeats another's: all their images belong together."""
    entries = [
        {"group": "a"},
        {"group": "b", "duplicate_group": "r"},
        {"group": "a", "duplicate_group": "r"},
        {"group": "c"},
        {},
        {"group": "b"},
    ]
    assert tied_images(entries) == [0, 0, 0, 3, 4, 0]


@pytest.mark.parametrize("seed", range(5))
def test_no_patient_and_no_repeat_on_two_sides(tmp_path, seed):
    entries = labelled_manifest(tmp_path / "m.json")
    sides = split_labelled(tmp_path / "m.json", seed=seed)
    assert sum(map(len, sides.values())) == 60
    where = {}
    by_name = {entry["image"]: entry for entry in entries}
    for side, items in sides.items():
        assert set(items[0]) == {"image", "label"}
        assert {item["label"] for item in items} == {0, 1}
        for item in items:
            entry = by_name[item["image"].rpartition("/")[2]]
            for mark in filter(None, (entry["group"], entry["duplicate_group"])):
                assert where.setdefault(mark, side) == side
    assert 8 <= len(sides["test"]) <= 24


def test_fewer_labels_test_on_the_same_images(tmp_path):
    labelled_manifest(tmp_path / "m.json", number=200, patients=200)
    whole, tenth = (split_labelled(tmp_path / "m.json", label_share=share, seed=3) for share in (1, 0.1))
    assert (whole["test"], whole["validation"]) == (tenth["test"], tenth["validation"])
    names = {item["image"] for item in whole["training"]}
    assert {item["image"] for item in tenth["training"]} < names
    assert len(tenth["training"]) == pytest.approx(len(names) / 10, abs=2)
    counts = Counter(item["label"] for item in tenth["training"])
    assert counts[0] > 0
    assert counts[1] > 0


def test_own_sections_stay(tmp_path):
    tests = [{"image": f"t{i}.png", "label": i % 2} for i in range(4)]
    labelled_manifest(tmp_path / "m.json", test=tests)
    found = split_labelled(tmp_path / "m.json")["test"]
    assert [item["image"].rpartition("/")[2] for item in found] == ["t0.png", "t1.png", "t2.png", "t3.png"]
    labelled_manifest(tmp_path / "m.json", test=[*tests, {"image": "x.png", "label": 0, "group": "group-0003"}])
    with pytest.raises(ValueError, match="of one patient, or repeats of one picture, are in training and in test"):
        split_labelled(tmp_path / "m.json")


def test_bad_input(tmp_path):
    path = tmp_path / "labels.csv"
    for rows, wanted in (
        (["a.png,0,x", "b.png,0,y"], "all 2 images of .*labels.csv have the class 0; classification needs images of 2"),
        (["a.png,sick,x"], "line 2: the class is 'sick'; expected an image and a number from 0"),
        (["a.png,0,x", "a.png,1,x"], "line 3: 'a.png' stands twice"),
        ([], "has no label"),
    ):
        with pytest.raises(ValueError, match=wanted):
            ClassTable(write_rows(path, rows), "sick", "who")
    with pytest.raises(ValueError, match=r"has the columns image, sick, who; expected image \(or id\), label"):
        ClassTable(path)
    with pytest.raises(ValueError, match="does not exist"):
        ClassTable(tmp_path / "none.csv")
    write_phantoms(tmp_path / "images", 1, (24, 24))
    strange = ClassTable(write_rows(path, ["a.png,0,x", "b.png,1,y"]), "sick")
    with pytest.raises(ValueError, match="names none of the images found"):
        strange.add_to(scan(tmp_path / "images", spacing_mm=1.0))


def test_bad_splits(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"training": [{"image": f"{i}.png", "label": 1} for i in range(9)]}))
    with pytest.raises(ValueError, match=r"all 9 images of .*m.json have the class 1"):
        split_labelled(path)
    labelled_manifest(path)
    with pytest.raises(ValueError, match="label_share is 0"):
        split_labelled(path, label_share=0)
    path.write_text(json.dumps({"training": [{"image": f"{i}.png", "label": i % 3} for i in range(9)]}))
    with pytest.raises(ValueError, match="classes from 0 to 2; the network has 0 to 1"):
        split_labelled(path)
    path.write_text(json.dumps({"training": [{"image": "0.png", "label": 0}, {"image": "1.png", "label": 1}]}))
    with pytest.raises(ValueError, match=r"the training side of .*m.json has no label"):
        split_labelled(path)
