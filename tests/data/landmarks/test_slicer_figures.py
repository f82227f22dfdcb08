"""Lines and angles of Slicer: the public schema, hand-computed measures, points that come back."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch

from medpixcl.coordinates import image_affine
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.slicer_figures import Figure, read_figures, write_figures
from medpixcl.landmarks.points import LandmarkSet

OBLIQUE = torch.tensor(
    [[-1.6, 0.9, 0.0, 20.0], [-1.2, -1.2, 0.0, 30.0], [0.0, 0.0, 3.0, -40.0], [0.0, 0.0, 0.0, 1.0]],
    dtype=torch.float64,
)
FIGURES = [Figure("base", ("S", "N")), Figure("SNA", ("S", "N", "A")), Figure("SNB", ("S", "N", "B"))]
NAN = float("nan")


def points(dims: int) -> LandmarkSet:
    flat = torch.tensor([[10.0, 4.0, 2.0], [10.0, 16.0, 2.0], [16.0, 16.0, 2.0], [NAN, NAN, NAN]])
    return LandmarkSet(("S", "N", "A", "B"), flat[:, :dims])


@pytest.mark.parametrize("dims", [2, 3])
def test_figures_follow_the_schema_and_come_back(tmp_path: Path, data_dir: Path, dims: int) -> None:
    affine = image_affine((0.5, 0.25)) if dims == 2 else OBLIQUE
    path = tmp_path / "head.mrk.json"
    write_figures(path, points(dims), affine, FIGURES)
    content = json.loads(path.read_text())
    schema = data_dir.parent / "schemas" / "slicer-markups-schema-v1.0.3.json"
    jsonschema.validate(content, json.loads(schema.read_text(encoding="utf-8")))
    assert [(one["type"], one["name"]) for one in content["markups"]] == [
        ("Line", "base"), ("Angle", "SNA"), ("Angle", "SNB"),
    ]  # fmt: skip
    measured = [one["measurements"][0] for one in content["markups"]]
    # 12 columns of 0.25 mm; 12 steps of the second axis, (0.9, -1.2): 1.5 mm each. The axes are perpendicular in both.
    assert measured[0]["value"] == pytest.approx({2: 3.0, 3: 18.0}[dims])
    assert measured[1]["value"] == pytest.approx({2: 90.0, 3: 90.0}[dims])
    assert "value" not in measured[2]
    found = read_figures(path)
    assert [row.landmark for row in found["SNA"]] == ["S", "N", "A"]  # the apex in the middle
    assert found["SNB"][2].mm is None
    if dims == 2:
        assert found["SNA"][2].mm == pytest.approx((16 * 0.25, 16 * 0.5, 0.0))
    else:
        assert found["base"][0].mm == pytest.approx((16.0 - 3.6 - 20.0, 12.0 + 4.8 - 30.0, 6.0 - 40.0))


def test_an_angle_near_zero(tmp_path: Path) -> None:
    """One thousandth of a pixel over a thousand: 1e-6 rad, which an arc cosine of single numbers would lose."""
    near = LandmarkSet(("a", "b", "c"), torch.tensor([[0.0, 1000.0], [0.0, 0.0], [0.001, 1000.0]], dtype=torch.float64))
    write_figures(tmp_path / "a.mrk.json", near, image_affine((1.0, 1.0)), [Figure("angle", ("a", "b", "c"))])
    (one,) = json.loads((tmp_path / "a.mrk.json").read_text())["markups"]
    assert one["measurements"][0]["value"] == pytest.approx(5.7295779513e-05, rel=1e-6)


def test_bad_figures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="figure 'x' has 1 landmarks; expected 2"):
        Figure("x", ("a",))
    path = tmp_path / "a.mrk.json"
    with pytest.raises(ValueError, match="need the landmarks Z, which are not among the points"):
        write_figures(path, points(2), image_affine((1.0, 1.0)), [Figure("l", ("S", "Z"))])
    with pytest.raises(ValueError, match="no line or angle to write"):
        write_figures(path, points(2), image_affine((1.0, 1.0)), [])
    line = {"type": "Line", "name": "l", "controlPoints": [{"label": "1", "position": [0, 0, 0]}]}
    path.write_text(json.dumps({"markups": [line]}))
    with pytest.raises(ValueError, match="Line 'l' has 1 points; expected 2"):
        read_figures(path)
    path.write_text(json.dumps({"markups": []}))
    with pytest.raises(ValueError, match="holds no Line and no Angle"):
        read_figures(path)
    with pytest.raises(ValueError, match="holds no point list"):
        read_landmarks(path)
