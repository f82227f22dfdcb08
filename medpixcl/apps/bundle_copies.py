"""List the available bundles, and copy one to edit."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medpixcl._json import parsed_json
from medpixcl.apps.bundle_search import BundleError, bundle_roots, find_bundle


@dataclass(frozen=True)
class BundleFacts:
    """Metadata of a bundle.

    Attributes:
        name: Name under which the commands find the bundle.
        version: Version of the bundle.
        task: Task of the bundle in a few words.
        place: Folder of the bundle.
        weights: Whether the folder contains the weights that the commands take, ``models/model.pt``.
    """

    name: str
    version: str
    task: str
    place: Path
    weights: bool


def list_bundles() -> list[BundleFacts]:
    """List all bundles that :func:`medpixcl.apps.bundles.find_bundle` finds by name, each in its first location.

    Raises:
        BundleError: If the metadata of a bundle cannot be read.
    """
    places: dict[str, Path] = {}
    for root in (Path(), *bundle_roots()):
        for place in _bundles_in(root):
            places.setdefault(place.name, place)
    return [_facts(place) for _, place in sorted(places.items())]


def copy_bundle(name: str, folder: Path) -> Path:
    """Copy a bundle with its weights, without running any of it.

    Args:
        name: Name or folder of the bundle.
        folder: Folder to create; it must not exist yet.

    Returns:
        The bundle that was copied.

    Raises:
        BundleError: If there is no such bundle, or the folder exists or would lie inside the bundle.
    """
    source = find_bundle(name, trust=True)
    if folder.exists():
        raise BundleError(f"{folder} exists already: give the name of a folder that does not, nothing is overwritten")
    if folder.resolve().is_relative_to(source.resolve()):
        raise BundleError(f"{folder} lies inside the bundle {source}: give a folder outside of it")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("eval", "__pycache__"))
    return source


def _bundles_in(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from (file.parents[1] for file in root.glob("*/configs/metadata.json"))


def _facts(place: Path) -> BundleFacts:
    file = place / "configs" / "metadata.json"
    try:
        told = parsed_json(file.read_text(encoding="utf-8"))
        version, task = str(told["version"]), str(told["task"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is no metadata of a bundle ({error}); give it a version and a task") from None
    return BundleFacts(place.name, version, task, place, (place / "models" / "model.pt").is_file())
