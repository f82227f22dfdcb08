"""What files claim, unpack to and point to: refused in one sentence, before memory is taken and without waiting."""

import gzip
import os
import signal
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from typer.testing import CliRunner

from medpixcl.apps.habit_file import ReadingHabit
from medpixcl.apps.unlabelled import read_population
from medpixcl.cli.program import app
from medpixcl.data.claims import OverLimitError
from medpixcl.data.class_labels import ClassTable
from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import Manifest
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.scan import scan
from medpixcl.data.sources import group_files, visible_files
from medpixcl.data.splits import SplitFile
from medpixcl.data.volumes import detached_data
from medpixcl.landmarks.calibration import RadiusCalibration
from medpixcl.landmarks.regions import RegionCalibration
from medpixcl.limits import MAX_VOXELS
from medpixcl.matching import read_shape
from medpixcl.networks.weights import read_state_dict
from medpixcl.training.settings_file import read_settings
from tests.data.dicom_files import write_dicom, write_series
from tests.data.scanned import picture, reasons
from tests.data.test_dicom_geometry import along, enhanced
from tests.data.test_dicom_pixel_bytes import compressed, film, packed
from tests.data.test_volumes import metaimage, nrrd

VOLUME = np.arange(12 * 11 * 10, dtype=np.int16).reshape(12, 11, 10)
FLAT = np.arange(1320, dtype=np.uint16).reshape(40, 33)


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A file that is waited for ends the test."""

    def end(*_: Any) -> None:
        raise AssertionError("the file was waited for")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def itk(path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME), str(path))


def rle(path: Path) -> None:
    write_dicom(path, FLAT, Modality="DX", PixelSpacing=[0.2, 0.2])
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.nii.gz": lambda path: nibabel.save(nibabel.Nifti1Image(VOLUME, np.eye(4)), path),
    "a.nii": lambda path: nibabel.save(nibabel.Nifti1Image(VOLUME, np.eye(4)), path),
    "a.nrrd": itk,
    "a.mha": itk,
    "a.mhd": itk,
    "a.mnc": itk,
    "a.png": lambda path: Image.fromarray(FLAT.astype(np.uint8)).save(path),
    "deep.png": lambda path: Image.fromarray(FLAT).save(path),
    "a.tif": lambda path: Image.fromarray(FLAT).save(path),
    "a.dcm": lambda path: write_dicom(path, FLAT, Modality="DX", PixelSpacing=[0.2, 0.2]),
    "rle.dcm": rle,
    "frames.dcm": lambda path: enhanced(path, np.tile(FLAT, (4, 1, 1)), along(2.5 * np.arange(4))),
    "series": lambda path: write_series(path, VOLUME),
}


@pytest.mark.parametrize("name", WRITERS)
def test_more_voxels_than_the_limit(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](tmp_path / name)
    voxels = read_image(tmp_path / name, spacing_mm=1).numel()
    monkeypatch.setenv(MAX_VOXELS, str(voxels - 1))
    with pytest.raises(OverLimitError, match=r"states .* = .* voxels, more than the limit of .*; make it"):
        read_image(tmp_path / name, spacing_mm=1)
    monkeypatch.setenv(MAX_VOXELS, str(voxels))
    read_image(tmp_path / name, spacing_mm=1)


def nifti_start(*shape: int) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header.set_sform(np.eye(4), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return header.binaryblock + bytes(4)


def peak_of(path: Path) -> int:
    """Bytes that Python and numpy allocated at most while an image was read, or refused."""
    tracemalloc.start()
    with suppress(ImageFileError):
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_gzip_is_inflated_as_far_as_the_header_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti_start(8, 8, 8) + bytes(100_000_000), 1))
    read_image(path)  # what is imported now is not counted
    assert peak_of(path) < 10_000_000
    assert read_image(path).shape == (1, 8, 8, 8)


def test_a_claim_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nifti_start(30_000, 30_000, 30_000)))
    assert path.stat().st_size < 100
    assert peak_of(path) < 10_000_000


def test_gzip_of_many_members(tmp_path: Path) -> None:
    path, content = tmp_path / "a.nii.gz", nifti_start(8, 8, 8) + bytes(range(256)) * 2
    parts = [content[at : at + 100] for at in range(0, len(content), 100)]
    path.write_bytes(gzip.compress(b"") * 20_000 + b"".join(map(gzip.compress, parts)) + b"no member")
    np.testing.assert_array_equal(read_image(path)[0].numpy().ravel(order="F"), list(range(256)) * 2)


def test_deflated_dicom_is_not_inflated_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    expected = read_image(path).numpy()
    dataset.PixelData += bytes(50_000_000)
    dataset.save_as(path)
    monkeypatch.setenv(MAX_VOXELS, "2000000")
    with pytest.raises(OverLimitError, match=r"inflates to more than 0\.008 GB, the limit"):
        read_image(path)
    assert peak_of(path) < 10_000_000
    monkeypatch.delenv(MAX_VOXELS)
    np.testing.assert_array_equal(read_image(path).numpy(), expected)  # what is beyond the last pixel holds nothing


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("split", [None, 20])
def test_a_frame_of_another_size_is_not_decoded(tmp_path: Path, syntax: Any, split: int | None) -> None:
    frame = packed(np.arange(32 * 40, dtype="<u2").reshape(32, 40), JPEG2000Lossless)
    larger = bytearray(frame)
    larger[8:16] = larger[24:32] = struct.pack(">2I", 40_000, 50_000)
    if syntax == JPEGLSLossless:  # start of image, start of frame (T.87 C.2.2)
        larger = bytearray(b"\xff\xd8\xff\xe8\0\4ab\xff\xf7\0\x0b\x10" + struct.pack(">2H", 50_000, 40_000) + bytes(50))
    path = compressed(film(tmp_path), [bytes(larger[:split]), *([bytes(larger[split:])] if split else [])], syntax)
    with pytest.raises(ImageFileError, match="of 50000 x 40000 pixels, and its header states 32 x 40"):
        read_image(path)


def test_a_tiff_of_more_parts_than_it_names(tmp_path: Path) -> None:
    """Of 13,000 x 13,000 tiles of one pixel a list alone would take 7 GB."""
    tags = {256: 13_000, 257: 13_000, 258: 16, 259: 1, 262: 1, 277: 1, 322: 1, 323: 1, 324: 8, 325: 2}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ImageFileError, match=r"names 1 parts of 1 x 1 pixels, and its size needs 169000000"):
        read_image(tmp_path / "a.tif", spacing_mm=1)


PIPES = ("x.png", "x.tif", "x.dcm", "x.nii", "x.nii.gz", "x.nrrd", "x.mha", "x.mhd", "x.mnc", "x")


def test_pipes_and_devices_among_images(tmp_path: Path) -> None:
    picture(tmp_path / "good.png", 0)
    for name in PIPES:
        os.mkfifo(tmp_path / name)
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "results").mkdir()
    os.mkfifo(tmp_path / "results" / "run.json")  # which would tell a folder of results
    found = scan(tmp_path, spacing_mm=1)
    assert [one["image"] for one in found.training] == ["good.png"]
    expected = dict.fromkeys((*PIPES, "results/run.json"), "is a named pipe") | {"zero.png": "is a device"}
    assert {path: reason.partition(",")[0] for path, reason in reasons(found).items()} == expected
    for name in (*PIPES, "zero.png"):
        with pytest.raises(ImageFileError, match=rf"{name}: is a (named pipe|device), which is not read"):
            read_image(tmp_path / name)
    with pytest.raises(ImageFileError, match=r"x\.dcm: is a named pipe"):
        read_image([tmp_path / "x.dcm"] * 3)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "landmarks": ("a.csv", read_landmarks),
    "markups": ("a.mrk.json", read_landmarks),
    "report": ("a.dcm", read_landmarks),
    "manifest": ("a.json", Manifest.read),
    "lines": ("a.jsonl", Manifest.read),
    "splits": ("a.csv", SplitFile),
    "classes": ("a.csv", ClassTable),
    "weights": ("a.pt", read_state_dict),
    "population": ("a.pt", lambda path: read_population(str(path), ["a"])),
    "radii": ("a.json", RadiusCalibration.read),
    "regions": ("a.json", RegionCalibration.read),
    "shape": ("a.json", lambda path: read_shape(str(path))),
    "settings": ("a.json", read_settings),
    "habit": ("a.json", ReadingHabit.read),
}


@pytest.mark.parametrize("kind", READERS)
def test_pipes_among_other_inputs(tmp_path: Path, kind: str) -> None:
    name, read = READERS[kind]
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name}:? is a named pipe, which is not read; save its content to a file"):
        read(tmp_path / name)


OUTSIDE = ["/dev/zero", "/etc/passwd", "../secret.raw", "below/../../secret.raw", "C:\\secret.raw", "..\\secret.raw"]


@pytest.mark.parametrize("place", OUTSIDE)
def test_voxels_outside_of_the_folder_of_their_header(tmp_path: Path, place: str) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(range(60)))
    (tmp_path / "a").mkdir()
    for path in (
        metaimage(tmp_path / "a" / "a.mhd", "ElementSpacing = 1 1 1", data=place),
        metaimage(tmp_path / "a" / "a.mha", "ElementSpacing = 1 1 1", data=place),
        nrrd(tmp_path / "a" / "a.nhdr", "spacings: 1 1 1", f"data file: {place}", content=b""),
    ):
        with pytest.raises(ImageFileError) as caught:
            read_image(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert place in str(caught.value)
        assert "outside of its folder" in str(caught.value)
        assert detached_data(path) is None


def test_voxels_below_the_folder_of_their_header(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.raw").write_bytes(bytes(range(60)))
    for path in (
        metaimage(tmp_path / "a.mhd", "ElementSpacing = 1 1 1", data="below/a.raw"),
        nrrd(tmp_path / "a.nhdr", "spacings: 1 1 1", "data file: below/a.raw", content=b""),
    ):
        np.testing.assert_array_equal(read_image(path)[0].numpy().ravel(order="F"), range(60))


def test_headers_that_itk_might_read_otherwise(tmp_path: Path) -> None:
    """ITK takes a colon for a sign of equality, the last of two data files or the first, and any format it knows."""
    (tmp_path / "good.raw").write_bytes(bytes(60))
    two = "Comment = ElementDataFile = good.raw"
    paths = [
        metaimage(tmp_path / "twice.mhd", "ElementSpacing = 1 1 1", two, data="/etc/passwd"),
        metaimage(tmp_path / "colon.mhd", "ElementSpacing = 1 1 1", data="X"),
        nrrd(tmp_path / "pair.nhdr", "data file: /etc/passwd", "data file:=good.raw", content=b""),
        nrrd(tmp_path / "twice.nhdr", "data file: good.raw", "Data File: /etc/passwd", content=b""),
    ]
    paths[1].write_text(paths[1].read_text().replace("= X", ": /etc/passwd"))
    long = nrrd(tmp_path / "long.nhdr", *["# comment" * 1000] * 12, "data file: /etc/passwd", content=b"")
    with pytest.raises(ImageFileError, match=r"lies outside of its folder|has a header of more than 100000 bytes"):
        read_image(long)
    for path in paths:
        with pytest.raises(ImageFileError, match=r"outside of its folder|expected once"):
            read_image(path)
    itk(tmp_path / "real.mha")
    (tmp_path / "real.mha").rename(tmp_path / "other.nrrd")
    with pytest.raises(ImageFileError):
        read_image(tmp_path / "other.nrrd")


def test_voxels_that_are_a_pipe_or_an_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.raw")
    picture(tmp_path / "b.png", 1)
    metaimage(tmp_path / "p.mhd", "ElementSpacing = 1 1 1", data="p.raw")
    metaimage(tmp_path / "b.mhd", "ElementSpacing = 1 1 1", data="b.png")
    found, refused = group_files(visible_files([tmp_path]))
    assert {one.place.name for one in found} == {"p.mhd", "b.mhd", "b.png"}
    assert [one.path.name for one in refused] == ["p.raw"]
    with pytest.raises(ImageFileError, match=r"whose file of voxels, p\.raw, is a named pipe; expected a file\."):
        read_image(tmp_path / "p.mhd")
    with pytest.raises(ImageFileError, match=r"names an image, b\.png, as its file of voxels; export it again\."):
        read_image(tmp_path / "b.mhd")


def test_links_out_of_the_scanned_folder_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outside = [picture(tmp_path / "other" / name, seed) for seed, name in enumerate(("a.png", "b.png"))]
    picture(tmp_path / "set" / "own.png", 5)
    (tmp_path / "set" / "link.png").symlink_to(outside[0])
    (tmp_path / "set" / "folder").symlink_to(tmp_path / "other")
    (tmp_path / "set" / "inside.png").symlink_to(tmp_path / "set" / "own.png")
    found = scan(tmp_path / "set", spacing_mm=1)
    assert {one["image"] for one in found.training} == {
        "folder/a.png", "folder/b.png", "inside.png", "link.png", "own.png",
    }  # fmt: skip
    named = [record.args[0] for record in caplog.records if "leads out of the scanned folder" in record.message]
    assert named == [str(tmp_path / "set" / name) for name in ("folder", "link.png")]


def test_a_larger_limit_reads_what_was_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a limit leaves out is looked at again in every scan, though the file is as it was."""
    picture(tmp_path / "small.png", 0, (8, 8))
    picture(tmp_path / "large.png", 1)
    command = ["scan", str(tmp_path), "--spacing-mm", "1", "-o", str(tmp_path / "m.json")]
    monkeypatch.setenv(MAX_VOXELS, "1000000")  # for the end of the test
    for limit, listed in (("100", 1), ("1000", 2)):
        result = CliRunner().invoke(app, ["--max-voxels", limit, *command])
        assert result.exit_code == 0, result.output
        assert len(Manifest.read(tmp_path / "m.json").training) == listed
    result = CliRunner().invoke(app, ["--max-voxels", "few", *command])
    assert "expected a number of voxels" in str(result.exception)


def test_inflated_pictures_end_with_the_picture(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes([0, *range(8)]) * 8 + bytes(50_000_000)))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + start + pixels + chunk(b"IEND", b""))
    assert read_image(tmp_path / "a.png", spacing_mm=1)[0, 3].tolist() == list(range(8))
