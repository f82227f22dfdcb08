"""The volume demo: landmarks of one annotated brain template, found in changed copies of it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medpixcl.apps.match import Matcher
from medpixcl.apps.progress import progress_bar
from medpixcl.apps.register import AFFINE, Registration
from medpixcl.apps.volume_demo_data import VolumeDemoData, make_volume_demo_data
from medpixcl.data.landmarks.comparison import NamedPositions, evaluate_positions
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.reports.demo import Comparison

BUNDLE = "volume_landmark_matching"
"""Bundle that the demo shows."""

FACTS = {
    "volumes": "template MNI152NLin2009cAsym at 1 mm, copyright McConnell Brain Imaging Centre; see volumes/NOTICE.txt",
    "warped": "the T1w template turned, scaled, shifted and bent; warped T2w: the same of the T2w template",
    "contrast": "the T1w template in its place with another contrast, a bias field and noise",
    "no search": "every landmark at the template's position in mm; right by construction in contrast and T2w, whose "
    "volumes lie where the template lies",
}


def run_volume_demo(
    output: str | Path, *, matcher: Matcher | None = None, report: Callable[[str], None] = print
) -> Comparison:
    """Make the data, find the landmarks by matching, and measure it against no search and affine registration.

    Args:
        output: Folder of the demo; open its ``report.html``.
        matcher: Matcher of volumes to show; that of the bundle by default.
        report: Function called with each line of progress.

    Returns:
        Name of method and group of queries, and metrics, of all methods and groups.

    Raises:
        FileNotFoundError: If the wheel with the templates is not installed.
        BundleError: If the bundle is not found.
    """
    folder = Path(output)
    matcher = Matcher.from_bundle(BUNDLE) if matcher is None else matcher
    report("1/3 copies of the brain templates of the autoafids wheel")
    with progress_bar("volume") as progress:
        data = make_volume_demo_data(folder / "volumes", progress=progress)
    searched = data.folder / "queries"
    report("2/3 landmarks by affine registration")
    registered = Registration(AFFINE).fit(data.template, data.landmarks).match(searched)
    report("3/3 landmarks by matching")
    matched = matcher.fit(data.template, data.landmarks).match(searched, reference=data.landmarks)
    found = {"affine registration": registered.positions_mm(), "matching": matched.positions_mm()}
    comparison = _compare(data, found)
    matched.output = replace(matched.output, comparisons=comparison)
    matched.facts |= FACTS
    matched.write(folder, overlays=False, overwrite=True)
    return comparison


def _compare(data: VolumeDemoData, found: Mapping[str, Mapping[str, NamedPositions]]) -> Comparison:
    """Errors of every method in every group; ``found`` holds positions in mm, LPS+, by method and file name."""
    true = read_landmarks(data.landmarks).positions_mm()
    queries = [path for paths in data.queries.values() for path in paths]
    unmoved = {path.name: true[data.template.relative_to(data.folder).as_posix()] for path in queries}
    return [
        (f"{method}: {group}", _errors([path.name for path in paths], positions, true))
        for method, positions in {"no search": unmoved, **found}.items()
        for group, paths in data.queries.items()
    ]


def _errors(
    names: list[str], found: Mapping[str, NamedPositions], true: Mapping[str, NamedPositions]
) -> dict[str, Any]:
    """Errors in some of the queries, given by file name."""
    return evaluate_positions({name: found[name] for name in names}, {name: true[f"queries/{name}"] for name in names})
