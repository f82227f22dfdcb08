"""Any text as a table and any JSON as a file: it is read, or refused in one sentence that names the file."""

import csv
import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from medpixcl.data.landmarks.csv_file import write_landmarks_csv
from medpixcl.data.landmarks.json_file import FORMAT
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.tables import read_table, write_csv
from tests.fuzz.judging import fault_of
from tests.fuzz.mutations import mutated_json
from tests.fuzz.readers import READERS, Reader

EXAMPLES = settings(
    max_examples=25, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
COLUMNS = ("image", "volume", "landmark", "x_px", "y_px", "z_px", "x_mm", "y_mm", "z_mm", "spacing_mm", "score", "flag")
CELLS = st.one_of(st.text(max_size=8), st.floats().map(str), st.integers().map(str), st.sampled_from(("", "1", "nan")))
NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8).map(str.strip).filter(bool)
FORMULAS = st.tuples(st.sampled_from("=+-@\t\r'＝"), NAMES).map("".join)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=8,
)
POINTS = st.fixed_dictionaries({}, optional=dict.fromkeys(
    ("landmark", "label", "px", "mm", "score", "flag", "radius_mm", "position", "positionStatus", "description"), VALUES
))  # fmt: skip
FILES = st.one_of(
    VALUES,
    st.lists(st.fixed_dictionaries({"image": VALUES, "landmarks": st.lists(POINTS, max_size=3)}), max_size=2).map(
        lambda images: {"format": FORMAT, "version": 1, "frame": "LPS", "unit": "mm", "images": images}
    ),
    st.fixed_dictionaries({"type": st.just("Fiducial"), "controlPoints": st.lists(POINTS, max_size=3)}).map(
        lambda one: {"markups": [one]}
    ),
    st.fixed_dictionaries({"keypoints": VALUES, "positions_lps_mm": VALUES, "score": VALUES}).map(
        lambda one: {
            "images": [{"id": 1, "file_name": "a.png"}],
            "categories": [{"id": 1, "keypoints": ["p"]}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **one}],
        }
    ),
)
PLACED = ("run.json", "known json")
"""Readers that find their file by its name."""
JSON_READERS = [one for one in READERS if one.mutate is mutated_json and not one.name.startswith(PLACED)]


@pytest.fixture
def case(tmp_path: Path) -> Path:
    (tmp_path / "case").mkdir()
    return tmp_path / "case"


@EXAMPLES
@given(columns=st.lists(st.sampled_from(COLUMNS), min_size=3, unique=True), data=st.data())
def test_any_landmark_table(columns: list[str], data: st.DataObject, case: Path) -> None:
    rows = data.draw(st.lists(st.lists(CELLS, min_size=len(columns), max_size=len(columns)), max_size=4))
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    (case / "marks.csv").write_text(text.getvalue(), encoding="utf-8", errors="surrogatepass")
    assert fault_of(next(one for one in READERS if one.name == "csv px"), case / "marks.csv") is None


@EXAMPLES
@given(content=FILES)
def test_any_landmark_json(content: object, case: Path) -> None:
    (case / "a.mrk.json").write_text(json.dumps(content))
    assert fault_of(next(one for one in READERS if one.name == "mrk.json"), case / "a.mrk.json") is None


@pytest.mark.parametrize("reader", JSON_READERS, ids=lambda one: one.name)
def test_any_json(reader: Reader, case: Path) -> None:
    @settings(EXAMPLES, max_examples=8)
    @given(content=VALUES)
    def check(content: object) -> None:
        (case / "file.json").write_text(json.dumps(content))
        assert fault_of(reader, case / "file.json") is None

    check()


@EXAMPLES
@given(names=st.lists(st.one_of(NAMES, FORMULAS), min_size=1, max_size=5, unique=True))
def test_names_read_back(names: list[str], case: Path) -> None:
    """Any name of an image and of a landmark comes back from a table, and no cell of it is a formula."""
    rows = [{"image": "a.png", "landmark": name, "x_px": "-1.5000", "y_px": "2.0000"} for name in names]
    write_landmarks_csv(case / "marks.csv", rows)
    assert read_landmarks(case / "marks.csv").names == tuple(names)
    with (case / "marks.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r＝＋－＠" and len(cell) > 1 and not is_number(cell)]


def is_number(cell: str) -> bool:
    """True for a number without anything around it."""
    try:
        return math.isfinite(float(cell)) and cell.strip() == cell and cell.isascii() and "_" not in cell
    except ValueError:
        return False


@EXAMPLES
@given(cells=st.lists(st.one_of(NAMES, FORMULAS), min_size=2, max_size=4, unique=True))
def test_headers_read_back(cells: list[str], case: Path) -> None:
    """Names of classes stand in the header."""
    write_csv(case / "table.csv", [cells, cells])
    read = read_table(case / "table.csv", ())
    assert read.columns == tuple(cells)
    assert read.rows[0][1] == dict(zip(cells, cells, strict=True))
