"""The search of a run: image by image, here or on the workers of a cluster, and kept in the folder of the run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monai.data import MetaTensor

from medpixcl.apps.images import source_of
from medpixcl.apps.kept_landmarks import Kept
from medpixcl.apps.output import Output
from medpixcl.apps.progress import progress
from medpixcl.apps.radii import Radii
from medpixcl.apps.results import Landmarks, Results
from medpixcl.apps.run_folder import RunFolder
from medpixcl.data.dask_cluster import DaskCluster, in_order

if TYPE_CHECKING:
    from medpixcl.apps.finder import LandmarkFinder

Item = Mapping[str, Any]
Outcome = tuple[Landmarks, MetaTensor | None] | Exception
"""Landmarks of an image, and the prepared image (1, *spatial) if it was searched in this process; or what failed."""
_AHEAD = 4
"""Images given to each worker before the first one is awaited."""


@dataclass(frozen=True)
class SearchPlace:
    """Where the searches of a run compute, and where they keep what they find.

    Attributes:
        folder: Folder of the run; None keeps nothing.
        cluster: Workers that search; None searches in this process.
        part: Whether these are the images of one part of a run, which may fail one and all.
    """

    folder: RunFolder | None = None
    cluster: DaskCluster | None = None
    part: bool = False


def search(
    finder: "LandmarkFinder",
    results: Results,
    items: Sequence[Item],
    place: SearchPlace,
    *,
    output: Output | None = None,
    step: str = "first",
) -> None:
    """Find the landmarks in some images and add them to the results, one image in memory at a time.

    An image that cannot be prepared or searched is listed among the rejected ones, and the others are searched.

    Args:
        finder: What finds the landmarks of one image.
        results: Results to extend.
        items: Items of the images, see :attr:`medpixcl.apps.images.Images.datalist`.
        place: Where to search; landmarks that an interrupted run found are taken from its folder.
        output: Folder to draw overlays into; None draws nothing.
        step: Name of this search among those of the run.

    Raises:
        ValueError, RuntimeError, OSError: If none of the images can be searched; the error of the first one.
    """
    kept = Kept(place.folder, step, results.images, results.names)
    known = {source: one for source in map(_source, items) if (one := kept.landmarks(source)) is not None}
    wanted = [item for item in items if _source(item) not in known]
    failed: list[Exception] = []
    for item, outcome in zip(
        progress(wanted, finder.title, "image"), _outcomes(finder, results.radii, wanted, place.cluster), strict=True
    ):
        if isinstance(outcome, Exception):
            results.images.leave_out(_source(item), outcome)
            failed.append(outcome)
            continue
        one, image = results.add(outcome[0]), outcome[1]
        if output is not None and image is not None:
            output.draw(results, one, image)
        kept.add(one)
    if failed and len(failed) == len(items) and not place.part:
        raise failed[0]
    if known:
        found = known | {one.source: one for one in results.landmarks}
        results.landmarks = [found[source] for source in map(_source, items) if source in found]


def _outcomes(
    finder: "LandmarkFinder", radii: Radii, items: Sequence[Item], cluster: DaskCluster | None
) -> Iterator[Outcome]:
    """What comes of each image, in their order."""
    if cluster is None or not items:
        return (_outcome(finder, radii, item) for item in items)
    lent = cluster.lend((finder, radii))
    return in_order(items, lambda item: cluster.submit(_far, lent, item, if_lost=_lost), _AHEAD * cluster.number)


def _outcome(finder: "LandmarkFinder", radii: Radii, item: Item) -> Outcome:
    try:
        return finder.look(item, radii)
    except (ValueError, RuntimeError, OSError) as error:
        return error


def _far(lent: tuple["LandmarkFinder", Radii], item: Item) -> Outcome:
    """What comes of an image at a worker, which keeps the image for itself."""
    outcome = _outcome(*lent, item)
    return outcome if isinstance(outcome, Exception) else (outcome[0], None)


def _lost() -> Outcome:
    return RuntimeError("ended every worker that searched it, as damaged files do, or images larger than the memory.")


def _source(item: Item) -> str:
    return source_of(item["image"])
