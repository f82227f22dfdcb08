"""Page on an adaptation: the way that was chosen, its expected error, and what more annotated images would bring."""

from collections.abc import Mapping
from pathlib import Path

from medpixcl.reports.few_shot import FewShotResult, few_shot_curve
from medpixcl.reports.html import Picture
from medpixcl.reports.pages import Section, write_page
from medpixcl.reports.tables import Metrics, comparison_rows, error_rows


def write_adaptation_page(
    path: Path,
    *,
    way: str,
    annotated: int,
    seen: float,
    metrics: Mapping[str, Metrics],
    curve: Mapping[int, float],
) -> None:
    """Write the page.

    Args:
        path: HTML file.
        way: Way of finding the landmarks that was chosen.
        annotated: Number of annotated images.
        seen: Mean number of annotated images that a way had seen when it was measured.
        metrics: Expected errors by way; empty without a cross-validation.
        curve: Mean radial error in mm of matching by number of templates; empty for one annotated image.
    """
    sections = [_choice(way, annotated, seen, metrics)]
    if metrics:
        sections.append(_landmarks(metrics[way]))
    if curve:
        sections.append(_budget(way, seen, metrics, curve))
    images = "1 annotated image" if annotated == 1 else f"{annotated} annotated images"
    write_page(path, sections, title="Adapted landmark detection", lead=f"Learnt from {images} and unlabelled ones.")


def _choice(way: str, annotated: int, seen: float, metrics: Mapping[str, Metrics]) -> Section:
    if not metrics:
        text = (
            f"Taken: {way}. With {annotated} annotated image(s) and without a cross-validation nothing says which way "
            "is best; on cephalograms the mean of both is the best or close to it."
        )
        return Section(heading="Way of finding the landmarks", text=text)
    text = (
        f"Taken: {way}, which erred least on annotated images that were held out. There each way had seen "
        f"{seen:.3g} annotated images in the mean; with all {annotated} the error should be no greater. Few images are "
        "behind these figures: look at the intervals."
    )
    tables = {"Error of each way on held-out annotated images": comparison_rows(list(metrics.items()))}
    return Section(heading="Way of finding the landmarks", text=text, tables=tables)


def _landmarks(metrics: Metrics) -> Section:
    text = (
        "The least reliable landmarks first, before them those that could not be measured: check these in every image."
    )
    return Section(heading="Where it is unsure", text=text, tables={"Expected error": error_rows(metrics)})


def _budget(way: str, seen: float, metrics: Mapping[str, Metrics], curve: Mapping[int, float]) -> Section:
    results = [FewShotResult(count, "matching", error) for count, error in curve.items()]
    if way in metrics and (error := metrics[way]["mre_mm"]) is not None:
        results.append(FewShotResult(round(seen), f"{way}, held out", error))
    picture = Picture(
        image=few_shot_curve(results),
        caption="Error of matching by number of annotated images, each measured in the others.",
        alt="Curve: mean radial error in mm against the number of annotated images.",
    )
    text = "How the error falls shows what further annotated images would bring."
    return Section(heading="Error by number of annotated images", text=text, pictures=[picture])
