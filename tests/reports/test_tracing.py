"""The tracing: what is drawn where, and what a missing landmark takes away."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from medpixcl.landmarks.cephalometry import cephalometric_values, landmark_roles, measurements
from medpixcl.landmarks.cephalometry.definitions import measurement
from medpixcl.reports.figures import figure_to_png
from medpixcl.reports.tracing import PLANES, cephalometric_tracing, outside

NAN = float("nan")
ROLES = landmark_roles([str(number) for number in range(1, 20)])
# A face that looks right, (x, y) in mm, in the order of ISBI 2015.
XY = torch.tensor(
    [
        *[(40, 40), (105, 38), (90, 60), (25, 58)],
        *[(98, 96), (94, 130), (96, 142), (88, 150), (93, 147), (38, 112)],
        *[(103, 113), (106, 115), (120, 105), (117, 122), (115, 93), (108, 143)],
        *[(55, 88), (102, 88), (33, 70)],
    ],
    dtype=torch.float64,
)
SPACING = (0.5, 0.25)
SHAPE = (360, 560)
VOXELS = XY.flip(1) / torch.tensor(SPACING, dtype=torch.float64)


def image() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))


def tracing(voxels: Tensor = VOXELS, roles: tuple[str | None, ...] = ROLES) -> Figure:
    return cephalometric_tracing(image(), voxels, roles, spacing=SPACING)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text()]


def lines_of(figure: Figure, colour: str) -> list[np.ndarray]:
    return [np.array(line.get_xydata()) for line in figure.axes[0].lines if line.get_color() == colour]


def test_landmarks_lie_where_they_are() -> None:
    figure = tracing()
    drawn = np.array(figure.axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(drawn, VOXELS.flip(1).numpy())
    assert {str(role) for role in ROLES} <= set(texts(figure))


@pytest.mark.parametrize(
    "plane", [plane for plane in PLANES if plane.name not in ("E line", "Sn-Pog'")], ids=lambda p: p.name
)
def test_planes_run_through_their_landmarks(plane) -> None:
    figure = tracing()
    start, end = (VOXELS.flip(1)[ROLES.index(name)].numpy() for name in (plane.start, plane.end))
    assert plane.name in texts(figure)
    ends = [line for line in lines_of(figure, plane.colour) if len(line) == 2]
    assert any(
        abs(np.linalg.det(np.stack([tips[1] - tips[0], point - tips[0]])))
        < 1e-6 * np.linalg.norm(tips[1] - tips[0]) ** 2
        and np.linalg.norm(tips[1] - start) >= np.linalg.norm(end - start) - 1e-6
        for tips in ends
        for point in [(start + end) / 2]
    )


def test_arcs_span_the_angle_in_mm() -> None:
    """Pixels of 0.5 by 0.25 mm: the arc of SNA is a circle in mm about N, from N-S to N-A."""
    arc = next(line for line in lines_of(tracing(), "#F0E442") if len(line) == 41) * np.array(SPACING[::-1])
    nasion, sella, a = (XY[ROLES.index(name)].numpy() for name in ("N", "S", "A"))
    np.testing.assert_allclose(np.linalg.norm(arc - nasion, axis=1), 16)
    for tip, leg in ((arc[0], sella), (arc[-1], a)):
        np.testing.assert_allclose(tip - nasion, 16 * (leg - nasion) / np.linalg.norm(leg - nasion), atol=1e-9)


def test_values_are_those_measured() -> None:
    values = dict(
        zip([one.name for one in measurements()], cephalometric_values(XY[None], ROLES)[0].tolist(), strict=True)
    )
    written = texts(tracing())
    assert f"SNA {values['SNA']:.1f}°" in written
    assert f"{values['FMA']:.1f}°" in written
    assert f"{values['AFH']:.1f} mm" in written
    assert f"{values['Jarabak ratio']:.1f} %" in written
    assert any(text.startswith("Skeletal class (ANB): ") for text in written)
    assert "IMPA" not in written  # no apex


def test_a_face_that_looks_left_has_the_same_values() -> None:
    mirrored = VOXELS.clone()
    mirrored[:, 1] = SHAPE[1] - 1 - mirrored[:, 1]
    assert sorted(texts(tracing(mirrored))) == sorted(texts(tracing()))


def test_missing_landmarks_take_away_what_they_carry() -> None:
    voxels = VOXELS.clone()
    voxels[ROLES.index("Go")] = NAN
    written = texts(tracing(voxels))
    assert "Go" not in written
    assert "MP" not in written
    assert not any(text.startswith("Gonial") for text in written)
    assert {"SN", "FH", "PP", "N-A"} <= set(written)


def test_e_line_replaces_its_stand_in() -> None:
    without = texts(tracing())
    assert "Sn-Pog'" in without
    assert "E line" not in without
    with_nose = texts(tracing(torch.cat([VOXELS, VOXELS.new_tensor([[160.0, 520.0]])]), (*ROLES, "Prn")))
    assert "E line" in with_nose
    assert "Sn-Pog'" not in with_nose


def test_unknown_landmarks_are_not_drawn() -> None:
    figure = tracing(VOXELS[:3], ("S", None, "Or"))
    assert len(figure.axes[0].collections[0].get_offsets()) == 2


def test_nothing_to_draw() -> None:
    assert "20 mm" in texts(tracing(torch.full_like(VOXELS, NAN)))


def test_texts_stay_within_the_picture_and_apart() -> None:
    figure = tracing()
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    picture = figure.axes[0]
    frame = picture.get_window_extent(renderer)
    boxes = [text.get_window_extent(renderer) for text in picture.texts if text.get_text()]
    assert all(frame.x0 - 3 <= box.x0 and box.x1 <= frame.x1 + 3 for box in boxes)
    covered = sum(first.overlaps(second) for n, first in enumerate(boxes) for second in boxes[:n])
    assert covered <= len(boxes) // 10


def test_equal_tracings_give_equal_files() -> None:
    assert figure_to_png(tracing()) == figure_to_png(tracing())


def test_outside() -> None:
    """By the range, by one standard deviation, or not at all."""
    sides = {
        (name, value): outside(measurement(name), value)
        for name, value in [
            ("ANB", -0.1),
            ("ANB", 0.0),
            ("ANB", 4.1),
            ("Facial angle", 84.0),
            ("Facial angle", 91.3),
            ("Facial angle", 91.5),
            ("SN-GoGn", 60.0),
            ("AFH", 60.0),
            ("ANB", NAN),
        ]
    }
    assert list(sides.values()) == [-1, 0, 1, -1, 0, 1, 0, 0, 0]
