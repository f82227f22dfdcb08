"""What headers say of a patient reaches no output: no manifest, table, picture, report, event, weights, console."""

import base64
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image, PngImagePlugin
from pydicom import Dataset, dcmread
from pydicom.uid import ComputedRadiographyImageStorage, generate_uid

from medpixcl.data.phantoms import draw_phantom
from medpixcl.networks import PixelEmbeddingNet
from tests.data.dicom_files import write_dicom
from tests.test_hostile_names import DETECTION, options, write_table
from tests.tiny import MATCHING, NETWORK, PRETRAINING, medpixcl, write_config

MARK = "Zq7Planted"
"""Every planted text begins with it, so that one search finds all of them."""
ELEMENTS = (
    "PatientName", "PatientID", "PatientComments", "PatientAddress", "OtherPatientNames", "EthnicGroup", "Occupation",
    "InstitutionName", "InstitutionAddress", "ReferringPhysicianName", "OperatorsName", "StationName",
    "AccessionNumber", "StudyID", "StudyDescription", "SeriesDescription", "ProtocolName", "DeviceSerialNumber",
    "ImageComments", "AdditionalPatientHistory", "RequestedProcedureDescription",
)  # fmt: skip
SHORT = 16
"""Letters that the shortest of these elements holds."""
pytestmark = pytest.mark.slow


def planted(number: int) -> str:
    return f"{MARK}{number:03d}"


def write_radiograph(path: Path, pixels: np.ndarray) -> None:
    """A CR image with a planted text in all that identifies, in private elements, in a sequence and in the preamble."""
    texts: dict[str, Any] = {name: planted(number)[:SHORT] for number, name in enumerate(ELEMENTS)}
    inner = Dataset()
    inner.ScheduledProcedureStepDescription, inner.RequestedProcedureID = planted(100), planted(101)
    write_dicom(
        path, pixels, **texts, RequestAttributesSequence=[inner], Modality="CR", PixelSpacing=[1.0, 1.0],
        SOPClassUID=ComputedRadiographyImageStorage, StudyInstanceUID=generate_uid(), PatientBirthDate="19710203",
    )  # fmt: skip
    dataset = dcmread(path)
    block = dataset.private_block(0x0011, planted(102), create=True)
    block.add_new(0x01, "LO", planted(103))
    dataset.preamble = planted(104).encode().ljust(128, b"\0")
    dataset.save_as(path, enforce_file_format=True)


def write_pictures(folder: Path) -> None:
    """PNG with text, JPEG and TIFF with EXIF, a comment and a description."""
    folder.mkdir()
    for number, suffix in enumerate(("png", "jpg", "tif", "png", "jpg", "tif")):
        grey = Image.fromarray((255 * draw_phantom((48, 44), seed=number)).astype(np.uint8))
        text = PngImagePlugin.PngInfo()
        text.add_text("Patient", planted(200))
        text.add_itxt("Comment", planted(201), zip=True)
        exif = Image.Exif()
        exif[0x010E], exif[0x013B] = planted(202), planted(203)
        place = folder / f"{number}.{suffix}"
        given: dict[str, Any] = {"png": {"pnginfo": text}, "jpg": {"exif": exif, "comment": planted(204).encode()},
                                 "tif": {"exif": exif, "description": planted(205)}}[suffix]  # fmt: skip
        grey.save(place, **given)
        assert MARK.encode() in place.read_bytes()


def write_volumes(folder: Path) -> None:
    """NIfTI, NRRD and MetaImage with texts in their headers."""
    folder.mkdir()
    values = draw_phantom((26, 22, 24), seed=1).astype(np.float32)
    image = nibabel.Nifti1Image(values, np.eye(4))
    image.header["descrip"], image.header["db_name"] = planted(300).encode(), planted(301).encode()
    image.header["aux_file"] = planted(302).encode()
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", planted(303).encode()))
    nibabel.save(image, folder / "a.nii")
    for suffix in ("nrrd", "mha"):
        other = SimpleITK.GetImageFromArray(values)
        other.SetMetaData("PatientName", planted(304))
        other.SetMetaData("Comment", planted(305))
        SimpleITK.WriteImage(other, str(folder / f"b.{suffix}"))
        assert MARK.encode() in (folder / f"b.{suffix}").read_bytes()


def parts(content: bytes) -> Iterator[bytes]:
    """A file, the members of archives in it, and pictures and compressed texts within it."""
    yield content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield from parts(archive.read(name))
    for found in re.findall(rb"data:image/[a-z+]+;base64,([A-Za-z0-9+/=]+)", content):
        yield from parts(base64.b64decode(found))
    for start in (one.start() for one in re.finditer(rb"x[\x01\x5e\x9c\xda]", content)):
        try:
            yield zlib.decompressobj().decompress(content[start:], 1_000_000)
        except zlib.error:
            continue


def test_the_search_finds_what_is_planted(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures")
    for path in sorted((tmp_path / "pictures").iterdir()):
        texts = b"".join(parts(path.read_bytes()))
        assert MARK.encode() in texts
        if path.suffix == ".png":
            assert planted(201).encode() in texts, "compressed"
    coded = base64.b64encode((tmp_path / "pictures" / "0.png").read_bytes())
    page = b'<img src="data:image/png;base64,' + coded + b'">'
    assert MARK.encode() in b"".join(list(parts(page))[1:])


def test_no_output_holds_what_headers_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        write_radiograph(tmp_path / "films" / f"{number}.dcm", 900 * draw_phantom((48, 44), seed=number) + 50)
    write_pictures(tmp_path / "pictures")
    write_volumes(tmp_path / "volumes")
    torch.save(PixelEmbeddingNet(**NETWORK).state_dict(), "weights.pt")
    names = ["sella", "nasion", "point a", "point b"]
    write_table("films.csv", [f"{number}.dcm" for number in range(4)], names)
    out = tmp_path / "out"
    out.mkdir()
    config = write_config(tmp_path / "tiny.json", max_epochs=1, pictures=True, imagenet=False)
    network = ["--bundle", MATCHING, "--weights", "weights.pt", *options(NETWORK), "--trust"]
    template = ["--template", "films/0.dcm", "--landmarks", "films.csv"]
    formats = ["--format", "csv,json,mrk.json,coco,sr", "--reference", "films.csv"]
    commands: list[list[Any]] = [
        ["scan", "films", "-o", out / "films.json"],
        ["scan", "pictures", "-o", out / "pictures.jsonl", "--spacing-mm", 1],
        ["scan", "volumes", "-o", out / "volumes.json"],
        ["pretrain", PRETRAINING, "--data", out / "films.json", "-o", out / "run", "--trust", "--config", config],
        ["match", *template, *network, "--images", "films", "-o", out / "matched", *formats],
        ["match", *template, *network, "--images", "films", "-o", out / "learnt", "--unlabelled", "films"],
        ["match", *template, *network, "--images", "pictures", "--spacing-mm", 1, "-o", out / "pictures"],
        ["detect", "--bundle", DETECTION, "--images", "films", "-o", out / "detected"],
        ["detect", "--bundle", "volume_landmark_detection", "--images", "volumes", "-o", out / "volumes"],
        ["register", "--method", "affine", *template, "--images", "films", "-o", out / "registered"],
        ["measure", "films.csv", "--images", "films", "-o", out / "measured"],
        ["evaluate", "--predictions", out / "matched" / "landmarks.csv", "--reference", "films.csv", "-o",
         out / "errors.json"],
    ]  # fmt: skip
    for words in commands:
        assert medpixcl(*words) == 0, words[0]
    shown = capfd.readouterr()
    assert MARK not in shown.out + shown.err
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 60
    assert {path.suffix for path in files} >= {".csv", ".json", ".jsonl", ".png", ".html", ".pt", ".dcm"}
    hits = [path for path in files if any(MARK.encode() in part for part in parts(path.read_bytes()))]
    assert hits == []
    assert not any(b"19710203" in path.read_bytes() for path in files), "the date of birth"
    entry = json.loads((out / "films.json").read_text())["training"][0]
    assert entry["modality"] == "CR", "the header was read"
