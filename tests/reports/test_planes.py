"""The picture of all landmarks of a volume: its slices, marks, texts, and what is missing."""

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle

from medpixcl.reports.cuts import MarkedVolume, cuts_through
from medpixcl.reports.figures import figure_to_array
from medpixcl.reports.planes import FOUND, MARKED, MOST, PLACED, TILE, landmark_planes

NAN = float("nan")
POINTS = np.array([[12.0, 14.0, 13.0], [18.0, 10.0, 11.0], [14.0, 20.0, 17.0]])
NAMES = ["sella", "nasion", "a long name"]


def volume(points: np.ndarray = POINTS, seed: int = 0, affine: np.ndarray | None = None) -> MarkedVolume:
    values = np.random.default_rng(seed).random((30, 28, 26))
    return MarkedVolume(image=values, points=points, affine=np.diag([-1.0, -1.0, 1.0, 1]) if affine is None else affine)


def marks(figure: Figure, kind: str) -> np.ndarray:
    """Positions (x, y) of the crosses of a kind."""
    found = [one.get_offsets() for one in figure.axes[0].collections if one.get_label() == kind]
    return np.asarray(found[0]) if found else np.empty((0, 2))


def texts(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.axes[0].texts]


def tile_at(figure: Figure, place: np.ndarray) -> np.ndarray:
    """The slice around a cross that stands in its middle."""
    left, top = np.round(place - (TILE - 1) / 2).astype(int)
    return np.asarray(figure.axes[0].images[0].get_array())[top : top + TILE, left : left + TILE]


def letters(figure: Figure) -> dict[str, Any]:
    """Positions of each letter, told apart by the outlines of the letters as matplotlib draws them."""
    outlines = {letter: MarkerStyle(f"${letter}$").get_path().vertices for letter in "RLAPSI"}
    found: dict[str, Any] = {}
    for one in figure.axes[0].collections:
        shape = one.get_paths()[0].vertices
        for letter, outline in outlines.items():
            if shape.shape == outline.shape:
                scale = shape - shape.mean(axis=0), outline - outline.mean(axis=0)
                if np.allclose(*(part / np.abs(part).max() for part in scale), atol=1e-3):
                    found[letter] = np.asarray(one.get_offsets())
    return found


def test_three_slices_of_each_landmark_and_of_the_template() -> None:
    found, template = volume(), volume(POINTS + 1, seed=1)
    figure = landmark_planes(found, NAMES, templates=[template])
    crosses, given = marks(figure, FOUND), marks(figure, MARKED)
    assert len(crosses) == len(given) == 9
    for image, places in ((found, crosses), (template, given)):
        for number, point in enumerate(image.voxels):
            cuts = cuts_through(image, point, side_mm=found.side_mm, pixels=TILE)
            for cut, place in zip(cuts, places[3 * number :], strict=False):
                np.testing.assert_array_equal(tile_at(figure, place), cut.panel.picture)
    assert (given[:3, 0] > crosses[:3, 0].max()).all()
    assert (given[:3, 1] == crosses[:3, 1]).all()


def test_reference_stands_in_the_slices_near_it() -> None:
    """4 mm further to the patient's left: in the axial and coronal slice to the right, and in no sagittal one."""
    reference = POINTS.copy()
    reference[:, 0] += 4
    figure = landmark_planes(volume(), NAMES, reference=reference)
    crosses, true = marks(figure, FOUND).reshape(3, 3, 2), marks(figure, MARKED).reshape(3, 2, 2)
    pixels = 4 * TILE / volume().side_mm
    np.testing.assert_allclose(true - crosses[:, :2], np.broadcast_to([pixels, 0], (3, 2, 2)), atol=1e-3)
    assert "2  nasion · 4.00 mm off" in texts(figure)


def test_missing_landmarks() -> None:
    """Shown at the reference if there is one, else only in the template; nothing of one that is nowhere."""
    points, reference, given = POINTS.copy(), np.full((3, 3), NAN), POINTS.copy()
    points[:] = NAN
    reference[0] = POINTS[0]
    given[2] = NAN
    figure = landmark_planes(
        volume(points), NAMES, flags=["missing"] * 3, reference=reference, templates=[volume(given)]
    )
    assert len(marks(figure, FOUND)) == 0
    assert len(marks(figure, MARKED)) == 3 + 6
    assert [text for text in texts(figure) if "missing" in text] == [
        f"{number}  {name} · missing" for number, name in enumerate(NAMES, 1)
    ]
    assert texts(figure).count("template") == 2


def test_the_first_template_that_has_the_landmark() -> None:
    first = POINTS.copy()
    first[1] = NAN
    templates = [volume(first, seed=1), volume(POINTS, seed=2)]
    figure = landmark_planes(volume(), NAMES, templates=templates)
    for number, template in ((0, templates[0]), (1, templates[1])):
        (axial, *_) = cuts_through(template, template.voxels[number], side_mm=volume().side_mm, pixels=TILE)
        np.testing.assert_array_equal(tile_at(figure, marks(figure, MARKED)[3 * number]), axial.panel.picture)


def test_flags_are_written_and_corrections_marked() -> None:
    figure = landmark_planes(volume(), NAMES, flags=["", "unsure", "corrected"])
    assert {"1  sella", "2  nasion · unsure", "3  a long name · corrected"} < {*texts(figure)}
    colours = {one.get_text(): one.get_color() for one in figure.axes[0].texts}
    assert colours["2  nasion · unsure"] != colours["1  sella"] == colours["3  a long name · corrected"]
    assert len(marks(figure, FOUND)) == 6
    assert len(marks(figure, PLACED)) == 3
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [FOUND, PLACED]


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_letters_stand_at_their_sides(flip: float) -> None:
    """Seen from the front and the feet, whichever way the array runs: right at the left, front and head at the top."""
    figure = landmark_planes(volume(affine=np.diag([flip, -flip, flip, 1.0])), NAMES)
    crosses = marks(figure, FOUND)
    drawn, sides = letters(figure), ((-1, 0), (1, 0), (0, -1), (0, 1))
    assert sum(map(len, drawn.values())) == 9 * 4
    for view, ends in enumerate(("RLAP", "RLSI", "APSI")):
        for letter, side in zip(ends, sides, strict=True):
            away = drawn[letter] - crosses[view]
            near = away[np.abs(away).max(axis=1) < TILE / 2]
            assert (np.sign(np.round(near / 20)) == side).all(axis=1).any(), (view, letter)


def test_regions_stay_within_their_slices() -> None:
    regions = np.stack([np.eye(3), 1e4 * np.eye(3), np.full((3, 3), NAN)])
    figure = landmark_planes(volume(), NAMES, regions_mm2=regions)
    lines = [np.asarray(line.get_xydata()) for line in figure.axes[0].lines]
    assert len(lines) == 6
    pixels = TILE / volume().side_mm
    for line, cross in zip(lines[:3], marks(figure, FOUND)[:3], strict=True):
        np.testing.assert_allclose(np.linalg.norm(line - cross, axis=1), pixels, rtol=1e-4)
    assert all(np.isnan(line).all() for line in lines[3:])


def test_long_names_are_shortened_and_no_formula() -> None:
    names = ["cost $\\frac{ $ of it", "x" * 100, "nasion"]
    figure = landmark_planes(volume(), names, flags=["", "unsure", ""])
    assert "1  cost $\\frac{ $ of it" in texts(figure)
    (shortened,) = [text for text in texts(figure) if text.startswith("2")]
    assert shortened.endswith("x… · unsure")
    assert len(shortened) < 50
    figure_to_array(figure)


def test_of_very_many_landmarks_the_flagged_ones() -> None:
    points = np.random.default_rng(0).uniform(5, 20, (MOST + 20, 3))
    flags = [""] * MOST + ["unsure"] * 20
    figure = landmark_planes(volume(points), [f"landmark {n}" for n in range(MOST + 20)], flags=flags)
    assert len(marks(figure, FOUND)) == 3 * MOST
    assert sum("unsure" in text for text in texts(figure)) == 20
    assert f"{MOST} of {MOST + 20} landmarks, flagged ones first" in texts(figure)[0]


def test_nothing_at_all() -> None:
    assert figure_to_array(landmark_planes(volume(np.empty((0, 3))), [])).shape[0] == 3
