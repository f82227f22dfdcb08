"""Finds bundles by name or folder, and says whose programs they are."""

import os
from pathlib import Path

import medpixcl
from medpixcl.data.paths import checked_path

BUNDLES_VARIABLE = "MEDPIXCL_BUNDLES"


class BundleError(ValueError):
    """A bundle cannot be found or does not run as asked."""


class UntrustedBundleError(BundleError):
    """A configuration is a program from a place that nobody vouched for."""


def bundle_roots() -> list[Path]:
    """Folders of bundles in the order of search: the working folder's, ``$MEDPIXCL_BUNDLES``, the installation's.

    The installation's are ``medpixcl/bundles`` in a wheel and ``bundles`` in a checkout of the sources.
    """
    package = Path(medpixcl.__file__).parent
    checkout = package.parent if (package.parent / "pyproject.toml").is_file() else package
    named = [Path(os.environ[BUNDLES_VARIABLE])] if os.environ.get(BUNDLES_VARIABLE) else []
    return [Path("bundles"), *named, checkout / "bundles"]


def find_bundle(name: str | os.PathLike[str] | None, default: str = "", *, trust: bool = False) -> Path:
    """Folder of a bundle.

    Args:
        name: Folder of the bundle, or its name in the working folder or one of :func:`bundle_roots`.
        default: Name that is taken if there is none.
        trust: Whether a bundle from any other place may be taken.

    Raises:
        BundleError: If there is no such bundle.
        UntrustedBundleError: If the bundle lies elsewhere and is not trusted.
    """
    asked = checked_path(name or default, "the bundle")
    places = [asked] if name else []
    if len(asked.parts) == 1:
        places += [root / asked for root in bundle_roots()]
    for place in places:
        if (place / "configs" / "metadata.json").is_file():
            if not (trust or is_trusted(place)):
                raise UntrustedBundleError(distrust(f"the bundle {place}"))
            return place
    for place in places:
        if (place / "configs").is_dir():
            raise BundleError(
                f"{place} is no bundle without configs/metadata.json: copy the file from a similar bundle"
            )
    looked = " or ".join(str(place) for place in places)
    raise BundleError(f"no bundle at {looked}: give a name of `medpixcl bundles list`, or the folder of a bundle")


def bundle_weights(bundle: str) -> str:
    """Weights that a bundle ships, for another bundle's configuration to start from.

    A configuration names the bundle, not a folder, so that a copy of the configuration works anywhere.

    Args:
        bundle: Name of the bundle, searched for as :func:`find_bundle` does.

    Returns:
        Path of the bundle's ``models/model.pt``.

    Raises:
        BundleError: If there is no such bundle, or its folder has no weights, as in an installed package for some.
    """
    file = find_bundle(bundle) / "models" / "model.pt"
    if not file.is_file():
        raise BundleError(
            f"the bundle {bundle} at {file.parents[1]} has no weights (models/model.pt): give a file of weights as "
            "start_weights, or null to start without; `medpixcl bundles list` says which bundles have weights"
        )
    return str(file)


def is_trusted(place: Path) -> bool:
    """Whether a path lies in the working folder or in one of :func:`bundle_roots`."""
    return any(place.resolve().is_relative_to(root.resolve()) for root in (Path(), *bundle_roots()))


def distrust(what: str) -> str:
    """Why a program does not run unasked, in one sentence.

    Args:
        what: Kind and path of the program.
    """
    return (
        f"{what} is a program that will run with your rights, and it lies outside the working folder, the installation "
        f"and {BUNDLES_VARIABLE}: run it with trust=True if you trust its author"
    )
