"""Report of a landmark matching as one self-contained HTML page, for screen and paper.

Styles and pictures lie inside the page; it loads nothing, runs no script and can be sent as one file.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medpixcl.data.atomic import write_text_atomically
from medpixcl.reports.tables import comparison_rows, coverage_rows, overall_rows

if TYPE_CHECKING:
    import matplotlib.figure

PICTURE_BYTES = 2_000_000
_SIDES = (800, 640, 480, 320)
SHEET_BYTES, _SHEET_SIDE = 3_000_000, 8000

MOST_LISTED = 200
"""Number of images up to which the page lists all that need a look or were left out; the tables have all."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Picture on a page.

    Attributes:
        image: Figure, or the bytes of a PNG or JPEG file.
        caption: Text below the picture.
        alt: Description for readers who cannot see the picture; the caption by default.
    """

    image: "matplotlib.figure.Figure | bytes"
    caption: str
    alt: str = ""


@dataclass(frozen=True, kw_only=True)
class MatchReport:
    """Content of the report. It is shown as given: keep folders and patient data out of names and facts.

    Attributes:
        title: Heading of the page.
        template_names: File names of the annotated images.
        template_pictures: Annotated images with their landmarks (the reference of ``landmark_overlay``).
        facts: Facts about the run by name: command, version, weights, template, date.
        landmark_table: Rows of :func:`medpixcl.reports.tables.landmark_summary_rows`.
        metrics: Metrics against a reference, see :func:`medpixcl.landmarks.metrics.summarise_errors`; None without one.
        plots: Error curve, confidence against error and the like.
        best: Pictures of the images matched best, by error with a reference, else by mean confidence.
        worst: Pictures of the images matched worst.
        planes: Slices through the landmarks of the images that need a look most, the most urgent first.
        images: Number of images that were searched.
        flagged: File name of each image with unsure landmarks, and the names of these; 200 at most are listed.
        rejected: File name of each image left out, and the reason; 200 at most are listed.
        warnings: Warnings to read before using the results.
        comparisons: Name and metrics of other methods on the same images.
        habit_table: Rows of :func:`medpixcl.reports.tables.habit_rows`; empty without a reading habit.
        region_table: Rows of :func:`medpixcl.reports.tables.region_rows`; empty without a calibration.
    """

    title: str
    template_names: Sequence[str]
    template_pictures: Sequence[Picture] = ()
    facts: Mapping[str, str]
    landmark_table: Sequence[Sequence[str]]
    metrics: Mapping[str, Any] | None = None
    plots: Sequence[Picture] = ()
    best: Sequence[Picture] = ()
    worst: Sequence[Picture] = ()
    planes: Sequence[Picture] = ()
    images: int = 0
    flagged: Sequence[tuple[str, Sequence[str]]] = ()
    rejected: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    comparisons: Sequence[tuple[str, Mapping[str, Any]]] = ()
    habit_table: Sequence[Sequence[str]] = ()
    region_table: Sequence[Sequence[str]] = ()


def write_match_report(path: Path | str, report: MatchReport) -> None:
    """Write the report completely or not at all.

    Pictures are at most 800 pixels wide and high, and smaller if many of them would make the page too large to send;
    slices through landmarks keep their size, and only the first of them are shown.

    Args:
        path: HTML file to write; missing folders are made.
        report: Content of the report.
    """
    write_text_atomically(path, render_match_report(report))


def render_match_report(report: MatchReport) -> str:
    """Render the report as HTML text; see :func:`write_match_report`."""
    groups = {"templates": report.template_pictures, "plots": report.plots, "best": report.best, "worst": report.worst}
    return render_page(
        "match.html.j2",
        groups,
        report=report,
        flagged=_most_flagged(report.flagged),
        rejected=report.rejected[:MOST_LISTED],
        sheets=_sheets(report.planes),
        overall=overall_rows(report.metrics) if report.metrics else [],
        coverage=coverage_rows(report.metrics) if report.metrics else [],
        comparison_table=comparison_rows(report.comparisons),
    )


def _most_flagged(flagged: Sequence[tuple[str, Sequence[str]]]) -> Sequence[tuple[str, Sequence[str]]]:
    """Images to list: all, or those with most unsure landmarks where they are many."""
    if len(flagged) <= MOST_LISTED:
        return flagged
    return sorted(flagged, key=lambda one: -len(one[1]))[:MOST_LISTED]


def render_page(template: str, pictures: Mapping[str, Sequence[Picture]], **content: Any) -> str:
    """Render a template of this package as HTML text.

    Args:
        template: File name of the template.
        pictures: Groups of pictures, embedded as ``pictures``; at most 800 pixels wide and high.
        content: Other variables of the template.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medpixcl.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(pictures=_embedded(pictures), **content)


def _embedded(groups: Mapping[str, Sequence[Picture]]) -> dict[str, list[dict[str, str]]]:
    """Sources, captions and alternative texts; all pictures at the largest size at which they fit the page together."""
    for side in _SIDES:
        found = {name: [_image_element(picture, side) for picture in some] for name, some in groups.items()}
        if sum(len(element["source"]) for some in found.values() for element in some) <= PICTURE_BYTES:
            break
    return found


def _sheets(pictures: Sequence[Picture]) -> list[dict[str, str]]:
    """The first large pictures at their full size, as many as fit into ``SHEET_BYTES`` together."""
    elements: list[dict[str, str]] = []
    for picture in pictures:
        elements.append(_image_element(picture, _SHEET_SIDE))
        if sum(len(element["source"]) for element in elements) > SHEET_BYTES:
            return elements[:-1]
    return elements


def _image_element(picture: Picture, side: int) -> dict[str, str]:
    """The smaller of PNG and JPEG as a data URI, neither side longer than ``side`` pixels.

    What is large both ways, such as the three views of a volume, gets the full width of the page.
    """
    from PIL import Image

    content = picture.image if isinstance(picture.image, bytes) else _figure_bytes(picture.image, side)
    with Image.open(BytesIO(content)) as opened:
        pixels = opened.convert("RGB")
    pixels.thumbnail((side, side), Image.Resampling.LANCZOS)
    png, jpeg = BytesIO(), BytesIO()
    pixels.save(png, "png")
    pixels.save(jpeg, "jpeg", quality=85, optimize=True)
    kind, data = min(("png", png.getvalue()), ("jpeg", jpeg.getvalue()), key=lambda encoded: len(encoded[1]))
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    width = "full" if min(pixels.size) > 600 else "half"
    return {"source": source, "caption": picture.caption, "alt": picture.alt or picture.caption, "width": width}


def _figure_bytes(figure: "matplotlib.figure.Figure", side: int) -> bytes:
    """Drawn at its final size, so that its letters stay sharp."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=min(figure.dpi, side / max(figure.get_size_inches())))
    return buffer.getvalue()
