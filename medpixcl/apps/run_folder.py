"""Folder of one run: the file that describes the run, what has been found so far, and a lock.

``run.json`` holds the command, digests of all that the results are made from, the state and the list of the files that
the run wrote. While the run is unfinished, ``run.jsonl`` holds what it has done (:mod:`medpixcl.apps.run_lines`).
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from medpixcl._json import parsed_json
from medpixcl.apps.run_lines import RunLines
from medpixcl.data.atomic import noting, remove_drafts, write_text_atomically
from medpixcl.data.result_folders import REJECTED_TABLE, RUN_FILE, RUN_FORMAT
from medpixcl.data.text import shown
from medpixcl.limits import regular_file

LINES_FILE = "run.jsonl"
_KINDS: dict[str, type] = {
    "run": str, "command": str, "options": dict, "made_from": dict, "images": int, "state": str, "files": list
}  # fmt: skip
UNFINISHED, FINISHED = STATES = "unfinished", "finished"
_HOW = {"output", "overwrite", "resume", "workers", "scheduler", "num_parts", "part_id"}
"""Options that decide how a run is made, not what comes of it."""
REMOVED = "to_remove"
"""Key of the files of an earlier run that a run removes before it begins."""
LONGEST_NAME = 255
"""Number of bytes of the longest name of a file."""
OVERWRITE = "another folder, or overwrite=True to replace it"


class FinishedError(ValueError):
    """The run that is to go on is finished already.

    Args:
        message: What is finished, and what to do.
        failed: Number of images that it could not search.
    """

    def __init__(self, message: str, failed: int = 0) -> None:
        super().__init__(message)
        self.failed = failed


@dataclass
class Run:
    """What describes a run in its run file.

    Attributes:
        command: Name of the command.
        describe: Function that gives digests, by what they are of; called once, when a folder is opened.
        options: Options of the command as they were typed, paths without their folders.
        output: Digests of the settings of the output, by the options that set them.
        number: Random number by which the run knows its own folder.
    """

    command: str
    describe: Callable[[], Mapping[str, str]]
    options: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, str] = field(default_factory=dict)
    number: str = field(default_factory=lambda: uuid4().hex)

    @cached_property
    def made_from(self) -> dict[str, str]:
        """Digest of everything that decides the results; empty ones, as without a reference, are left out."""
        return {what: digest for what, digest in {**self.describe(), **self.output}.items() if digest}

    def differences(self, made_from: Mapping[str, str]) -> list[str]:
        """What of this run differs from what another run was made from."""
        return [what for what in {**made_from, **self.made_from} if made_from.get(what) != self.made_from.get(what)]

    def changes(self, earlier: Mapping[str, Any], images: int | None = None) -> str:
        """What of this run differs from an earlier one, for a sentence; empty if they are made from the same.

        Args:
            earlier: Content of its run file.
            images: Number of images of this run, if it is to be compared.
        """
        differ = self.differences(earlier["made_from"])
        then, now = earlier["options"], json.loads(json.dumps(dict(self.options)))
        pairs = {"number of images": (earlier["images"], images)} if images is not None and "images" in differ else {}
        pairs |= {key: (then.get(key), now.get(key)) for key in sorted({*then, *now} - _HOW)}
        unlike = {key: (one, two) for key, (one, two) in pairs.items() if one != two}
        told = [f"{shown(key)} {_said(one, two)} then, {_said(two, one)} now" for key, (one, two) in unlike.items()]
        details = f" ({'; '.join(told)})" if differ and told else ""
        return " and other ".join(map(shown, differ)) + details


class RunFolder:
    """Folder that one run writes into, see the module.

    Args:
        folder: The folder; made if it does not exist.
        beside: Names of files and folders that may lie in it when a run begins.
        otherwise: What to give if the folder cannot be used as it is.

    Attributes:
        lines: What an unfinished run has done.
    """

    def __init__(self, folder: Path, *, beside: Sequence[str] = (), otherwise: str = OVERWRITE) -> None:
        self.folder, self._may_hold = folder, {RUN_FILE, LINES_FILE, *beside}
        self.lines = RunLines(folder / LINES_FILE)
        self._before: list[str] = []
        self._replaced: list[str] = []
        self._else = otherwise

    def owns(self, path: Path) -> bool:
        """True for a file that a run wrote into the folder, and for a folder in it with such a file."""
        place, run = path.resolve(), self.described()
        if run is None or not place.is_relative_to(self.folder.resolve()):
            return False
        return any((self.folder / name).resolve().is_relative_to(place) for name in self._files_of(run))

    def require_free(self, run: Run, *, overwrite: bool, resume: bool) -> None:
        """Check whether a run may write into the folder, as far as that can be told without its input.

        Raises:
            ValueError: If the folder holds another run, or files that no run wrote; one sentence that says how to go
                on.
        """
        earlier = self.described()
        if overwrite or (earlier is not None and (resume or earlier["run"] == run.number)):
            return
        if earlier is None:
            if others := sorted(one.name for one in self._entries() if one.name not in self._may_hold):
                raise ValueError(
                    f"the folder {self.folder} holds {others[0]}, which no run wrote; give an empty folder, or "
                    "overwrite=True to write among these files, which replaces those of the same names"
                )
        elif earlier["state"] == FINISHED:
            raise ValueError(
                f"the folder {self.folder} holds the results of a finished run ({shown(earlier['command'])}); give "
                f"{self._else}"
            )
        else:
            self.lines.read(earlier["run"])
            done = f"{shown(earlier['command'])}, {self.lines.done} of {earlier['images']} images"
            raise ValueError(
                f"the folder {self.folder} holds an unfinished run ({done}); give resume=True to go on, or {self._else}"
            )

    @contextmanager
    def opened(self, run: Run, images: int, *, overwrite: bool = False, resume: bool = False) -> Iterator["RunFolder"]:
        """Lock the folder for a block, in which every file that is written into it is listed.

        Args:
            run: The run; one that goes on takes the number of its beginning.
            images: Number of images to search.
            overwrite: Remove the files of another run first.
            resume: Go on with an unfinished run of the same input.

        Raises:
            ValueError: If another process writes into the folder, or as :meth:`require_free` says, or the run to go on
                with had other input.
            FinishedError: If the run to go on with is finished.
        """
        self.require_free(run, overwrite=overwrite, resume=resume)
        with self.lines.locked():
            self.require_free(run, overwrite=overwrite, resume=resume)  # another process may have come first
            earlier = self.described()
            if earlier is not None and (resume or earlier["run"] == run.number):
                self._go_on(run, earlier, images)
            else:
                self._begin(run, images, earlier)
            with noting(self._note), self._told(images):
                yield self

    def finish(self, failed: int = 0, *, keep_lines: bool = False) -> list[str]:
        """List the files that were written, and mark the run as finished.

        Args:
            failed: Number of images that could not be searched.
            keep_lines: Whether to keep the file of what was found, for another run.

        Returns:
            A note if other files lay beside those of this run, which no run wrote.
        """
        run = self.described()
        assert run is not None
        files = sorted(name for name in {*self._before, *self._begun()} if (self.folder / name).is_file())
        del run[REMOVED]
        self._write({**run, "state": FINISHED, "ended": _now(), "failed": failed, "files": files})
        if not keep_lines:
            self.lines.remove()
        noted = {"also holds": (self._beside(files), "they stay"), "held": (self._replaced, "they were replaced")}
        return [
            f"{self.folder} {verb} {len(names)} file(s) that no run wrote, {names[0]} first: {what}"
            for verb, (names, what) in noted.items()
            if names
        ]

    def _go_on(self, run: Run, earlier: Mapping[str, Any], images: int) -> None:
        """Take over what the run has done before."""
        interrupted = earlier["run"] != run.number
        if interrupted:
            self._require_same(run, earlier, images)
            run.number = earlier["run"]
        self._remove(earlier[REMOVED])
        self._before = list(earlier["files"])
        self.lines.begin(run.number, self.lines.read(run.number, landmarks=interrupted))
        self._remove_drafts([*self._before, *self._begun()])
        self._write({**earlier, "state": UNFINISHED, REMOVED: []})

    def _begin(self, run: Run, images: int, earlier: Mapping[str, Any] | None) -> None:
        """Remove the files of an earlier run, and describe the new one."""
        old = [] if earlier is None else self._files_of(earlier)
        content: dict[str, Any] = {"format": RUN_FORMAT, "run": run.number, "command": run.command}
        content |= {"options": dict(run.options), "made_from": run.made_from, "images": images}
        content |= {"state": UNFINISHED, "begun": _now(), "files": []}
        self._write({**content, REMOVED: old})  # if this is killed now, the next one knows what to remove
        self._remove(old)
        self._before = []
        self.lines.begin(run.number)
        self._write(content)

    def _require_same(self, run: Run, earlier: Mapping[str, Any], images: int) -> None:
        """Check that a run goes on with the input that it was begun with."""
        other = run.changes(earlier, images)
        if earlier["command"] != run.command:
            raise ValueError(
                f"the folder {self.folder} holds a run of {shown(earlier['command'])}, and this is {run.command}; give "
                f"{self._else}"
            )
        if other:
            raise ValueError(
                f"the run in {self.folder} was begun with other {other}; give what it was begun with, or {self._else}"
            )
        if earlier["state"] == FINISHED:
            raise finished_error(self.folder, earlier.get("failed") or 0)

    def described(self) -> dict[str, Any] | None:
        """Content of the run file; None if there is none."""
        file = self.folder / RUN_FILE
        try:
            content = parsed_json(regular_file(file).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:
            content = None
        known = isinstance(content, dict) and content.get("format") == RUN_FORMAT
        whole = known and all(isinstance(content.get(key), kind) for key, kind in _KINDS.items())
        whole = whole and isinstance(failed := content.get("failed", 0), int) and failed >= 0
        if not whole or not isinstance(content.get(REMOVED, []), list) or content["state"] not in STATES:
            raise ValueError(f"{file} is damaged, or not of this package; give another folder, or remove this one")
        listed = {key: content.get(key) or [] for key in ("files", REMOVED)}
        return content | {key: [name for name in names if self._is_inside(name)] for key, names in listed.items()}

    def _files_of(self, run: Mapping[str, Any]) -> list[str]:
        """All files that a run has written or begun to write, and those that it was to remove."""
        self.lines.read(run["run"])
        return list(dict.fromkeys([*run["files"], *run[REMOVED], *self._begun()]))

    def _begun(self) -> list[str]:
        """Files that the run has begun to write, by its lines, which may have been changed."""
        return list(filter(self._is_inside, self.lines.files))

    def _note(self, path: Path) -> None:
        """List a file before it is written."""
        name = path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else RUN_FILE
        if name != RUN_FILE and name not in self.lines.files:
            if name not in self._before and path.exists():
                self._replaced.append(name)
            self.lines.append({"file": name})

    def _write(self, content: Mapping[str, Any]) -> None:
        write_text_atomically(self.folder / RUN_FILE, json.dumps(content, indent=1) + "\n")

    def _remove(self, names: Sequence[str]) -> None:
        """Remove files of an earlier run, and the folders that are empty then."""
        self._remove_drafts(names)
        files = [self.folder / name for name in names]
        for file in files:
            if file.is_file() or file.is_symlink():
                file.unlink()
        above = {folder for file in files for folder in file.parents if folder.is_relative_to(self.folder)}
        for folder in sorted(above - {self.folder}, key=lambda one: -len(one.parts)):
            with suppress(OSError):  # it is not empty
                folder.rmdir()

    def _remove_drafts(self, names: Sequence[str]) -> None:
        """Remove what a process that was killed had half written."""
        for name in (*names, RUN_FILE):
            remove_drafts(self.folder / name)

    def _is_inside(self, name: Any) -> bool:
        """True for a path that leads nowhere else, by a link neither; the run file may have been changed."""
        if not isinstance(name, str) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            return False
        try:
            if any(len(os.fsencode(part)) > LONGEST_NAME for part in PurePosixPath(name).parts):
                return False
            return (self.folder / name).parent.resolve().is_relative_to(self.folder.resolve())
        except (ValueError, OSError):  # no system has a file of this name
            return False

    def _entries(self) -> list[Path]:
        """Files and folders in the folder, without hidden ones."""
        return [one for one in self.folder.iterdir() if one.name[0] != "."] if self.folder.is_dir() else []

    def _beside(self, files: Sequence[str]) -> list[str]:
        """Other files that lie in a folder with files of this run."""
        folders = {(self.folder / name).parent for name in files}
        every = {one for folder in folders for one in folder.iterdir() if one.is_file() and one.name[0] != "."}
        return sorted(one.name for one in every - {self.folder / name for name in (*files, RUN_FILE, LINES_FILE)})

    @contextmanager
    def _told(self, images: int) -> Iterator[None]:
        """Note on what interrupts a block, as Ctrl-C does, how far it was and how to go on."""
        try:
            yield
        except BaseException as stop:
            if not isinstance(stop, Exception):
                stop.add_note(f"after {self.lines.done} of {images} images; the same command with resume=True goes on")
            raise


def _said(value: Any, other: Any) -> str:
    """Value of an option, for a message; of several those that the option did not have otherwise."""
    if isinstance(value, list):
        value = ", ".join(str(one) for one in value if not (isinstance(other, list) and one in other)) or None
    return "none" if value is None else shown(str(value))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def finished_error(folder: Path, failed: int) -> FinishedError:
    """Error that says what is left to do in a folder whose run is finished."""
    if not failed:
        return FinishedError(f"the run in {folder} is finished, and nothing is left to do")
    listed = f", which {REJECTED_TABLE} lists with their reasons" if (folder / REJECTED_TABLE).is_file() else ""
    return FinishedError(
        f"the run in {folder} is finished, and {failed} image(s) could not be searched{listed}; mend them and give "
        "overwrite=True to search all again",
        failed,
    )
