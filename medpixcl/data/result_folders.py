"""How a folder of results is known: by the file that describes the run."""

from pathlib import Path

from medpixcl._json import parsed_json
from medpixcl.limits import regular_file

RUN_FILE = "run.json"
REJECTED_TABLE = "rejected.csv"
"""Table of what has no landmarks, with the reasons."""
RUN_FORMAT = "medpixcl run"
"""Value of the key ``format`` in that file."""


def is_result_folder(folder: Path) -> bool:
    """True for a folder that a run of this package writes into; its pictures are no images to search."""
    try:
        content = parsed_json(regular_file(folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == RUN_FORMAT
