"""The demo's pages: what was annotated, what was found, how far off it is; and the methods' pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from medpixcl.reports.figures import error_curve, landmark_overlay
from medpixcl.reports.html import Picture
from medpixcl.reports.pages import Section, write_page
from medpixcl.reports.tables import comparison_rows
from medpixcl.reports.wall import landmark_wall

if TYPE_CHECKING:
    import matplotlib.figure

Comparison = list[tuple[str, dict[str, Any]]]
"""Name and metrics (:func:`medpixcl.landmarks.metrics.evaluate_positions`) of each network, the trained one last."""
METHODS_PAGE = "methods.html"
MATCHING_PAGE = "pretrained/report.html"
LEAD = (
    "One chest CT was bent into synthetic patients and cast into radiographs. A network learnt from the training "
    "patients' radiographs without labels. Landmarks marked on one radiograph were then found in other patients."
)
DEPTH_CAPTION = (
    "Two views of a training radiograph above their depth, and the positives of one cell in PixPro with depth: those "
    "that depth removes lie at the same place but at another depth."
)


class Shown(NamedTuple):
    """A radiograph with K landmarks found in it and their true places, as voxels (row, column), NaN where absent."""

    name: str
    image: UInt8[np.ndarray, "h w"]
    found: Float[np.ndarray, "k 2"]
    truth: Float[np.ndarray, "k 2"]


def write_demo_report(
    path: Path, *, template: Shown, names: Sequence[str], tested: Sequence[Shown], comparison: Comparison
) -> None:
    """Write the page that the demo ends with.

    Args:
        path: HTML file; :data:`METHODS_PAGE` and :data:`MATCHING_PAGE` lie beside it.
        template: The annotated radiograph.
        names: K names of the landmarks.
        tested: Test radiographs to show.
        comparison: Errors of the networks compared.
    """
    annotated = landmark_overlay(template.image, template.found, reference=template.truth, names=names)
    wall = landmark_wall(
        [one.image for one in tested],
        [one.found for one in tested],
        [one.truth for one in tested],
        titles=[one.name for one in tested],
    )
    curves = error_curve({name: _errors(metrics) for name, metrics in comparison})
    sections = [
        Section(
            heading="What was annotated",
            text="The only radiograph with landmarks that the method sees.",
            pictures=[Picture(image=annotated, caption=f"Template with its {len(names)} landmarks")],
        ),
        Section(
            heading="What was found",
            text="Patients that the training never saw, turned farther than any radiograph that it saw.",
            pictures=[Picture(image=wall, caption="Test radiographs; the line from a disc to its cross is the error")],
        ),
        Section(
            heading="How far off it is",
            text="The same landmarks, matched in the same way, by networks that differ in their weights alone or, for "
            "the frozen features, are the ImageNet encoder as published.",
            pictures=[Picture(image=curves, caption="Share of landmarks by error")],
            tables={
                "Error over all landmarks of the test radiographs; in brackets the 95 % interval over images.": (
                    comparison_rows(comparison)
                ),
                "Mean error of each landmark (mm).": _landmark_rows(names, comparison),
            },
        ),
        Section(
            heading="More",
            links={
                MATCHING_PAGE: "the matching report: confidence, flags, worst and best radiographs",
                METHODS_PAGE: "a look into a method: which pixels PixPro with depth takes for the same",
            },
        ),
    ]
    write_page(path, sections, title="medpixcl demo", lead=LEAD)


def write_methods_page(path: Path, positives: "matplotlib.figure.Figure") -> None:
    """Write the page of the methods' pictures.

    Args:
        path: HTML file.
        positives: The positives of PixPro with depth.
    """
    picture = Picture(image=positives, caption=DEPTH_CAPTION)
    section = Section(heading="Positives of PixPro with depth", pictures=[picture])
    write_page(path, [section], title="Methods", lead="What methods of the package work with, on the demo's images.")


def _errors(metrics: Mapping[str, Any]) -> Float[np.ndarray, " n"]:
    """All radial errors in mm."""
    return np.array([error for entry in metrics["per_image"].values() for error in entry["errors_mm"].values()])


def _landmark_rows(names: Sequence[str], comparison: Comparison) -> list[list[str]]:
    """Mean error of each landmark by network."""
    rows = [[name, *(f"{metrics['per_landmark'][name]['mre_mm']:.1f}" for _, metrics in comparison)] for name in names]
    return [["landmark", *(name for name, _ in comparison)], *rows]
