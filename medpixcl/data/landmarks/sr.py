"""Write landmarks as a DICOM structured report: TID 1500 Measurement Report, written by highdicom, read by pydicom.

* A radiograph becomes a Comprehensive SR; every landmark is a POINT (SCOORD) on the image. DICOM measures image
  positions (column, row) from the top left corner of the first pixel, whose centre is (0.5, 0.5) (PS3.3 C.18.6);
  here that centre is 0, so 0.5 is added on the way out and taken off on the way in.
* A series of slices becomes a Comprehensive 3D SR; every landmark is a POINT (SCOORD3D) in the series' frame of
  reference, in mm, LPS+ (PS3.3 C.18.9).

Each landmark is a measurement group: Tracking Identifier (the landmark's name) and Tracking Unique Identifier, the
algorithm, the score as a measurement, the flag as a qualitative evaluation. A missing landmark is a group without a
point, evaluated as missing; so is one beyond the edge of a radiograph, where DICOM has no positions, evaluated as
outside. Coordinates are single precision, as DICOM stores them.

All identifiers follow from the source images and the content: written again, a report has the same. Nothing that names
a person is copied, unless asked for; the identifiers of the images and of their study stay, to say what was measured.
"""

import math
import uuid
from collections.abc import Sequence
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medpixcl import __version__
from medpixcl.data.atomic import write_bytes_atomically
from medpixcl.data.dicom_header import is_dicom, quiet, read_dataset
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.pixels import ImageFileError

if TYPE_CHECKING:
    from highdicom.sr import MeasurementReport
    from pydicom import Dataset

WHY_NO_DICOM = "is no DICOM image, and a DICOM SR refers to one; write csv, json, mrk.json or coco."
SCHEME = "99MEDPIXCL"
"""Coding scheme of this package's own concepts."""
STATE, REMARK = ("state", "Landmark state"), ("remark", "Landmark remark")
MISSING, OUTSIDE = ("missing", "Missing"), ("outside", "Outside the image")
_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


class NoReportError(ImageFileError):
    """An image that no report can refer to."""


def require_highdicom() -> None:
    """Fail early if highdicom, which writes the reports, is not installed.

    Raises:
        ModuleNotFoundError: If highdicom is missing; the message says how to install it.
    """
    try:
        import highdicom  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "DICOM SR is written by highdicom, which is not installed: pip install 'medpixcl[dicom-sr]'."
        ) from None


def write_sr(
    path: str | PathLike[str], landmarks: ImageLandmarks, *, keep_patient: bool = False, frame: int = 1
) -> None:
    """Write the landmarks of one DICOM image as a structured report.

    Args:
        path: File to write; a reader finds the image by this name, so name the file after the image.
        landmarks: Landmarks of the image and the image's DICOM files.
        keep_patient: Whether to copy the attributes of patient and study from the image; by default they are empty.
        frame: Number, from 1, of the frame of a multi-frame image that 2D points lie on.

    Raises:
        ModuleNotFoundError: If highdicom is not installed.
        NoReportError: If the image is not DICOM, or its header lacks attributes that a report must refer to.
    """
    require_highdicom()
    content = BytesIO()
    with quiet(Path(path)):
        report = _report(landmarks, keep_patient=keep_patient, frame=frame)
        report.save_as(content, enforce_file_format=True)
    write_bytes_atomically(path, content.getvalue())


def _report(landmarks: ImageLandmarks, *, keep_patient: bool, frame: int) -> "Dataset":
    import highdicom as hd

    originals = _source_headers(landmarks, dims=landmarks.points.dims, frame=frame)
    sources = [_without_patient(one) for one in originals]
    kind = hd.sr.ComprehensiveSR if landmarks.points.dims == 2 else hd.sr.Comprehensive3DSR
    content = _content(landmarks, sources, frame)
    study = sources[0].StudyInstanceUID
    try:
        report = kind(
            evidence=sources,
            content=content[0],
            series_instance_uid=_uid("series", study, sources[0].SeriesInstanceUID),
            series_number=1,
            sop_instance_uid=_uid("report", __version__, keep_patient, *_fingerprint(landmarks, sources, frame)),
            instance_number=1,
            manufacturer="medpixcl",
            manufacturer_model_name="medpixcl",
            software_versions=__version__,
            series_description="Landmarks",
            specific_character_set="ISO_IR 192",
            is_complete=True,
        )
    except KeyError:
        raise NoReportError(landmarks.image, "is of a kind of image that no report can refer to.") from None
    if keep_patient:
        report.copy_patient_and_study_information(originals[0])
    else:
        report.PatientIdentityRemoved = "YES"
        report.DeidentificationMethod = "Attributes of patient and study left out"
    report.CodingSchemeIdentificationSequence = [_own_scheme()]
    return report


def _source_headers(landmarks: ImageLandmarks, *, dims: int, frame: int) -> list["Dataset"]:
    """Headers of the files of an image, without pixels."""
    if not landmarks.files or not all(path.is_file() and is_dicom(path) for path in landmarks.files):
        raise NoReportError(landmarks.image, WHY_NO_DICOM)
    headers = [read_dataset(path, stop_before_pixels=True) for path in landmarks.files]
    required = (*_REQUIRED, "FrameOfReferenceUID") if dims == 3 else _REQUIRED
    for header in headers:
        if lacking := [name for name in required if not header.get(name)]:
            raise NoReportError(landmarks.image, f"has no {', '.join(lacking)}, which a DICOM SR refers to.")
    if dims == 2 and not (len(headers) == 1 and 1 <= frame <= _frames(headers[0])):
        raise NoReportError(
            landmarks.image,
            f"has {len(headers)} file(s) of {_frames(headers[0])} frame(s), and points on frame {frame}; expected one "
            "file with that frame.",
        )
    return headers


def _frames(header: "Dataset") -> int:
    return int(header.get("NumberOfFrames") or 1)


def _without_patient(header: "Dataset") -> "Dataset":
    """Attributes of a source image that a report needs; patient and study are empty."""
    from pydicom import Dataset

    kept = Dataset()
    for name in (*_REQUIRED, "FrameOfReferenceUID", "NumberOfFrames"):
        if name in header:
            setattr(kept, name, header[name].value)
    for name in _EMPTY:
        setattr(kept, name, "")
    kept.Modality = "OT"  # the image library then asks for no attributes of the acquisition
    return kept


def _content(landmarks: ImageLandmarks, sources: Sequence["Dataset"], frame: int) -> "MeasurementReport":
    import highdicom as hd
    from pydicom.sr.codedict import codes

    device = hd.sr.DeviceObserverIdentifyingAttributes(uid=_uid("device", __version__), name="medpixcl")
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    return hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[_group(landmarks, index, sources, frame) for index in range(len(landmarks.points.names))],
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=sources,
    )


def _group(landmarks: ImageLandmarks, index: int, sources: Sequence["Dataset"], frame: int) -> Any:
    """One landmark: TID 1410 with its point, or TID 1501 without one."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    points, name = landmarks.points, landmarks.points.names[index]
    absent = _why_absent(landmarks, index)
    flag = points.flags[index] if points.flags else ""
    evaluations = [] if absent is None else [_evaluation(STATE, absent)]
    evaluations += [_evaluation(REMARK, (flag, flag[:64]))] if flag else []
    score = float("nan") if points.scores is None else float(points.scores[index])
    shared: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=_uid("landmark", sources[0].SOPInstanceUID, frame, name), identifier=name
        ),
        "finding_type": codes.SCT.AnatomicalPoint,
        "algorithm_id": hd.sr.AlgorithmIdentification(name="medpixcl", version=__version__),
        "measurements": [hd.sr.Measurement(codes.DCM.CertaintyOfFinding, score, codes.UCUM.NoUnits)]
        if math.isfinite(score)
        else None,
        "qualitative_evaluations": evaluations or None,
    }
    if absent is not None:
        images = [_reference(hd.sr.SourceImageForMeasurementGroup, sources[0], frame)] if points.dims == 2 else None
        return hd.sr.MeasurementsAndQualitativeEvaluations(source_images=images, **shared)
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_region=_point(landmarks, index, sources[0], frame), **shared
    )


def _why_absent(landmarks: ImageLandmarks, index: int) -> tuple[str, str] | None:
    """Reason why a landmark has no point in the report; None if it has one."""
    if landmarks.points.missing[index]:
        return MISSING
    if landmarks.points.dims == 3:
        return None
    voxel, size = landmarks.points.voxels[index] + 0.5, landmarks.points.voxels.new_tensor(landmarks.shape)
    return None if bool(((voxel >= 0) & (voxel <= size)).all()) else OUTSIDE


def _point(landmarks: ImageLandmarks, index: int, source: "Dataset", frame: int) -> Any:
    import highdicom as hd

    if landmarks.points.dims == 2:
        corner_based = landmarks.px[index : index + 1].numpy() + 0.5
        image = _reference(hd.sr.SourceImageForRegion, source, frame)
        return hd.sr.ImageRegion("POINT", corner_based, source_image=image)
    place = landmarks.lps_mm[index : index + 1].numpy()
    return hd.sr.ImageRegion3D("POINT", place, frame_of_reference_uid=source.FrameOfReferenceUID)


def _reference(kind: type, source: "Dataset", frame: int) -> Any:
    frames = [frame] if "NumberOfFrames" in source and _frames(source) > 1 else None
    return kind(source.SOPClassUID, source.SOPInstanceUID, referenced_frame_numbers=frames)


def _evaluation(name: tuple[str, str], value: tuple[str, str]) -> Any:
    import highdicom as hd

    def concept(of: tuple[str, str]) -> Any:
        return hd.sr.CodedConcept(value=of[0], scheme_designator=SCHEME, meaning=of[1])

    return hd.sr.QualitativeEvaluation(name=concept(name), value=concept(value))


def _own_scheme() -> "Dataset":
    from pydicom import Dataset

    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "Concepts of medpixcl"
    item.CodingSchemeResponsibleOrganization = "medpixcl"
    return item


def _fingerprint(landmarks: ImageLandmarks, sources: Sequence["Dataset"], frame: int) -> list[object]:
    """Data from which a report's identifier is derived: its images and landmarks."""
    points = landmarks.points
    scores = None if points.scores is None else points.scores.tolist()
    return [[one.SOPInstanceUID for one in sources], frame, points.names, landmarks.px.tolist(), scores, points.flags]


def _uid(*parts: object) -> str:
    """An identifier that follows from its parts (PS3.5 B.2: UUID-derived)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_URL, repr(('medpixcl', *map(str, parts)))).int}"
