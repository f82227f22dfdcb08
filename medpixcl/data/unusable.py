"""Why a file cannot be used: whatever goes wrong with it, in one sentence."""

import traceback
from dataclasses import dataclass
from pathlib import Path

from medpixcl.data.claims import OverLimitError
from medpixcl.data.pixels import ImageFileError


@dataclass(frozen=True)
class Unusable:
    """An image that cannot be used.

    Attributes:
        path: File at fault.
        reason: One sentence, without the path.
        lasting: True if the reason is in the content of the files, so that it holds until they change.
        series: Digest of the series of a slice that is set aside for the sake of the others.
        trace: Places in the code that an unforeseen error went through, for the debug log; no values of the file.
    """

    path: Path
    reason: str
    lasting: bool = False
    series: str = ""
    trace: str = ""


def unusable(path: Path, error: Exception) -> Unusable:
    """Turn any error on a file into the reason for leaving it out; messages of libraries may quote a patient's data."""
    if isinstance(error, ImageFileError):
        return Unusable(error.path, error.reason, lasting=not isinstance(error, OverLimitError))
    trace = f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
    if isinstance(error, OSError) and error.strerror:
        other = Path(str(error.filename)).name if error.filename else path.name
        what = "cannot be opened" if other == path.name else f"needs {other}, which cannot be opened"
        return Unusable(path, f"{what} ({error.strerror}).", trace=trace)
    if isinstance(error, MemoryError):
        return Unusable(path, "needs more memory than there is; give it to a larger machine.", trace=trace)
    return Unusable(path, f"cannot be read, its content is not as expected ({type(error).__name__}).", trace=trace)
