"""Options that several commands share."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from medpixcl.data.identity import short_name
from medpixcl.data.wording import worded
from medpixcl.limits import regular_file

if TYPE_CHECKING:
    import medpixcl

_T = TypeVar("_T")

Device = Annotated[str | None, typer.Option(help="Device: cpu, cuda, cuda:1, ...")]
Configs = Annotated[list[Path] | None, typer.Option(help="Config file merged over the bundle's; may be repeated.")]
Templates = Annotated[
    list[Path],
    typer.Option(
        "--template",
        help="Annotated image (template); may be repeated. Of a folder or a manifest, the images with landmarks.",
    ),
]
TemplateLandmarks = Annotated[
    Path,
    typer.Option(help="Landmark file of all templates (CSV, Slicer, JSON, COCO, DICOM SR), or a folder of such files."),
]
MatchingBundle = Annotated[
    str | None,
    typer.Option(
        help="Name or folder of a matching bundle; by default volume_landmark_matching for volumes, else "
        "xray_landmark_matching."
    ),
]
MatchingWeights = Annotated[Path | None, typer.Option(help="Weights of the network; those of the bundle by default.")]
Spacing = Annotated[
    float | None,
    typer.Option("--spacing-mm", min=1e-6, help="Pixel size in mm for images whose file does not state it."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the bundle; may be repeated."),
]
Formats = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Landmark formats, separated by commas: csv, json, mrk.json, coco, sr; csv,mrk.json by default.",
    ),
]
KeepPatient = Annotated[
    bool,
    typer.Option("--keep-patient", help="Copy the image's patient and study data into DICOM SR; left out by default."),
]
Corrected = Annotated[
    Path | None,
    typer.Option(
        help="Landmark file or folder in which you corrected some of the images: the others are moved likewise, and "
        "habit.json keeps the offsets."
    ),
]
ReaderHabit = Annotated[
    Path | None, typer.Option("--habit", help="habit.json of a run with --corrections, to apply its offsets.")
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run configurations from any folder without asking."),
]

Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the run in the output folder: remove the files that its run.json lists."),
]
Continue = Annotated[
    bool,
    typer.Option("--continue", help="Go on with an interrupted run of the same command in the output folder."),
]

Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of processes of this machine that search images, by Dask; one without it."),
]
Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers search images, as tcp://host:8786."),
]
NumParts = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of parts of the run, for job arrays; without --part-id, put the parts together.",
    ),
]
PartId = Annotated[
    int | None, typer.Option(min=0, help="Part of the images to take, counted from 0; needs --num-parts.")
]

Exclude = Annotated[Path | None, typer.Option(help="Text file of images to leave out, one per line.")]


def chosen_bundle(
    name: str | Path | None, default: str = "", *, configs: Sequence[Path] | None = None, trust: bool = False
) -> Path:
    """Find the bundle that a command runs; at a terminal, ask before running a configuration from elsewhere.

    Args:
        name: Name or folder of the bundle.
        default: Name to use if ``name`` is empty.
        configs: Config files that the user merges over the bundle's.
        trust: Run configurations from any folder without asking.
    """
    from medpixcl.apps.bundle_search import find_bundle

    folder = _asked(partial(find_bundle, name, default), trust)
    if configs:
        from medpixcl.apps.bundles import check_config

        for file in configs:
            _asked(partial(check_config, file), trust)
    return folder


def chosen_matcher(
    bundle: str | None,
    weights: Path | None,
    settings: Sequence[str] | None,
    images: Path | Sequence[Path],
    *,
    device: str | None = None,
    trust: bool = False,
) -> "medpixcl.Matcher":
    """Build the matcher that a command asks for.

    Args:
        bundle: Name or folder of the matching bundle; None takes the one that is made for the images.
        weights: Weights of the network; None takes those of the bundle.
        settings: Texts ``key=value`` that override settings of the bundle.
        images: Templates or images of the run.
        device: Device of the network; None chooses one.
        trust: Run configurations from any folder without asking.
    """
    from medpixcl.apps.bundles import parse_settings
    from medpixcl.apps.match import Matcher, matching_bundle

    return Matcher.from_bundle(
        chosen_bundle(bundle, "" if bundle else matching_bundle(images), trust=trust),
        weights=weights,
        device=device or "auto",
        settings=parse_settings(settings or []),
        trust=True,
    )


def _asked(look: Callable[..., _T], trust: bool) -> _T:
    """Find a configuration; if its folder is not trusted, ask the user first."""
    from medpixcl.apps.bundle_search import UntrustedBundleError

    try:
        return look(trust=trust)
    except UntrustedBundleError as error:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        typer.confirm(f"{worded(str(error))}. Run it?", abort=True, err=True)
        return look(trust=True)


def excluded_images(file: Path | None) -> list[str]:
    """Images that the file of ``--exclude`` names, none without a file."""
    lines = [] if file is None else regular_file(file).read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()]


def listing(images: Path) -> Path | None:
    """The images that a command searches, if they are a manifest; None for a folder or an image."""
    from medpixcl.data.manifest import is_manifest

    return images if is_manifest(images) else None


def asked_formats(formats: str | None) -> list[str] | None:
    """Landmark formats given by ``--format``; None leaves the choice to the bundle."""
    if formats is None:
        return None
    names = [name.strip().lower().removeprefix(".") for name in formats.split(",")]
    return [name for name in names if name]


def typed_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a command for its run file; of paths the last part alone, as folders name people.

    Args:
        arguments: Arguments of the command's function; those that are None or False were not typed.
    """
    given = {name: value for name, value in arguments.items() if value is not None and value is not False}
    return {name: _without_folders(value) for name, value in given.items()}


def asked_folder(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :meth:`medpixcl.apps.Output.into` from the options of a command, after a check of its input.

    Args:
        arguments: Arguments of the function, with ``output``, ``formats``, ``keep_patient``, ``overwrite`` and
            ``resume``; perhaps ``num_parts`` and ``part_id``.

    Raises:
        ValueError: If an input of the command is a result that ``--overwrite`` would remove.
    """
    if arguments["overwrite"]:
        require_input_kept(arguments["output"], arguments)
    return {
        "folder": arguments["output"],
        "formats": asked_formats(arguments["formats"]),
        "keep_patient": arguments["keep_patient"] or None,
        "overwrite": arguments["overwrite"],
        "resume": arguments["resume"],
        "options": typed_options(arguments),
        "num_parts": arguments.get("num_parts"),
        "part_id": arguments.get("part_id"),
    }


def require_input_kept(output: Path, arguments: Mapping[str, Any]) -> None:
    """Check that no input of a command is a result that ``--overwrite`` would remove.

    Args:
        output: Folder of the results.
        arguments: Arguments of the command's function.
    """
    from medpixcl.apps.run_folder import RunFolder

    given = [one for value in arguments.values() for one in (value if isinstance(value, list) else [value])]
    for path in given:
        if isinstance(path, Path) and path != output and RunFolder(output).owns(path):
            raise ValueError(
                f"{path} is a result of the run in {output}, which overwrite=True would remove; give a copy of it, or "
                "another folder for the results"
            )


def _without_folders(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_without_folders(one) for one in value]
    if isinstance(value, Path):
        return short_name(str(value.absolute()))
    if isinstance(value, str):
        key, sign, text = value.rpartition("=")
        return f"{key}{sign}{short_name(text)}" if re.search(r"[\\/]", text) else value
    return value
