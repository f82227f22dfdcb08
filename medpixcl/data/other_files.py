"""Name files that are no images of a format that is read here, and what to do with them."""

import re
from pathlib import Path

from medpixcl.data.claims import open_binary
from medpixcl.data.pictures import other_format

NO_IMAGE = "is not an image."
"""Reason of a file that belongs to no kind of image at all, as a table beside the images."""
_START = 348
"""Bytes that tell an archive, or a volume that is not named as such."""
_ARCHIVES = {
    "ZIP": rb"PK\x03\x04(?!.{26}(?:\[Content_Types\]|mimetype|META-INF))",  # no document of an office program
    "gzip": rb"\x1f\x8b", "bzip2": rb"BZh\d", "xz": rb"\xfd7zXZ", "RAR": rb"Rar!",
    "7-Zip": rb"7z\xbc\xaf", "tar": rb".{257}ustar",
}  # fmt: skip
_NAMED_OTHERWISE = {
    "NIfTI": (rb"(?:\x5c\x01\0\0|\0\0\x01\x5c).{340}n\+1\0|(?:\x1c\x02\0\0|\0\0\x02\x1c)n\+2\0", ".nii"),
    "NRRD": (rb"NRRD\d{4}", ".nrrd"),
    "MetaImage": (rb"ObjectType *=", ".mha (.mhd if its voxels lie in another file)"),
}


def why_no_image(path: Path) -> str:
    """Explain why a file is of no format that is read here (:func:`medpixcl.data.images.image_format`)."""
    if path.stat().st_size == 0:
        return "is empty (0 bytes)."
    if path.suffix.lower() in (".dcm", ".ima"):
        return "is not DICOM, whatever its name says."
    if path.suffix.lower() in (".hdr", ".img"):
        return f"is a format that is not read here ({path.suffix}); convert it to .nii.gz."
    with open_binary(path) as file:
        start = file.read(_START)
    for name, pattern in _ARCHIVES.items():
        if re.match(pattern, start, re.DOTALL):
            return f"is packed ({name}); unpack it."
    for name, (pattern, suffix) in _NAMED_OTHERWISE.items():
        if re.match(pattern, start, re.DOTALL):
            return f"is {name}, but not named so; name it {suffix}."
    other = other_format(start[:16])
    return NO_IMAGE if other is None else f"{other}."
