"""Parts of one run, which processes search that know nothing of each other, and which are put together afterwards.

Part 2 of 4 searches every fourth image from the third on. It keeps the landmarks in a folder of its own,
``parts/2-of-4`` in the folder of the run, as every unfinished run keeps them (:mod:`medpixcl.apps.run_folder`). To put
the parts together is to go on with a run whose images have all been searched.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

from medpixcl.apps.run_folder import FINISHED, LINES_FILE, Run, RunFolder
from medpixcl.data.folder_lock import LOCK
from medpixcl.data.part_numbers import named_parts, other_number, part_name
from medpixcl.data.result_folders import RUN_FILE

PARTS_FOLDER = "parts"


def part_folder(folder: Path, part_id: int, num_parts: int) -> Path:
    """Folder of one part of a run.

    Args:
        folder: Folder of the run.
        part_id: Number of the part, counted from 0.
        num_parts: Number of parts.
    """
    return folder / PARTS_FOLDER / part_name(part_id, num_parts)


def run_folder_of_part(folder: Path, part_id: int, num_parts: int) -> RunFolder:
    """Folder of one part of a run, which is locked and described as that of a run is."""
    return RunFolder(part_folder(folder, part_id, num_parts), otherwise="overwrite=True to search this part again")


def require_no_other_parts(folder: Path, num_parts: int | None) -> None:
    """Check that a folder has no parts of a run that is divided otherwise.

    Args:
        folder: Folder of the run.
        num_parts: Number of parts of the run to come; None for a run without parts.

    Raises:
        ValueError: If it has such parts.
    """
    names = (file.parent.name for file in (folder / PARTS_FOLDER).glob(f"*/{RUN_FILE}"))
    if other := other_number(names, num_parts):
        raise ValueError(
            f"{folder / PARTS_FOLDER} holds parts of a run in {other} parts; give num_parts={other} to go on with it, "
            "or another folder, or remove this one"
        )


def require_finished(folder: Path, num_parts: int) -> None:
    """Check that all parts of a run have been searched.

    Raises:
        ValueError: If a part is not finished; the sentence names such parts.
    """
    parts = (run_folder_of_part(folder, number, num_parts).described() for number in range(num_parts))
    left = [number for number, one in enumerate(parts) if one is None or one["state"] != FINISHED]
    if left:
        raise ValueError(
            f"the run in {folder} lacks {named_parts(left)} of {num_parts}, not begun or not finished; search with "
            f"part_id={left[0]} first, and with resume=True if it was begun"
        )


def found_in_parts(folder: Path, num_parts: int, run: Run) -> dict[str, dict[str, Any]]:
    """Landmarks that the parts of a run have found, as data, by search and image.

    Args:
        folder: Folder of the run.
        num_parts: Number of parts, all finished.
        run: The run.

    Raises:
        ValueError: If a part was made from other input.
    """
    all_found: dict[str, dict[str, Any]] = {}
    for number in range(num_parts):
        part = run_folder_of_part(folder, number, num_parts)
        described = part.described() or {"run": "", "options": {}, "made_from": {}, "images": 0}
        if other := run.changes(described):
            raise ValueError(
                f"part {number} in {part.folder} was made with other {other} than this run; give what it was made "
                "with, or search it again with overwrite=True"
            )
        part.lines.read(described["run"], landmarks=True)
        lost = described["images"] - (described.get("failed") or 0) - part.lines.done
        if lost > 0:
            raise ValueError(
                f"part {number} in {part.folder} has lost the landmarks of {lost} image(s); search it again with "
                "overwrite=True"
            )
        for step, found in part.lines.found.items():
            all_found.setdefault(step, {}).update(found)
    return all_found


def remove_parts(folder: Path, num_parts: int) -> list[str]:
    """Remove what the parts of a run have written, after the run has taken it.

    Returns:
        A note if other files lie there, which no part wrote.
    """
    for number in range(num_parts):
        part = part_folder(folder, number, num_parts)
        if not any(place.is_symlink() for place in (part.parent, part)):
            for name in (RUN_FILE, LINES_FILE, LOCK):
                (part / name).unlink(missing_ok=True)
            _remove_empty(part)
    _remove_empty(folder / PARTS_FOLDER)
    return left_parts(folder)


def left_parts(folder: Path) -> list[str]:
    """A note if the folder of a run that is finished holds parts of another run, or other files among them."""
    parts = folder / PARTS_FOLDER
    return [f"{parts} also holds what no part of this run wrote: it stays"] if parts.exists() else []


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds something else, or is not there
        folder.rmdir()
