"""Read DICOM headers, and convert their values in one place.

Names, numbers and dates of a person are not kept and not repeated in a message: of the patient only a digest is formed,
which tells two patients apart.
"""

import hashlib
import logging
import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medpixcl.data.claims import open_binary
from medpixcl.data.dicom_deflated import check_inflated_size
from medpixcl.data.pixels import ImageFileError

if TYPE_CHECKING:
    from pydicom import Dataset

log = logging.getLogger(__name__)
HEADER_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID",
    "PatientName", "Modality", "ImageType", "SeriesNumber", "InstanceNumber", "AcquisitionNumber",
    "TemporalPositionIdentifier", "EchoNumbers", "EchoTime", "InversionTime", "FlipAngle", "TriggerTime",
    "DiffusionBValue", "FrameReferenceTime", "ConvolutionKernel", "KVP", "SliceThickness", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "ImagerPixelSpacing",
    "PixelSpacingCalibrationType", "NominalScannedPixelSpacing", "PixelAspectRatio",
    "EstimatedRadiographicMagnificationFactor", "DistanceSourceToDetector", "DistanceSourceToPatient",
)  # fmt: skip
"""Elements that decide what an image is and where it lies."""
_HARMLESS = re.compile(r"[0-9.,+\-eE\\ ]{0,40}[A-Za-z]{0,2}")
"""Damaged numbers that a message may repeat: too few letters for a name."""
_UID = re.compile(r"[0-9.]{1,64}")
_TEXTS = frozenset(("CS", "UI", "LO", "SH", "PN"))
_AMBIGUOUS = "US or SS"
_DECIMALS = frozenset(("DS", "IS"))
_PANIC = "pyo3_runtime"
"""Module of what decoders written in Rust raise on damaged data, which is no Exception."""
_BINARY = {"US": ("H", 2), "SS": ("h", 2), "UL": ("I", 4), "SL": ("i", 4), "FL": ("f", 4), "FD": ("d", 8)}


class Header:
    """Elements of a DICOM object, converted when asked for; a value that cannot be converted is an error of its file.

    Attributes:
        dataset: Elements as pydicom holds them.
        path: Path of the file, for messages.
    """

    def __init__(self, dataset: "Dataset", path: Path) -> None:
        self.dataset, self.path = dataset, path

    def __contains__(self, keyword: str) -> bool:
        return _tag(keyword) in self.dataset

    def text(self, keyword: str) -> str:
        """Value as text; empty where the element is absent, empty or unreadable."""
        try:
            return str(self._value(keyword) or "").strip()
        except ImageFileError:
            return ""

    def code(self, keyword: str) -> str:
        """Coded value in capital letters, as the standard has them; empty like :meth:`text`."""
        return self.text(keyword).upper()

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Values as text, none where the element is absent."""
        value = self._value(keyword)
        if value is None or isinstance(value, str):
            return (value,) if value else ()
        return tuple(str(one).strip() for one in value)

    def number(self, keyword: str) -> float | None:
        """One number; None where the element is absent or empty.

        Raises:
            ImageFileError: If the value is not one finite number.
        """
        found = self.numbers(keyword, 1)
        return None if found is None else found[0]

    def whole(self, keyword: str) -> int | None:
        """One whole number; None where the element is absent or empty.

        Raises:
            ImageFileError: If the value is not one whole number.
        """
        found = self.number(keyword)
        if found is not None and found != int(found):
            raise ImageFileError(self.path, f"has {keyword} {found:g}; expected a whole number.")
        return None if found is None else int(found)

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """Some numbers, as many as ``count`` where it is given; None where the element is absent or empty.

        Raises:
            ImageFileError: If the values are not finite numbers, or not that many.
        """
        value = self._value(keyword, count)
        parts: list[Any] = [value] if isinstance(value, str | bytes | int | float | None) else list(value)
        if not parts or parts[0] in (None, "", b""):
            return None
        if any(isinstance(one, str | bytes) for one in parts):
            raise self._malformed(keyword, count)
        try:
            found = tuple(float(one) for one in parts)
        except (TypeError, ValueError, OverflowError):
            raise self._malformed(keyword, count) from None
        if count not in (None, len(found)) or not all(abs(one) < float("inf") for one in found):
            raise self._malformed(keyword, count)
        return found

    def raw_bytes(self, keyword: str) -> bytes | None:
        """Value of an element of bytes or of 16-bit words, as it stands in the file; None where it is absent."""
        value = self._value(keyword)
        return value if isinstance(value, bytes) else None

    def items(self, keyword: str) -> list["Header"]:
        """Items of a sequence, none where it is absent."""
        value = self._value(keyword)
        if value is None:
            return []
        with readable(self.path, f"has a damaged {keyword}"):
            return [Header(item, self.path) for item in value]

    def pointed(self, keyword: str) -> str:
        """Keyword of the element that an attribute tag points to; empty where it is absent or the element private."""
        from pydicom.datadict import keyword_for_tag

        value = self._value(keyword)
        return keyword_for_tag(value) if isinstance(value, int) else ""

    def patient(self) -> str:
        """Digest that is the same for all files of a patient, and does not tell who that is.

        Capital letters, spaces and empty parts of the name do not count, as one program or another writes them.
        """
        name = " ".join(self.text("PatientName").casefold().replace("^", " ").split())
        named = f"{self.text('PatientID')}\0{name}"
        return hashlib.blake2b(named.encode(), digest_size=8).hexdigest()

    def _value(self, keyword: str, count: int | None = None) -> Any:
        try:
            element = self.dataset.get_item(_tag(keyword))
        except Exception:  # pydicom reads an element of unknown length here, and finds no kind of value that it knows
            raise ImageFileError(self.path, f"has a damaged {keyword}; export it again.") from None
        if element is None:
            return None
        if element.is_raw and isinstance(element.value, bytes):
            vr = element.VR or _dictionary_vr(element.tag)
            if vr == _AMBIGUOUS and "PixelRepresentation" in self:
                vr = "SS" if self.whole("PixelRepresentation") == 1 else "US"
            if vr in _TEXTS:
                return _plain(_text(element.value).split("\\"))
            if vr in _DECIMALS:
                return self._decimals(keyword, count, _text(element.value))
            if vr in _BINARY and element.is_little_endian and len(element.value) % _BINARY[vr][1] == 0:
                return _plain([one for (one,) in struct.iter_unpack(f"<{_BINARY[vr][0]}", element.value)])
        with quiet(self.path):
            try:
                return self.dataset[keyword].value
            except Exception:  # pydicom's converters raise many kinds on damaged values
                raise self._malformed(keyword, count) from None

    def _decimals(self, keyword: str, count: int | None, text: str) -> Any:
        try:
            return _plain([float(one) for one in text.replace("_", "?").split("\\")]) if text else None
        except ValueError:
            raise self._malformed(keyword, count) from None

    def _malformed(self, keyword: str, count: int | None = None) -> ImageFileError:
        element = self.dataset.get_item(keyword)
        value = getattr(element, "value", None)
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if isinstance(text, Sequence) and not isinstance(text, str):
            text = "\\".join(str(one) for one in text)
        text = str(text).strip("\0 ")
        found = f"'{text}'" if _HARMLESS.fullmatch(text) else "that is not numeric"
        wanted = "numbers" if count is None else "a number" if count == 1 else f"{count} numbers"
        vr = getattr(element, "VR", None)
        return ImageFileError(
            self.path,
            f"has {keyword} {found} ({f'VR {vr}' if vr else 'no VR'}); expected {wanted} with decimal points, "
            "separated by backslashes; correct the header.",
        )


def is_dicom(path: Path) -> bool:
    """True for a file with the DICOM prefix, and for the older kind that starts with its first element."""
    with open_binary(path) as file:
        return is_dicom_start(file.read(132))


def is_dicom_start(start: bytes) -> bool:
    """:func:`is_dicom` for the first 132 bytes of a file."""
    if start[128:132] == b"DICM":
        return True
    if len(start) < 16:
        return False
    group, element, length = struct.unpack("<HHI", start[:8])
    explicit = start[4:6] in (b"UL", b"UI", b"CS")
    return group in (0x0002, 0x0008) and element <= 0x0018 and (explicit or length <= 64)


def is_compressed_dicom(path: Path) -> bool:
    """True for DICOM whose pixels a decoder has to unpack."""
    try:
        return read_dataset(path, stop_before_pixels=True, specific_tags=[]).file_meta.TransferSyntaxUID.is_compressed
    except (ImageFileError, OSError, ValueError):
        return False  # no DICOM, or so damaged that its pixels are never reached


def read_header(path: Path) -> Header:
    """Read the elements of ``HEADER_TAGS``, without pixels.

    Raises:
        ImageFileError: If the file is not DICOM or damaged.
    """
    dataset = read_dataset(path, stop_before_pixels=True, specific_tags=[*HEADER_TAGS])
    return Header(dataset, path) if len(dataset) else read_whole(path)


def read_whole(path: Path) -> Header:
    """Read all elements with the pixel data.

    Raises:
        ImageFileError: If the file is not DICOM or damaged.
    """
    header = Header(read_dataset(path), path)
    if not len(header.dataset):  # what pydicom returns of a file that ends inside an element
        raise ImageFileError(path, "is cut off: it ends in the middle of its data; copy or export it again.")
    return header


def read_dataset(path: Path, **options: object) -> "Dataset":
    """Read a DICOM file with pydicom and its options, including files without a preamble.

    Raises:
        ImageFileError: If the file is not DICOM or damaged.
    """
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not is_dicom(path):
        raise ImageFileError(path, "is not DICOM; expected a DICOM file.")
    check_inflated_size(path)
    with readable(path, "is damaged DICOM"):
        dataset = pydicom.dcmread(path, force=True, **options)
        if not (syntax := dataset.file_meta.get("TransferSyntaxUID")):
            implicit, little = dataset.original_encoding
            uncompressed = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else uncompressed
        elif not syntax.is_transfer_syntax:
            name = f" {syntax}" if _UID.fullmatch(syntax) else ""
            raise ImageFileError(
                path,
                f"states a transfer syntax{name} that DICOM does not define; convert it to Explicit VR Little Endian.",
            )
        return dataset


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip("\0 ")


def _plain(values: list[Any]) -> Any:
    """The only value, or all of them."""
    return values[0] if len(values) == 1 else values


@cache
def _tag(keyword: str) -> Any:
    from pydicom.tag import Tag

    return Tag(keyword)


@cache
def _dictionary_vr(tag: int) -> str:
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(tag)


@cache
def _silence_pydicom() -> None:
    """What pydicom logs quotes header values; what is wrong is said in this package's own sentences."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


@contextmanager
def quiet(path: Path) -> Iterator[None]:
    """Keep what pydicom and highdicom warn of to the debug log, without the header values that they quote."""
    _silence_pydicom()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for one in caught:
        log.debug("%s: %s at %s, line %d", path.name, one.category.__name__, Path(one.filename).name, one.lineno)


@contextmanager
def readable(path: Path, problem: str) -> Iterator[None]:
    """Turn whatever a damaged file makes pydicom raise into one sentence; its warnings go to the debug log."""
    with quiet(path):
        try:
            yield
        except (ImageFileError, FileNotFoundError, PermissionError):
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__module__ != _PANIC:
                raise
            raise ImageFileError(path, f"{problem} ({type(error).__name__}); export it again.") from None
