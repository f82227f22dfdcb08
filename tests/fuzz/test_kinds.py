"""One input for each kind of fault that the damaged inputs found, for every reader that it may strike."""

import json
import math
import re
from pathlib import Path

import pydicom
import pytest

from medpixcl.apps.images import ImageList
from medpixcl.apps.kept_landmarks import from_data, to_data
from medpixcl.apps.results import Landmarks
from medpixcl.data.images import read_image
from medpixcl.data.manifest import Manifest
from medpixcl.data.pixels import ImageFileError
from tests.fuzz import calls, inputs
from tests.fuzz.judging import Inputs, fault_of
from tests.fuzz.mutations import mutated_json, mutated_table
from tests.fuzz.readers import READERS, Reader

JSON = [one for one in READERS if one.mutate is mutated_json]
TABLES = [one for one in READERS if one.mutate is mutated_table]


def named(reader: Reader) -> str:
    return reader.name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("kinds"), 0)


@pytest.mark.parametrize("reader", JSON, ids=named)
def test_deep_json_and_long_numbers(reader: Reader, made: Inputs) -> None:
    good = made.good(reader).read_text(encoding="utf-8")
    for inside in ("[" * 100_000, "9" * 400, "9" * 6000, "1e999", "NaN", '{"a":' * 2000):
        place = good.index(":") + 1
        assert fault_of(reader, made.placed(reader, f"{good[:place]} {inside}{good[place:]}".encode())) is None
        assert fault_of(reader, made.placed(reader, inside.encode())) is None


@pytest.mark.parametrize("reader", TABLES, ids=named)
@pytest.mark.parametrize("cell", ["x" * 140_000, '"', "two\nlines", "9" * 6000, "nul\0l"], ids=lambda cell: cell[:3])
def test_cells_of_tables(reader: Reader, cell: str, made: Inputs) -> None:
    """Longer than csv takes, not closed, or unfit for a message of one line: in the header and in a row."""
    header, row, *_ = made.good(reader).read_text(encoding="utf-8").splitlines()
    for text in (f"{cell},{header}\n{row}\n", f"{header}\n{cell},{row}\n", f"{header}\n{cell}{row}\n"):
        assert fault_of(reader, made.placed(reader, text.encode())) is None


@pytest.mark.parametrize(
    "line",
    [b"kinds: " + b"A" * 1000, b"unknown: " + b"A" * 1000, b"A" * 1000, b"encoding:=" + b"A" * 1000],
    ids=lambda line: line[:8].decode(),
)
def test_long_lines_of_nrrd(line: bytes, tmp_path: Path) -> None:
    """Each of these ends a process that hands it to ITK."""
    path = inputs.volume("a.nrrd")(tmp_path)
    magic, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"\n".join([magic, line, rest]))
    with pytest.raises(ImageFileError, match=r"a\.nrrd: has a line of 1\d\d\d bytes in its NRRD header"):
        read_image(path)


def test_long_text_in_nrrd_is_read(tmp_path: Path) -> None:
    path = inputs.volume("a.nrrd")(tmp_path)
    expected = read_image(path)
    magic, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(b"\n".join([magic, b"# " + b"A" * 5000, b"content: " + b"A" * 5000, b"key:=" + b"A" * 5000, rest]))
    assert (read_image(path) == expected).all()


@pytest.mark.parametrize("axes", ["99999999", "11", "0", "-1", "3\nNDims = 99999999", "9" * 3000])
def test_axes_of_metaimage(axes: str, tmp_path: Path) -> None:
    path = inputs.volume("a.mha")(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", f"NDims = {axes}".encode()))
    with pytest.raises(ImageFileError, match=r"a\.mha: states no number of axes from 1 to 9"):
        read_image(path)


def test_directions_that_itk_inverts_for_ever(tmp_path: Path) -> None:
    path = inputs.volume("a.mha")(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"0 0 1\n", b"0 1e308 1\n", 1))
    with pytest.raises(ImageFileError, match="has an affine that cannot be inverted"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nhdr"])
def test_long_names_of_files_of_voxels(name: str, tmp_path: Path) -> None:
    path = inputs.volume(name)(tmp_path)
    content = re.sub(rb"(ElementDataFile =|data file:) \S+", rb"\1 " + b"9" * 400, path.read_bytes())
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=r"a\.\w+: (names|has a line)"):
        read_image(path)


def test_long_names_in_manifests(tmp_path: Path) -> None:
    """No file system has them; the image is missing, and the others are searched."""
    inputs.manifest("m.json")(tmp_path)
    content = json.loads((tmp_path / "m.json").read_text())
    content["training"].append({"image": "x" * 5000})
    (tmp_path / "m.json").write_text(json.dumps(content))
    images = ImageList(tmp_path / "m.json")
    assert len(images.datalist) == 2
    assert any(reason.endswith("does not exist.") for reason in images.rejected.values())


def test_decoder_that_panics(tmp_path: Path) -> None:
    """pylibjpeg-rle is written in Rust; what it raises is no Exception."""
    path = inputs.dicom("MR_small_RLE.dcm")(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.Columns -= 1
    dataset.save_as(path)
    with pytest.raises(ImageFileError, match="has pixel data that cannot be decoded"):
        read_image(path)


@pytest.mark.parametrize(
    "change",
    [
        {"rejected": [{"reason": "no path"}]},
        {"rejected": {"path": "a"}},
        {"settings": [1]},
        {"name": 5},
        *({"training": [{"image": "a.png", key: value}]} for key, value in [
            ("image", "nul\0l"), ("image", ["a", ""]),
            ("spacing_mm", "1"), ("spacing_mm", [1, math.nan]), ("spacing_mm", True), ("shape", 3), ("shape", [None]),
            ("split", 1), ("duplicate_group", []), ("sha256", 5), ("exogenous", ["a"]), ("label", 1.5), ("stamp", {}),
        ]),
    ],
    ids=str,
)  # fmt: skip
def test_types_in_manifests(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"training": [], **change}))
    with pytest.raises(ValueError, match=r"m\.json: .*; expected "):
        Manifest.read(path)


@pytest.mark.parametrize("part", ["points", "shape", "extras"])
def test_kept_landmarks_of_other_sizes(part: str, tmp_path: Path) -> None:
    """What an interrupted run has kept is computed again where it was changed."""
    inputs.picture("a.png")(tmp_path)
    images, source = ImageList(tmp_path, 1.0), str(tmp_path / "a.png")
    images.check()
    found = inputs.found()
    one = Landmarks(found.image, found.points, found.affine, found.shape, extras=found.extras)
    data = json.loads(json.dumps(to_data(one)))
    assert from_data(data, images, source).names == one.names
    changed = {"points": data["points"] | {"names": ["sella"]}, "extras": data["extras"][:1], "shape": [4, 4, 4]}
    with pytest.raises(ValueError, match=r"\w"):
        from_data({**data, part: changed[part]}, images, source)


def test_classes_that_name_no_image(tmp_path: Path) -> None:
    """The sentence names the manifest that the scan has written."""
    inputs.picture("images.png")(tmp_path)
    table = inputs.text("classes.csv", "image,label\nx.png,0\ny.png,1\n")(tmp_path)
    words = ["scan", tmp_path / "images.png", "-o", tmp_path / "m.json", "--spacing-mm", 1, "--classes", table]
    with pytest.raises(calls.RefusedError, match=r"classes\.csv names none .*m\.json lists the images without classes"):
        calls.command(*words)
