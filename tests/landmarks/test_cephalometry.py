"""Measurements of a face built to known angles, in every position, and of the readers of the public cephalograms."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.landmarks.cephalometry import (
    cephalometric_values,
    classifications,
    classify,
    compare_classes,
    compare_measurements,
    deviations,
    landmark_roles,
    measurements,
    why_not,
)
from medpixcl.landmarks.cephalometry.definitions import measurement, read_table
from medpixcl.landmarks.cephalometry.geometry import KINDS, OUTLINE
from tests.reference.cephalometry import measure_face

NAN = float("nan")
NAMES = [one.name for one in measurements()]
Point = tuple[float, float]


def step(start: Point, length: float, degrees: float) -> Point:
    """A point so many mm away; degrees are counted from ahead (to the right) by way of below."""
    return start[0] + length * math.cos(math.radians(degrees)), start[1] + length * math.sin(math.radians(degrees))


def build_face() -> dict[str, Point]:
    """A face that looks right, in mm, y down; S-N and Frankfort horizontal are level."""
    S, N = (0.0, 0.0), (70.0, 0.0)
    Go, Po, PNS = (0.0, 60.0), (-10.0, 25.0), (20.0, 45.0)
    L1, U1 = (60.0, 75.0), (63.0, 77.0)
    Sn = (75.0, 55.0)
    return {
        "S": S,
        "N": N,
        "Po": Po,
        "Or": (60.0, 25.0),
        "A": step(N, 60, 180 - 82),
        "B": step(N, 100, 180 - 80),
        "Pog": step(N, 105, 180 - 88),
        "Go": Go,
        "Gn": step(Go, 70, 32),
        "Me": step(Go, 65, 25),
        "PNS": PNS,
        "ANS": step(PNS, 50, 8),
        "Ar": (-5.0, 30.0),
        "L1": L1,
        "U1": U1,
        "U1A": step(U1, 22, 78 + 180),
        "L1A": step(L1, 20, 115),
        "U6": (30.0, 74.0),
        "L6": (30.0, 76.0),
        "Sn": Sn,
        "Pog'": (75.0, 115.0),
        "Ls": (82.0, 70.0),
        "Li": (71.5, 85.0),
        "Prn": (105.0, 75.0),
        "G'": (75.0, 0.0),
    }


FACE = build_face()
ROLES = tuple(FACE)
POINTS = torch.tensor(list(FACE.values()), dtype=torch.float64)


def by_name(values: Tensor) -> dict[str, float]:
    return dict(zip(NAMES, values.tolist(), strict=True))


# What follows from the angles above: the direction of N-A is 98, of N-B 100, of N-Pog 92, of the incisors 78 and -65.
KNOWN = {
    "SNA": 82,
    "SNB": 80,
    "ANB": 2,
    "SNPog": 88,
    "Facial angle": 88,
    "FMA": 25,
    "SN-GoGn": 32,
    "SN-PP": 8,
    "FH-PP": 8,
    "PP-MP": 25 - 8,
    "Saddle angle": 90 + math.degrees(math.atan(5 / 30)),
    "A-NPerp": -60 * math.cos(math.radians(82)),
    "Pog-NPerp": -105 * math.cos(math.radians(88)),
    "U1-SN": 102,
    "U1-NA": 98 - 78,
    "L1-NB": 115 - 100,
    "IMPA": 90,
    "FMIA": 65,
    "Interincisal": 258 - 115,
    "Overjet": 3,
    "Overbite": 2,
    "PFH": 60,
    "SN length": 70,
    "Mandibular body": 65,
    "Maxillary length": 50,
    "Ls-SnPog'": 7,
    "Li-SnPog'": -3.5,
    "U1-NA mm": math.hypot(7, 77) * math.sin(math.radians(98) - math.atan2(77, -7)),
    "Pog-NB mm": 105 * math.sin(math.radians(100 - 92)),
    # Line from (105, 75) to (75, 115): 3-4-5, so 5 * distance = 4 * dx + 3 * dy.
    "Ls-E line": (4 * (82 - 105) + 3 * (70 - 75)) / 5,
    "Li-E line": (4 * (71.5 - 105) + 3 * (85 - 75)) / 5,
    "G'-Sn-Pog'": 0,
}


@pytest.mark.parametrize("name", KNOWN)
def test_measurements_of_the_built_face(name: str) -> None:
    assert by_name(cephalometric_values(POINTS[None], ROLES)[0])[name] == pytest.approx(KNOWN[name], abs=1e-9)


def test_derived_measurements_add_up() -> None:
    found = by_name(cephalometric_values(POINTS[None], ROLES)[0])
    assert found["FMA"] + found["FMIA"] + found["IMPA"] == pytest.approx(180)  # Tweed's triangle
    assert found["Upper gonial"] + found["Lower gonial"] == pytest.approx(found["Gonial angle"])
    assert found["APDI"] == pytest.approx(found["Facial angle"] + found["AB plane"] + found["FH-PP"])
    assert found["ODI"] == pytest.approx(found["AB-MP"] + found["FH-PP"])
    total = found["Saddle angle"] + found["Articular angle"] + found["Gonial angle"]
    assert found["Björk sum"] == pytest.approx(total)


def test_wits_by_projection() -> None:
    """On the line from (30, 75), midway between the molars, to (61.5, 76), midway between the incisors."""
    away = np.subtract(FACE["A"], FACE["B"])
    plane = np.array([31.5, 1.0])
    expected = away @ plane / np.linalg.norm(plane)
    assert by_name(cephalometric_values(POINTS[None], ROLES)[0])["Wits"] == pytest.approx(expected)


def test_against_school_geometry() -> None:
    found, expected = by_name(cephalometric_values(POINTS[None], ROLES)[0]), measure_face(FACE)
    expected["Li-SnPog'"] *= -1  # behind the line, and Heron knows no sign
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    "what", ["SNA", "Convexity", "AB plane", "U1-NA mm", "Pog-NB mm", "L1-APog mm", "Wits", "Overjet"]
)
def test_ahead_is_positive(what: str) -> None:
    """Moving the upper jaw forward, or the chin and the lower incisor, raises what measures it ahead."""
    moved = {"AB plane": "B", "Pog-NB mm": "Pog", "L1-APog mm": "L1", "U1-NA mm": "U1", "Overjet": "U1"}.get(what, "A")
    before = by_name(cephalometric_values(POINTS[None], ROLES)[0])[what]
    points = POINTS.clone()
    points[ROLES.index(moved), 0] += 1
    assert by_name(cephalometric_values(points[None], ROLES)[0])[what] > before


def turned(points: Tensor, degrees: float) -> Tensor:
    angle = math.radians(degrees)
    matrix = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=points.dtype)
    return points @ matrix.T


@pytest.mark.parametrize(
    "moved",
    [
        POINTS + torch.tensor([100.0, -40.0]),
        turned(POINTS, 17),
        turned(POINTS, 200),
        POINTS * torch.tensor([-1.0, 1.0]),  # looks left
        POINTS * torch.tensor([1.0, -1.0]),  # y up
        turned(POINTS * torch.tensor([-1.0, 1.0]), 63),
        POINTS.flip(1),  # row, column
        -POINTS,  # RAS for LPS
    ],
    ids=["shifted", "turned", "upside down", "left", "y up", "left and turned", "row and column", "RAS"],
)
def test_nothing_depends_on_the_position(moved: Tensor) -> None:
    torch.testing.assert_close(
        cephalometric_values(moved[None], ROLES), cephalometric_values(POINTS[None], ROLES), atol=1e-9, rtol=1e-9
    )


def test_only_lengths_depend_on_the_scale() -> None:
    expected = cephalometric_values(POINTS[None], ROLES)[0] * torch.tensor(
        [3.0 if one.unit == "mm" else 1.0 for one in measurements()]
    )
    torch.testing.assert_close(cephalometric_values(3 * POINTS[None], ROLES)[0], expected)


def test_batch_equals_one_by_one() -> None:
    faces = torch.stack([POINTS, POINTS * torch.tensor([-2.0, 2.0]), turned(POINTS, 5) + 3])
    faces[1, ROLES.index("N")] = NAN
    together = cephalometric_values(faces, ROLES)
    for one, values in zip(faces, together, strict=True):
        torch.testing.assert_close(cephalometric_values(one[None], ROLES)[0], values, equal_nan=True)


@pytest.mark.parametrize("lost", ROLES)
def test_a_missing_landmark_takes_its_measurements_only(lost: str) -> None:
    points = POINTS.clone()
    points[ROLES.index(lost)] = NAN
    values, reasons = cephalometric_values(points[None], ROLES)[0], why_not(points[None], ROLES)[0]
    for name, value, reason in zip(NAMES, values, reasons, strict=True):
        if lost in measurement(name).landmarks:
            assert reason == f"not computable: landmark {lost} missing"
            assert value.isnan()
        else:
            assert reason == ""
            assert value.isfinite()


def test_reasons_without_apices_molars_and_nose() -> None:
    """The 19 landmarks of ISBI 2015: all is measured but what needs the roots, the molars or the tip of the nose."""
    kept = [ROLES.index(role) for role in landmark_roles([str(number) for number in range(1, 20)])]
    roles = [ROLES[index] for index in kept]
    reasons = {name: why for name, why in zip(NAMES, why_not(POINTS[kept][None], roles)[0], strict=True) if why}
    assert reasons == {
        "Wits": "not computable: landmarks U6, L6 missing",
        **dict.fromkeys(("U1-SN", "U1-NA"), "not computable: landmark U1A missing"),
        **dict.fromkeys(("L1-NB", "IMPA", "FMIA"), "not computable: landmark L1A missing"),
        "Interincisal": "not computable: landmarks L1A, U1A missing",
        **dict.fromkeys(("Ls-E line", "Li-E line"), "not computable: landmark Prn missing"),
        "G'-Sn-Pog'": "not computable: landmark G' missing",
    }


def test_the_side_must_be_known() -> None:
    roles = ["Po", "Or", "S", "N", "A"]
    line = torch.tensor([[0.0, 0.0], [50.0, 1.0], [5.0, 0.0], [60.0, 0.0], [58.0, 1.0]])
    reasons = dict(zip(NAMES, why_not(line[None], roles)[0], strict=True))
    assert reasons["SNA"] == ""
    assert reasons["A-NPerp"] == ""
    assert reasons["FMA"] == "not computable: landmarks Go, Me missing"
    incisors = torch.tensor([[0.0, 0.0], [1.0, 9.0], [3.0, 1.0]])
    sided = dict(zip(NAMES, why_not(incisors[None], ["N", "A", "U1"])[0], strict=True))["U1-NA mm"]
    assert sided == "not computable: the landmarks do not tell which way the face looks"
    together = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 1.0]])
    assert (
        why_not(together[None], ["S", "N", "A"])[0][0] == "not computable: two of its landmarks lie at the same place"
    )


def test_no_landmark_gives_nothing() -> None:
    assert cephalometric_values(torch.zeros(2, 0, 2), []).isnan().all()
    assert cephalometric_values(torch.zeros(0, 1, 2), ["S"]).shape == (0, len(NAMES))


def test_deviations_need_a_standard_deviation() -> None:
    values = torch.full((1, len(NAMES)), NAN)
    values[0, NAMES.index("Facial angle")] = 87.8 - 2 * 3.6
    values[0, NAMES.index("SNA")] = 90
    found = by_name(deviations(values)[0])
    assert found["Facial angle"] == pytest.approx(-2, abs=1e-4)
    assert math.isnan(found["SNA"])  # Steiner gave none


@pytest.mark.parametrize(("anb", "label"), [(-0.1, "III"), (0.0, "I"), (2.0, "I"), (4.0, "I"), (4.1, "II")])
def test_skeletal_class(anb: float, label: str) -> None:
    values = torch.full((1, len(NAMES)), NAN)
    values[0, NAMES.index("ANB")] = anb
    classes = dict(zip([one.name for one in classifications()], classify(values)[0].tolist(), strict=True))
    assert classifications()[0].labels[classes["Skeletal class (ANB)"]] == label
    assert classes["Growth (Jarabak)"] == -1


def test_table_is_sound() -> None:
    """Names unique, kinds and landmarks known, units right for their kinds, a source for every norm and limit."""
    known = {entry["role"] for entry in read_table("landmarks.json")}
    assert len(set(NAMES)) == len(NAMES)
    units = {"angle": "deg", "turn": "deg", "ratio": "%", "length": "mm", "ahead": "mm", "along": "mm", "below": "mm"}
    for one in measurements():
        assert set(one.landmarks) <= known
        assert (one.kind in KINDS) != bool(one.terms)
        assert one.unit == units.get(one.kind, "deg")
        if one.norm is not None:
            assert one.norm.source
            assert str(one.norm)
            assert (one.norm.low is None) == (one.norm.high is None)
    assert set(OUTLINE) <= known
    for limits in classifications():
        assert limits.measurement in NAMES
        assert limits.bounds[0] < limits.bounds[1]
        assert limits.source


def test_names_of_landmarks(tmp_path: Path) -> None:
    assert landmark_roles(["ANS", "pns", "Point A", "soft tissue pogonion", "Pog", "pog'"][:5]) == (
        "ANS",
        "PNS",
        "A",
        "Pog'",
        "Pog",
    )
    assert landmark_roles(["2", "x"], {"x": "menton"}) == (None, "Me")  # not all are numbers


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["heart", "liver"], None, "none of the landmarks 'heart', 'liver' is a known cephalometric landmark"),
        (["a", "A point"], None, "'a' and 'A point' both stand for A; keep one"),
        (["1"], {"1": "heart"}, "'heart' is no known cephalometric landmark"),
    ],
)
def test_bad_names(names: list[str], given: dict[str, str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        landmark_roles(names, given)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="2 landmarks come with 1 roles; expected one each"):
        cephalometric_values(torch.zeros(1, 2, 2), ["S"])
    with pytest.raises(ValueError, match="there is no measurement 'SNX'; expected one of SNA, SNB"):
        measurement("SNX")


def test_agreement_by_hand() -> None:
    first, second = torch.full((3, len(NAMES)), NAN), torch.full((3, len(NAMES)), NAN)
    column = NAMES.index("ANB")
    first[:, column] = torch.tensor([-1.0, 2.0, 5.0])
    second[:, column] = torch.tensor([-2.0, 5.0, NAN])
    found = {one.measurement: one for one in compare_measurements(first, second)}["ANB"]
    assert (found.images, found.mean_absolute, found.bias, found.unit) == (2, 2.0, -1.0, "deg")
    assert found.sd == pytest.approx(math.sqrt(8))  # differences 1 and -3
    classes = {one.classification: one for one in compare_classes(first, second)}["Skeletal class (ANB)"]
    # III and III; I and II. By chance: 1/2 * 1/2 for III, nothing else shared.
    assert (classes.images, classes.percent) == (2, 50.0)
    assert classes.kappa == pytest.approx((0.5 - 0.25) / (1 - 0.25))
    nothing = {one.measurement: one for one in compare_measurements(first, second)}["SNA"]
    assert nothing.images == 0
    assert math.isnan(nothing.mean_absolute)


def read_reader(folder: Path, reader: str) -> tuple[list[str], np.ndarray]:
    """Positions in mm (N, 19, 2) straight from the CSV."""
    points: dict[str, dict[int, Point]] = {}
    with (folder / f"landmarks_{reader}.csv").open() as file:
        for row in csv.DictReader(file):
            scale = float(row["spacing_mm"])
            points.setdefault(row["image"], {})[int(row["landmark"])] = (
                float(row["x_px"]) * scale,
                float(row["y_px"]) * scale,
            )
    images = sorted(points)
    return images, np.array([[points[image][number] for number in range(1, 20)] for image in images])


@pytest.mark.data
def test_readers_of_the_public_cephalograms(data_dir: Path) -> None:
    """Each measurement and each difference of the two readers, against the school's geometry."""
    folder = data_dir / "ceph_isbi2015"
    roles = landmark_roles([str(number) for number in range(1, 20)])
    found, expected = [], []
    for reader in ("senior", "junior"):
        images, points = read_reader(folder, reader)
        file = read_landmarks(folder / f"landmarks_{reader}.csv")
        positions = file.positions_mm()
        read = torch.tensor([[positions[image][name] for name in file.names] for image in images], dtype=torch.float64)
        found.append(cephalometric_values(read, landmark_roles(file.names)))
        faces = [measure_face(dict(zip(roles, map(tuple, face), strict=True))) for face in points]
        expected.append({name: np.array([face[name] for face in faces]) for name in faces[0]})
    for name in set(expected[0]) - {"Li-SnPog'"}:
        for values, literal in zip(found, expected, strict=True):
            np.testing.assert_allclose(values[:, NAMES.index(name)].numpy(), literal[name], atol=1e-6)
        difference = expected[0][name] - expected[1][name]
        row = next(one for one in compare_measurements(*found) if one.measurement == name)
        assert row.images == len(difference)
        assert row.mean_absolute == pytest.approx(np.abs(difference).mean())
        assert row.bias == pytest.approx(difference.mean(), abs=1e-9)
        assert row.sd == pytest.approx(difference.std(ddof=1))
    counted = next(one for one in compare_classes(*found) if one.classification == "Skeletal class (ANB)")
    classes = [np.digitize(reader["ANB"], [0, 4]) for reader in expected]
    assert counted.percent == pytest.approx(100 * np.mean(classes[0] == classes[1]))


@pytest.mark.data
def test_names_of_the_public_landmarks(data_dir: Path) -> None:
    """The English names of the data set mean what its numbers mean."""
    with (data_dir / "ceph_isbi2015" / "landmark_names.csv").open() as file:
        names = {row["landmark"]: row["name"] for row in csv.DictReader(file)}
    assert landmark_roles(list(names), names) == landmark_roles(list(names))


def test_the_page_tells_every_measurement_and_limit() -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "cephalometry.md").read_text(encoding="utf-8")
    for one in measurements():
        assert f"| {one.name} | {one.about}" in page
        assert one.norm is None or f"| {one.norm} | {one.norm.source} |" in page
    for limits in classifications():
        low, high = limits.bounds
        assert f"| {limits.name} | {' / '.join(limits.labels)} | {low:g} and {high:g} | {limits.source} |" in page
