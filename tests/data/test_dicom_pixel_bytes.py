"""Pixel data that are empty, cut off, of another number of frames, or not what the transfer syntax says: the reason."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from openjpeg.utils import encode_array
from pydicom.pixels import get_encoder
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from medpixcl.data.images import ImageFileError, read_image
from medpixcl.data.scan import scan
from tests.data.dicom_files import write_dicom, write_series
from tests.data.scanned import reasons
from tests.data.test_dicom_geometry import along, enhanced

FRAMES = np.random.default_rng(0).integers(0, 2000, (4, 32, 40)).astype("<u2")
WHOLE = FRAMES[0].tobytes()
EMPTY = "has no pixel data: it is cut off, or was exported without them."
UNDEFINED, DELIMITER = b"OB\0\0\xff\xff\xff\xff", b"\xfe\xff\xdd\xe0\0\0\0\0"


def film(folder: Path, **elements: Any) -> Path:
    return write_dicom(folder / "a.dcm", FRAMES[0], Modality="DX", PixelSpacing=[0.2, 0.2], **elements)


def volume(folder: Path) -> Path:
    return enhanced(folder / "a.dcm", FRAMES, along(2.5 * np.arange(4)))


def with_pixels(path: Path, element: bytes, syntax: UID) -> Path:
    """Replace the pixel data of a file by bytes that pydicom would not write."""
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    path.write_bytes(path.read_bytes() + b"\xe0\x7f\x10\0" + element)
    return path


def item(content: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(content).to_bytes(4, "little") + content


def compressed(path: Path, fragments: Sequence[bytes], syntax: UID) -> Path:
    """An empty table of offsets, and fragments."""
    return with_pixels(path, UNDEFINED + b"".join(map(item, [b"", *fragments])) + DELIMITER, syntax)


def native(path: Path, data: bytes, syntax: UID = ExplicitVRLittleEndian) -> Path:
    return with_pixels(path, b"OW\0\0" + len(data).to_bytes(4, "little") + data, syntax)


def packed(frame: np.ndarray, syntax: UID) -> bytes:
    """A frame as one fragment."""
    if syntax == JPEG2000Lossless:
        content = bytes(encode_array(frame, photometric_interpretation=2, bits_stored=16, use_mct=False))
    else:
        content = get_encoder(syntax).encode(
            frame, encoding_plugin="pydicom", rows=32, columns=40, bits_allocated=16, bits_stored=16,
            number_of_frames=1, samples_per_pixel=1, pixel_representation=0, photometric_interpretation="MONOCHROME2",
        )  # fmt: skip
    return content + b"\0" * (len(content) % 2)


def reason(path: Path) -> str:
    """Why a scan rejects a file, which is why it cannot be read."""
    found = reasons(scan(path.parent))[path.name]
    with pytest.raises(ImageFileError) as caught:
        read_image(path)
    assert caught.value.reason == found
    return found


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGBaseline8Bit])
@pytest.mark.parametrize(
    "element",
    [
        UNDEFINED + DELIMITER,
        UNDEFINED + item(b"") + DELIMITER,
        UNDEFINED + item(b"") * 3 + DELIMITER,
        b"OB\0\0\0\0\0\0",
    ],
    ids=["no item", "no fragment", "empty fragments", "length 0"],
)
def test_compressed_pixel_data_without_content(tmp_path: Path, syntax: UID, element: bytes) -> None:
    assert reason(with_pixels(film(tmp_path), element, syntax)) == EMPTY


@pytest.mark.parametrize("missing", [1, 2, 3, 1000, len(WHOLE) - 1])
@pytest.mark.parametrize("where", ["element", "file"])
def test_uncompressed_pixel_data_that_are_cut_off(tmp_path: Path, missing: int, where: str) -> None:
    path, left = film(tmp_path), len(WHOLE) - missing
    if where == "element":
        native(path, WHOLE[:left])
    else:
        path.write_bytes(path.read_bytes()[:-missing])
    assert f"{left} bytes, expected {len(WHOLE)}; it is cut off" in reason(path)


def test_uncompressed_pixel_data_of_length_0(tmp_path: Path) -> None:
    assert reason(film(tmp_path, PixelData=b"")) == EMPTY
    assert reason(native(volume(tmp_path), b"")) == EMPTY


@pytest.mark.parametrize(("keyword", "bits"), [("FloatPixelData", 32), ("DoubleFloatPixelData", 64)])
def test_pixel_data_of_floating_point(tmp_path: Path, keyword: str, bits: int) -> None:
    values = FRAMES[0] / np.dtype(f"f{bits // 8}").type(3)
    whole, changes = values.tobytes(), {"PixelData": None, "BitsAllocated": bits}
    assert reason(film(tmp_path, **changes, **{keyword: b""})) == EMPTY
    cut = film(tmp_path, **changes, **{keyword: whole[: -bits // 8]})
    assert f"{len(whole) - bits // 8} bytes, expected {len(whole)}; it is cut off" in reason(cut)
    assert "hold 2 frames of 32 x 40, and its header states 1" in reason(
        film(tmp_path, **changes, **{keyword: whole * 2})
    )
    image = read_image(film(tmp_path, **changes, **{keyword: whole}))
    np.testing.assert_allclose(image[0].numpy(), values, rtol=1e-6)
    both = film(tmp_path, **(changes | {"PixelData": b""}), **{keyword: whole})  # an empty element holds nothing
    np.testing.assert_array_equal(read_image(both)[0].numpy(), image[0].numpy())


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("parts", [1, 2])
def test_compressed_frames_are_counted(tmp_path: Path, syntax: UID, parts: int) -> None:
    """RLE has a frame in one fragment, JPEG 2000 in one or several (PS3.5 A.4)."""
    if syntax == RLELossless and parts > 1:
        return
    content = [packed(frame, syntax) for frame in FRAMES]
    split = [one[at : at + size] for one in content for size in [len(one) // parts // 2 * 2 + 2]
             for at in range(0, len(one), size)]  # fmt: skip
    assert len(split) == 4 * parts
    for frames in (1, 2, 3):
        path = compressed(volume(tmp_path), split[: frames * parts], syntax)
        assert reason(path) == f"has the pixel data of {frames} of the 4 frames that its header states; it is cut off."
    path = compressed(volume(tmp_path), [*split, *split[:parts]], syntax)
    assert "hold 5 frames of 32 x 40, and its header states 4" in reason(path)
    path = compressed(film(tmp_path), split[: 3 * parts], syntax)
    assert "hold 3 frames of 32 x 40, and its header states 1" in reason(path)
    np.testing.assert_array_equal(read_image(compressed(film(tmp_path), split[:parts], syntax))[0], FRAMES[0])
    assert read_image(compressed(volume(tmp_path), split, syntax)).shape == (1, 40, 32, 4)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.92"])
def test_frames_that_are_packed_together_are_not_counted(tmp_path: Path, syntax: str) -> None:
    """Of a video, or of several components of JPEG 2000: all are in one stream, which nothing here decodes."""
    assert "no package here decodes it" in reason(compressed(volume(tmp_path), [b"\0\0\0\1" * 50], UID(syntax)))
    assert reason(compressed(volume(tmp_path), [b""], UID(syntax))) == EMPTY


def test_a_frame_without_content_among_others(tmp_path: Path) -> None:
    content = [packed(frame, RLELossless) for frame in FRAMES]
    content[1] = b""
    assert "has the pixel data of 3 of the 4 frames" in reason(compressed(volume(tmp_path), content, RLELossless))


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_pixel_data_that_contradict_the_transfer_syntax(tmp_path: Path, syntax: UID) -> None:
    """Never read as noise."""
    assert reason(native(film(tmp_path), WHOLE, syntax)) == (
        f"states the transfer syntax {syntax.name}, but its pixel data are not compressed; "
        "correct its TransferSyntaxUID."
    )
    for content in ([packed(FRAMES[0], RLELossless)], [WHOLE]):  # fewer bytes than the pixels, and more
        path = compressed(film(tmp_path), content, ExplicitVRLittleEndian)
        assert "Explicit VR Little Endian, but its pixel data are compressed" in reason(path)


@pytest.mark.parametrize("name", ["1.2.840.113619.5.2", "1.2.840.10008.1.1", "9.9"])
def test_a_transfer_syntax_that_dicom_does_not_define(tmp_path: Path, name: str) -> None:
    path = film(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", name.encode().ljust(20, b"\0")))
    assert f"states a transfer syntax {name} that DICOM does not define" in reason(path)
    film(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"\0" * 20))
    np.testing.assert_array_equal(read_image(path)[0], FRAMES[0])  # none is told from the elements


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, None])
@pytest.mark.parametrize("name", ["CT/a", "CT/z", "AA/copy"])
@pytest.mark.parametrize("left", ["nothing", "half"])
def test_an_incomplete_copy_of_a_slice_costs_no_series(
    tmp_path: Path, syntax: UID | None, name: str, left: str
) -> None:
    """Whichever of both files is met first, the whole one is used."""
    files = write_series(tmp_path / "CT", FRAMES, PixelSpacing=[1, 1], InstanceNumber=1)
    contents = [WHOLE] * 4 if syntax is None else [packed(frame, syntax) for frame in FRAMES]
    for file, content in zip(files, contents, strict=True):
        _ = native(file, content) if syntax is None else compressed(file, [content], syntax)
    copy = tmp_path / name
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(files[1], copy)
    if left == "half":
        copy.write_bytes(copy.read_bytes()[:-600])
    else:
        _ = native(copy, b"") if syntax is None else compressed(copy, [b""], syntax)
    manifest = scan(tmp_path)
    assert [one["shape"] for one in manifest.training] == [[40, 32, 4]]
    (refused,) = manifest.rejected
    assert refused["path"] == name
    assert refused["reason"] == EMPTY if left == "nothing" else "cut off" in refused["reason"]


def test_a_slice_without_pixels_costs_its_series(tmp_path: Path) -> None:
    files = write_series(tmp_path / "CT", FRAMES)
    for file, frame in zip(files, FRAMES, strict=True):
        compressed(file, [packed(frame, RLELossless)], RLELossless)
    compressed(files[2], [], RLELossless)
    assert reasons(scan(tmp_path)) == {"CT": f"slice {files[2].name} {EMPTY}"}


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        ({"SamplesPerPixel": 2}, "has SamplesPerPixel 2 and is MONOCHROME2; expected one grey value"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, r"is a colour image \(RGB\)"),
        ({"PixelRepresentation": 2}, "has PixelRepresentation 2; expected 0, or 1 for signed"),
        ({"BitsAllocated": 12}, "has BitsAllocated 12; expected 8, 16 or 32 bits"),
        ({"BitsStored": 17}, "has BitsStored 17"),
    ],
)
def test_headers_that_do_not_say_what_a_pixel_is(tmp_path: Path, elements: dict[str, Any], sentence: str) -> None:
    assert re.search(sentence, reason(film(tmp_path, **elements)))
