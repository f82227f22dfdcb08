"""Landmark files: every format gives the same positions, and every bad line is named."""

import csv
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import SimpleITK
import slicerio
import torch

from medpixcl.coordinates import image_affine
from medpixcl.data.images import MissingSpacingError, read_image
from medpixcl.data.landmarks.csv_file import landmark_rows, write_landmarks_csv
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.slicer import write_markups
from medpixcl.landmarks.points import LandmarkSet

OBLIQUE = torch.tensor(
    [[-1.6, 0.9, 0.0, 20.0], [-1.2, -1.2, 0.0, 30.0], [0.0, 0.0, 3.0, -40.0], [0.0, 0.0, 0.0, 1.0]],
    dtype=torch.float64,
)
SHAPE = (20, 30, 10)
NAMES = ("sella", "nasion", "porion")
VOXELS = torch.tensor([[1.0, 2.0, 3.0], [torch.nan] * 3, [19.25, 0.5, 9.0]], dtype=torch.float64)


def in_lps(voxel: list[float]) -> list[float]:
    """The position by hand: affine, then the first two signs turned."""
    ras = OBLIQUE.numpy() @ [*voxel, 1.0]
    return [-ras[0], -ras[1], ras[2]]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_pixels_of_a_picture_are_column_then_row(tmp_path: Path) -> None:
    file = read_landmarks(
        write(tmp_path / "l.csv", "image,landmark,x_px,y_px,spacing_mm\na.png,1,10,3,0.5\na.png,2,,,0.5\n")
    )
    points = file.for_image(tmp_path / "a.png", image_affine((0.5, 0.5)), (20, 30), 2)
    assert points.names == ("1", "2")
    torch.testing.assert_close(points.voxels, torch.tensor([[3.0, 10.0], [torch.nan] * 2]).double(), equal_nan=True)
    assert file.positions_mm() == {"a.png": {"1": (5.0, 1.5)}}


def test_millimetres_of_a_picture_are_lps(tmp_path: Path) -> None:
    file = read_landmarks(write(tmp_path / "l.csv", "image,landmark,x_mm,y_mm\na.png,1,5,1.5\n"))
    points = file.for_image("a.png", image_affine((0.25, 0.5)), (20, 30))
    assert points.voxels.tolist() == [[6.0, 10.0]]


def test_pixels_of_a_volume_are_i_j_k(tmp_path: Path) -> None:
    file = read_landmarks(write(tmp_path / "l.csv", "volume,landmark,x_px,y_px,z_px\nv.nii.gz,1,10,3,7\n"))
    assert file.for_image("v.nii.gz", OBLIQUE, SHAPE).voxels.tolist() == [[10.0, 3.0, 7.0]]


def test_every_format_gives_the_same_voxels(tmp_path: Path) -> None:
    first, last = in_lps([1.0, 2.0, 3.0]), in_lps([19.25, 0.5, 9.0])
    rows = "".join(f"v.nii.gz,{name},{x},{y},{z}\n" for name, (x, y, z) in (("sella", first), ("porion", last)))
    table = "volume,landmark,x_mm,y_mm,z_mm\n" + rows.replace("v.nii.gz,porion", "v.nii.gz,nasion,,,\nv.nii.gz,porion")
    write(tmp_path / "table.csv", table)
    points = [
        {"label": "sella", "position": [-first[0], -first[1], first[2]]},
        {"label": "nasion", "position": "", "positionStatus": "undefined"},
        {"label": "porion", "position": [-last[0], -last[1], last[2]], "positionStatus": "defined"},
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "RAS", "controlPoints": points}
    markups = [{"type": "Line", "controlPoints": []}, markup]
    write(tmp_path / "v.mrk.json", json.dumps({"@schema": "", "markups": markups}))
    for path in (tmp_path / "table.csv", tmp_path / "v.mrk.json"):
        found = read_landmarks(path).for_image(tmp_path / "v.nii.gz", OBLIQUE, SHAPE)
        assert found.names == NAMES
        torch.testing.assert_close(found.voxels, VOXELS, equal_nan=True)


@pytest.mark.parametrize(
    ("header", "signs"),
    [("", (1, 1)), ("# CoordinateSystem = 0\n", (1, 1)), ("# CoordinateSystem = RAS\n", (1, 1)),
     ("# CoordinateSystem = 1\n", (-1, -1)), ("# CoordinateSystem = LPS\n", (-1, -1))],
)  # fmt: skip
def test_fcsv_frame_as_slicerio_reads_it(tmp_path: Path, header: str, signs: tuple[int, int]) -> None:
    ras = OBLIQUE.numpy() @ [1.0, 2.0, 3.0, 1.0]
    text = (
        f"# Markups fiducial file version = 4.10\n{header}"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        f'node_0,{ras[0] * signs[0]},{ras[1] * signs[1]},{ras[2]},0,0,0,1,1,1,0,"sella, left",,\n'
    )
    path = write(tmp_path / "v.fcsv", text)
    points = read_landmarks(path).for_image("v.nii.gz", OBLIQUE, SHAPE)
    assert points.names == ("sella, left",)
    torch.testing.assert_close(points.voxels, VOXELS[:1])
    independent = slicerio.read_markups_fcsv(path)["markups"][0]
    assert independent["coordinateSystem"] == ("LPS" if signs[0] < 0 else "RAS")


def test_markups_that_slicerio_writes_agree_with_their_fcsv(tmp_path: Path) -> None:
    lps = in_lps([1.0, 2.0, 3.0])
    path = write(
        tmp_path / "v.fcsv",
        "# CoordinateSystem = LPS\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        f"1,{lps[0]},{lps[1]},{lps[2]},0,0,0,1,1,1,0,sella,,\n",
    )
    (tmp_path / "converted").mkdir()
    converted = slicerio.fcsv_to_markups_json(path, tmp_path / "converted" / "v.mrk.json")
    expected = read_landmarks(path).positions_mm()
    assert read_landmarks(converted).positions_mm() == expected == {"v": {"sella": pytest.approx(tuple(lps))}}


def test_old_fcsv_columns_are_followed(tmp_path: Path) -> None:
    path = write(tmp_path / "v.fcsv", "# columns = label,x,y,z,sel,vis\nsella,1,2,3,1,1\n")
    assert read_landmarks(path).positions_mm() == {"v": {"sella": (-1.0, -2.0, 3.0)}}


@pytest.mark.parametrize("dims", [2, 3])
def test_written_markups_follow_the_schema_and_come_back(tmp_path: Path, data_dir: Path, dims: int) -> None:
    affine, shape = (image_affine((0.5, 0.25)), (20, 30)) if dims == 2 else (OBLIQUE, SHAPE)
    points = LandmarkSet(NAMES, VOXELS[:, :dims], torch.tensor([0.5, 0.0, 1.0]), ("", "no match", ""))
    path = tmp_path / "img.mrk.json"
    write_markups(path, points, affine)
    content = json.loads(path.read_text(encoding="utf-8"))
    schema = data_dir.parent / "schemas" / "slicer-markups-schema-v1.0.3.json"
    if schema.exists():
        jsonschema.validate(content, json.loads(schema.read_text(encoding="utf-8")))
    controls = content["markups"][0]["controlPoints"]
    assert [control["positionStatus"] for control in controls] == ["defined", "undefined", "defined"]
    assert controls[1]["description"] == "score 0.0000; no match"
    if dims == 2:
        assert controls[0]["position"] == [0.5, 0.5, 0.0]  # x = column 2 * 0.25, y = row 1 * 0.5
    else:
        np.testing.assert_allclose(controls[0]["position"], in_lps([1.0, 2.0, 3.0]), atol=1e-5)
    again = read_landmarks(path).for_image(tmp_path / "img.png", affine, shape, dims)
    assert again.names == NAMES
    torch.testing.assert_close(again.voxels, points.voxels, atol=1e-5, rtol=0, equal_nan=True)


@pytest.mark.parametrize("dims", [2, 3])
def test_written_csv_has_the_promised_header_and_comes_back(tmp_path: Path, dims: int) -> None:
    affine, shape = (image_affine((0.5, 0.25)), (20, 30)) if dims == 2 else (OBLIQUE, SHAPE)
    points = LandmarkSet(NAMES, VOXELS[:, :dims], torch.tensor([0.5, 0.0, 1.0]), ("", "no match", ""))
    path = tmp_path / "out" / "landmarks.csv"
    write_landmarks_csv(path, landmark_rows("images/a.png", points, affine))
    with path.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert (
        ",".join(rows[0])
        == {
            2: "image,landmark,x_px,y_px,x_mm,y_mm,score,flag",
            3: "image,landmark,x_px,y_px,z_px,x_mm,y_mm,z_mm,score,flag",
        }[dims]
    )
    assert rows[2] == ["images/a.png", "nasion", *[""] * 2 * dims, "0.0000", "no match"]
    if dims == 2:
        assert rows[1] == ["images/a.png", "sella", "2.0000", "1.0000", "0.5000", "0.5000", "0.5000", ""]
    file = read_landmarks(path)
    again = file.for_image(tmp_path / "images" / "a.png", affine, shape)
    torch.testing.assert_close(again.voxels, points.voxels, atol=1e-4, rtol=0, equal_nan=True)
    assert set(file.positions_mm()["images/a.png"]) == {"sella", "porion"}
    assert [entry.name for entry in path.parent.iterdir()] == ["landmarks.csv"]


def test_mixed_dimensions_in_one_table_are_refused(tmp_path: Path) -> None:
    flat = landmark_rows("a.png", LandmarkSet(("a",), torch.zeros(1, 2)), image_affine((1.0, 1.0)))
    deep = landmark_rows("v.nii", LandmarkSet(("a",), torch.zeros(1, 3)), OBLIQUE)
    with pytest.raises(ValueError, match="2D and 3D images in one table"):
        write_landmarks_csv(tmp_path / "l.csv", flat + deep)
    with pytest.raises(ValueError, match="no landmarks to write"):
        write_landmarks_csv(tmp_path / "l.csv", [])


def test_path_counts_before_file_name_before_stem(tmp_path: Path) -> None:
    text = "image,landmark,x_px,y_px\nleft/a.png,1,1,1\nright/a.png,1,2,2\nb.png,1,3,3\nc,1,4,4\n"
    file = read_landmarks(write(tmp_path / "l.csv", text))
    assert file.images == ("left/a.png", "right/a.png", "b.png", "c")
    assert file.find(tmp_path / "right" / "a.png") == "right/a.png"
    assert file.find("/elsewhere/b.png") == "b.png"
    assert file.find("/elsewhere/c.nii.gz") == "c"
    assert file.find("d.png") is None
    with pytest.raises(ValueError, match=r"may be any of .*left/a.png.*right/a.png"):
        file.find("/elsewhere/a.png")


def test_image_without_rows_is_refused(tmp_path: Path) -> None:
    file = read_landmarks(write(tmp_path / "l.csv", "image,landmark,x_px,y_px\na.png,1,1,1\nb.png,1,2,2\n"))
    with pytest.raises(ValueError, match=r"l\.csv has no landmarks of .*c\.png; it has those of "):
        file.for_image("c.png", image_affine((1.0, 1.0)), (5, 5))


def test_point_outside_the_image_is_refused(tmp_path: Path) -> None:
    file = read_landmarks(write(tmp_path / "l.csv", "image,landmark,x_px,y_px\na.png,sella,40,1\n"))
    sentence = (
        r"line 2: landmark 'sella' of 'a\.png' lies at voxel \(1\.0, 40\.0\), outside the image of size \(20, 30\)"
    )
    with pytest.raises(ValueError, match=sentence):
        file.for_image("a.png", image_affine((1.0, 1.0)), (20, 30))


def test_an_image_that_the_table_does_not_name(tmp_path: Path) -> None:
    """Keys of the same file name first, and how a key is found."""
    rows = "".join(f"{key},1,1,1\n" for key in ("a/1.png", "b/1.png", "c/1.png", "old/t.png"))
    file = read_landmarks(write(tmp_path / "l.csv", f"image,landmark,x_px,y_px\n{rows}"))
    words = (
        r"has no landmarks of new/t\.png; it has those of 'old/t\.png', 'a/1\.png', 'b/1\.png' and 1 more, and an image"
    )
    with pytest.raises(ValueError, match=words):
        file.for_image("new/t.png", image_affine((1.0, 1.0)), (20, 30))


@pytest.mark.parametrize(("x", "fits"), [(-0.5, True), (29.5, True), (-0.6, False), (29.6, False)])
def test_the_image_ends_half_a_pixel_beyond_the_last_centre(tmp_path: Path, x: float, fits: bool) -> None:
    file = read_landmarks(write(tmp_path / "l.csv", f"image,landmark,x_px,y_px\na.png,sella,{x},1\n"))
    if fits:
        assert file.for_image("a.png", image_affine((1.0, 1.0)), (20, 30)).voxels.tolist() == [[1.0, x]]
    else:
        with pytest.raises(ValueError, match="outside the image"):
            file.for_image("a.png", image_affine((1.0, 1.0)), (20, 30))


def test_wrong_number_of_coordinates_is_refused(tmp_path: Path) -> None:
    flat = read_landmarks(write(tmp_path / "l.csv", "image,landmark,x_px,y_px\nv.nii,1,1,1\n"))
    with pytest.raises(ValueError, match="expected 3 coordinates for a 3D image"):
        flat.for_image("v.nii", OBLIQUE, SHAPE)
    deep = read_landmarks(write(tmp_path / "d.csv", "image,landmark,x_mm,y_mm,z_mm\na.png,1,1,1,7\na.png,2,1,1,0\n"))
    with pytest.raises(ValueError, match=r"line 2: landmark '1' .* expected 2 coordinates for a 2D image"):
        deep.for_image("a.png", image_affine((1.0, 1.0)), (5, 5))
    with pytest.raises(ValueError, match="has 2 spatial axes; expected 3"):
        deep.for_image("a.png", image_affine((1.0, 1.0)), (5, 5), 3)


def test_pixels_without_spacing_have_no_millimetres(tmp_path: Path) -> None:
    file = read_landmarks(write(tmp_path / "l.csv", "image,landmark,x_px,y_px\na.png,1,1,1\n"))
    with pytest.raises(MissingSpacingError, match="line 2: position in pixels without spacing_mm"):
        file.positions_mm()
    volume = read_landmarks(write(tmp_path / "v.csv", "volume,landmark,x_px,y_px,z_px,spacing_mm\nv.nii,1,1,1,1,2\n"))
    with pytest.raises(ValueError, match="line 2: a volume's voxel has no position in mm"):
        volume.positions_mm()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("image,landmark,x_px,y_px\na.png,1,1,two\n", "line 2: x_px='1', y_px='two'; expected numbers"),
        ("image,landmark,x_px,y_px\na.png,1,1,nan\n", "line 2: .*expected numbers"),
        ("image,landmark,x_px,y_px\na.png,1,1,\n", "line 2: .*or all empty for a missing landmark"),
        (
            "image,landmark,x_px\na.png,1,1\n",
            "has the columns image, landmark, x_px, separated by commas; expected",
        ),
        (
            "image|landmark|x_px\na.png|1|1\n",
            r"columns image\|landmark\|x_px, separated by commas; .* semicolons",
        ),
        ("image;landmark;x\na.png;1;1\n", "has the columns image, landmark, x, separated by semicolons; expected"),
        ("image;landmark;x_px;y_px\na.png;1;1.234,5;1\n", "line 2: x_px='1.234.5', y_px='1'; expected numbers"),
        ("", r"has the columns \(none\), .*; expected"),
        ("image,landmark,x_px,y_px\n", "holds no landmarks"),
        ("image,landmark,x_px,y_px\na.png,1,1,1\na.png,1,2,2\n", "line 3: landmark '1' of 'a.png' stands at line 2"),
        ("image,landmark,x_px,y_px\n,1,1,1\n", "line 2: no image named"),
        ("image,landmark,x_px,y_px\na.png,,1,1\n", "line 2: no landmark named"),
        ("image,landmark,x_px,y_px\na.png,1,1,5,2,5\n", "line 2 has more cells than the header"),
        ("image,landmark,x_px,y_px,spacing_mm\na.png,1,1,1,0\n", "line 2: spacing_mm is 0; expected a positive size"),
    ],
)
def test_bad_csv_is_refused_by_line(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        read_landmarks(write(tmp_path / "l.csv", text))
    assert str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("markup", "sentence"),
    [
        ({"type": "Line"}, "holds no point list"),
        ({"type": "Fiducial", "coordinateSystem": "IJK"}, "has positions in the frame 'IJK'; expected LPS or RAS"),
        ({"type": "Fiducial", "coordinateUnits": "inch"}, "has positions in 'inch'; expected mm"),
        ({"type": "Fiducial", "controlPoints": [{"position": [1, 2, 3]}]}, "point 1 has no label"),
        ({"type": "Fiducial", "controlPoints": [{"label": "a", "position": [1, 2]}]}, "expected three numbers"),
        ({"type": "Fiducial", "controlPoints": [{"label": "a", "position": [1, 2, "x"]}]}, "expected three numbers"),
        ({"type": "Fiducial", "controlPoints": [{"label": "a"}] * 2}, "point 2: landmark 'a' of 'v' stands at point 1"),
        ({"type": "Fiducial", "controlPoints": []}, "holds no landmarks"),
    ],
)
def test_bad_markups_are_refused(tmp_path: Path, markup: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_landmarks(write(tmp_path / "v.mrk.json", json.dumps({"markups": [markup]})))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.mrk.json", b"{", "is not a Slicer Markups file"),
        ("a.mrk.json", b'{"markups": [{"type": "Fiducial", "controlPoints": [1]}]}', "is not a Slicer Markups file"),
        ("a.mrk.json", b"[1]", "is not a Slicer Markups file"),
        ("a.fcsv", b"# CoordinateSystem = 2\n", "frame '2'; expected LPS or RAS"),
        ("a.fcsv", b"id,1,2\n", "line 1 has no label"),
        ("a.fcsv", b"id,1,2,z,0,0,0,1,1,1,0,sella,,\n", r"line 1 \(sella\) lies at .*expected three numbers"),
        ("a.csv", b"image,landmark,x_px,y_px\n\xe4.png,1,1,1\n", "is not UTF-8 text"),
        ("a.txt", b"", "is no landmark file; expected .csv, .mrk.json or .fcsv"),
    ],
)
def test_other_bad_files_are_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_landmarks(tmp_path / name)


def test_absent_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; expected a landmark file"):
        read_landmarks(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="holds no landmark file"):
        read_landmarks(tmp_path)


@pytest.mark.data
def test_ceph_points_lie_where_the_picture_has_them(data_dir: Path) -> None:
    folder = data_dir / "ceph_isbi2015"
    file = read_landmarks(folder / "landmarks.csv")
    image = read_image(folder / "images" / "001.png", spacing_mm=0.5)
    points = file.for_image(folder / "images" / "001.png", image.affine, image.shape[1:])
    assert len(file.images) == 300
    assert len(points.names) == 19
    assert points.voxels[0].tolist() == [198.3, 166.0]
    assert file.positions_mm()["images/001.png"]["1"] == pytest.approx((83.0, 99.15))


@pytest.mark.data
def test_mouse_folder_of_markups_agrees_with_the_table_and_with_itk(data_dir: Path) -> None:
    folder = data_dir / "mouse_head_ct"
    table, markups = read_landmarks(folder / "landmarks.csv"), read_landmarks(folder / "labelled_mrk_json")
    path = folder / "labelled" / "AKR_J_.nii.gz"
    image = read_image(path)
    from_table = table.for_image(path, image.affine, image.shape[1:])
    from_markups = markups.for_image(path, image.affine, image.shape[1:])
    assert len(from_table.names) == len(from_markups.names) == 45
    torch.testing.assert_close(from_table.voxels, from_markups.voxels, atol=1e-2, rtol=0)
    itk = SimpleITK.ReadImage(str(path))
    for name, position in list(table.positions_mm()["labelled/AKR_J_.nii.gz"].items())[:5]:
        index = itk.TransformPhysicalPointToContinuousIndex(position)
        np.testing.assert_allclose(from_table.voxels[from_table.names.index(name)], index, atol=1e-3)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_separators_of_spreadsheets(tmp_path: Path, separator: str) -> None:
    """Semicolons and tabs go with decimal commas, as a spreadsheet in German or French writes them."""
    header = separator.join(["image", "landmark", "x_px", "y_px", "spacing_mm", "score"])
    row = separator.join(["a.png", "1", *(cell if separator == "," else cell.replace(".", ",") for cell in
                                          ("10.5", "3.25", "0.5", "0.9"))])  # fmt: skip
    file = read_landmarks(write(tmp_path / "l.csv", f"{header}\n{row}\n"))
    assert file.for_image("a.png", image_affine((0.5, 0.5)), (20, 30)).voxels.tolist() == [[3.25, 10.5]]
    assert file.positions_mm() == {"a.png": {"1": (5.25, 1.625)}}
    assert file.scored


def edited(tmp_path: Path, dims: int, cells: dict[str, str]) -> Path:
    """A table as a run writes it, of which a person changes some cells of the second landmark."""
    generator = torch.Generator().manual_seed(0)
    shape = torch.tensor(SHAPE[:dims]).double() - 1
    points = LandmarkSet(tuple("ABCDEFGH"), torch.rand(8, dims, generator=generator, dtype=torch.float64) * shape)
    rows = landmark_rows("a.png", points, image_affine((0.5, 0.25)) if dims == 2 else OBLIQUE)
    rows[1] |= {name: cells.get(name, cell) for name, cell in rows[1].items()}
    write_landmarks_csv(tmp_path / "l.csv", rows)
    return tmp_path / "l.csv"


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("cell", ["x_px", "y_mm"])
def test_an_edit_of_one_unit_alone_is_refused(tmp_path: Path, dims: int, cell: str) -> None:
    affine = image_affine((0.5, 0.25)) if dims == 2 else OBLIQUE
    read_landmarks(edited(tmp_path, dims, {})).for_image("a.png", affine, SHAPE[:dims])
    assert len(read_landmarks(tmp_path / "l.csv").positions_mm()["a.png"]) == 8
    file = read_landmarks(edited(tmp_path, dims, {cell: "4.2"}))
    place = r"line 3: landmark 'B' of 'a.png' lies at \(.*\) in pixels and at \(.*\) in mm, which"
    with pytest.raises(
        ValueError, match=f"{place} are .* mm apart in this image; after an edit of one, empty the cells"
    ):
        file.for_image("a.png", affine, SHAPE[:dims])
    with pytest.raises(ValueError, match=f"{place} does not fit the other landmarks of the image"):
        file.positions_mm()


def test_few_written_digits_are_no_edit(tmp_path: Path) -> None:
    rows = "a.png,1,10,3,4.8,1.7\na.png,2,4,3,1.9,1.4\na.png,3,7,9,3.4,4.6\na.png,4,2,2,1.0,1.1\n"
    file = read_landmarks(write(tmp_path / "l.csv", f"image,landmark,x_px,y_px,x_mm,y_mm\n{rows}"))
    assert file.for_image("a.png", image_affine((0.5, 0.5)), (20, 30)).voxels[0].tolist() == [3.0, 10.0]
    assert file.positions_mm()["a.png"]["1"] == (4.8, 1.7)
