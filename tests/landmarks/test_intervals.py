"""Intervals of measurements against drawn errors, and the classes that they touch."""

import pytest
import torch

from medpixcl.landmarks.cephalometry import cephalometric_values, half_intervals, measurements, possible_classes
from medpixcl.landmarks.regions import balls
from medpixcl.reports.measurements import measurement_table, single_rows
from tests.landmarks.test_cephalometry import build_face

NAMES = [one.name for one in measurements()]
ROLES, POINTS = zip(*build_face().items(), strict=True)
FACE = torch.tensor(POINTS, dtype=torch.float64)[None]
NAN = float("nan")


@pytest.mark.parametrize("coverage", [pytest.param(0.5, marks=pytest.mark.slow), 0.9])
def test_as_wide_as_those_of_drawn_errors(coverage: float) -> None:
    """Every landmark is drawn 10,000 times with a normal error, the share ``coverage`` of which lies in its radius."""
    generator = torch.Generator().manual_seed(0)
    deviation = 0.2 + torch.rand(FACE.shape[1], generator=generator)
    draws = deviation[:, None] * torch.randn(10_000, *FACE.shape[1:], generator=generator).double()
    radii = torch.linalg.vector_norm(draws, dim=2).quantile(coverage, dim=0)
    values = cephalometric_values(FACE + draws, ROLES)
    away = (values - cephalometric_values(FACE, ROLES)).abs()
    halves = half_intervals(FACE, ROLES, balls(radii[None], 2), coverage=coverage)[0]
    within = (away <= halves).double().mean(dim=0)
    there = ~halves.isnan()
    assert int(there.sum()) > 30
    assert (within[there] - coverage).abs().max() < 0.02


@pytest.mark.slow
def test_ellipses_as_wide_as_those_of_drawn_errors() -> None:
    """Errors along one direction, which the ellipses follow: circles of the same size would be wrong."""
    generator = torch.Generator().manual_seed(1)
    angle = torch.tensor(0.6, dtype=torch.float64)
    matrix = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    root = matrix @ torch.diag(torch.tensor([0.6, 0.1], dtype=torch.float64))
    draws = torch.randn(10_000, *FACE.shape[1:], generator=generator).double() @ root.T
    region = -2 * torch.log(torch.tensor(0.1, dtype=torch.float64)) * root @ root.T  # holds 90 % of the errors
    away = (cephalometric_values(FACE + draws, ROLES) - cephalometric_values(FACE, ROLES)).abs()
    halves = half_intervals(FACE, ROLES, region.expand(1, FACE.shape[1], 2, 2))[0]
    there = ~halves.isnan()
    within = (away <= halves).double().mean(dim=0)
    assert (within[there] - 0.9).abs().max() < 0.02


def test_a_landmark_without_a_radius_takes_the_intervals_that_need_it() -> None:
    radii = torch.ones(1, FACE.shape[1])
    radii[0, ROLES.index("N")] = NAN
    halves = dict(zip(NAMES, half_intervals(FACE, ROLES, balls(radii, 2))[0].tolist(), strict=True))
    assert halves["SNA"] != halves["SNA"]
    assert halves["FMA"] > 0, "needs no nasion"
    exact = half_intervals(FACE, ROLES, torch.zeros(1, FACE.shape[1], 2, 2))[0]
    assert exact[~exact.isnan()].eq(0).all()
    with pytest.raises(ValueError, match=r"coverage is 1\.0; expected a probability between 0 and 1"):
        half_intervals(FACE, ROLES, balls(radii, 2), coverage=1.0)


def test_what_the_radii_leave_open_has_no_end() -> None:
    """Go and Me, 6 mm apart with radii of 5 mm, may lie at one place: what needs their direction is open."""
    face, radii = FACE.clone(), torch.full((1, FACE.shape[1]), 0.5).double()
    go, me = ROLES.index("Go"), ROLES.index("Me")
    face[0, go] = face[0, me] + torch.tensor([-6.0, 0.0])
    near = dict(zip(NAMES, half_intervals(face, ROLES, balls(radii, 2))[0].tolist(), strict=True))
    assert 0 < near["FMA"] < 90
    radii[0, [go, me]] = 5.0
    values, halves = cephalometric_values(face, ROLES), half_intervals(face, ROLES, balls(radii, 2))
    found = dict(zip(NAMES, halves[0].tolist(), strict=True))
    infinite = {name for name, half in found.items() if half == float("inf")}
    assert infinite == {"MM-Wits", "FMA", "PP-MP", "AB-MP", "ODI", "IMPA", "Gonial angle", "Björk sum", "Lower gonial"}
    assert 0 < found["Mandibular body"] < 10
    table = measurement_table(["a"], values, halves, [[""] * len(NAMES)])
    assert next(row for row in table if row[2] == "FMA")[-2:] == ["", ""]
    shown = {row[0]: row[1] for row in single_rows(values[0], halves[0], [False] * len(NAMES))}
    assert shown["FMA"].endswith("° (interval unknown)")
    wide = half_intervals(FACE, ROLES, balls(torch.full_like(radii, 60.0), 2))
    for name in ("SNA", "FMA", "Convexity"):
        assert wide[0, NAMES.index(name)] == float("inf")
    assert possible_classes(cephalometric_values(FACE, ROLES), wide)[0][0] == "III or I or II"


def test_possible_classes() -> None:
    """ANB 4.2 with a limit of 4: class II alone if it is exact, I or II within 0.9 degrees, all within 5."""
    values = torch.full((4, len(NAMES)), NAN)
    values[:3, NAMES.index("ANB")] = 4.2
    halves = torch.full_like(values, NAN)
    halves[1, NAMES.index("ANB")], halves[2, NAMES.index("ANB")] = 0.9, 5.0
    assert [row[0] for row in possible_classes(values, halves)] == ["II", "I or II", "III or I or II", ""]
