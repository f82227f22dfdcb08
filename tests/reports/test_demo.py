"""The demo's pages: annotated, found, error, in this order; the methods on a page of their own."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from medpixcl.data.landmarks.comparison import evaluate_positions
from medpixcl.reports.demo import DEPTH_CAPTION, Shown, write_demo_report, write_methods_page
from medpixcl.reports.markers import PREDICTED
from medpixcl.reports.pages import Section, write_page
from medpixcl.reports.wall import landmark_wall
from tests.reports.test_html import Page

NAMES = ["apex", "carina"]
TRUTH = np.array([[4.0, 20.0], [30.0, 10.0]])


def shown(number: int) -> Shown:
    image = np.random.default_rng(number).integers(0, 255, (40, 32), dtype=np.uint8)
    return Shown(f"test_{number}.png", image, TRUTH + number, TRUTH)


def metrics(error: float) -> dict:
    truth = {f"{number}.png": {"apex": (0.0, 0.0), "carina": (0.0, 9.0)} for number in range(3)}
    found = {image: {name: (x + error, y) for name, (x, y) in of_image.items()} for image, of_image in truth.items()}
    return evaluate_positions(found, truth)


def text_of(path: Path) -> str:
    return Page(path.read_text(encoding="utf-8")).text


def test_the_report_shows_what_was_annotated_then_found_then_the_error(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    template = shown(0)._replace(found=np.full_like(TRUTH, np.nan))
    comparison = [("frozen", metrics(7.0)), ("pretrained", metrics(3.0))]
    write_demo_report(path, template=template, names=NAMES, tested=[shown(1), shown(2)], comparison=comparison)
    text = text_of(path)
    order = [text.index(part) for part in ("What was annotated", "What was found", "How far off it is", "More")]
    assert order == sorted(order)
    assert "Template with its 2 landmarks" in text
    assert "apex 7.0 3.0" in text
    assert "pretrained 3 0 3.00" in text
    page = Page(path.read_text(encoding="utf-8"))
    assert [found["href"] for tag, found in page.elements if tag == "a"] == ["pretrained/report.html", "methods.html"]
    assert sum(tag == "img" for tag, _ in page.elements) == 3


def test_the_methods_have_a_page_of_their_own(tmp_path: Path) -> None:
    figure = Figure()
    figure.add_subplot()
    write_methods_page(tmp_path / "methods.html", figure)
    assert DEPTH_CAPTION in text_of(tmp_path / "methods.html")


def test_a_page_keeps_the_order_of_its_sections_and_escapes(tmp_path: Path) -> None:
    sections = [
        Section(heading="b <i>", text="x & y", tables={"caption": [["name", "mm"], ["sella", "1.0"]]}),
        Section(heading="a", links={"other.html": "other"}),
    ]
    write_page(tmp_path / "page.html", sections, title="T", lead="L")
    text = text_of(tmp_path / "page.html")
    assert text.index("b <i>") < text.index("x & y") < text.index("sella") < text.index("other")


def test_the_wall_has_a_panel_for_every_image_with_its_points() -> None:
    some = [shown(number) for number in range(5)]
    columns = zip(*[(one.image, one.found, one.truth, one.name) for one in some], strict=True)
    images, found, truth, titles = (list(column) for column in columns)
    figure = landmark_wall(images, found, truth, titles=titles)
    assert [axes.get_title() for axes in figure.axes] == titles
    for number, axes in enumerate(figure.axes):
        discs = next(part for part in axes.collections if part.get_offsets().shape[0] == 2 and _is_disc(part))
        np.testing.assert_allclose(discs.get_offsets(), (TRUTH + number)[:, ::-1])


def _is_disc(part: object) -> bool:
    from matplotlib.colors import to_rgba

    colours = getattr(part, "get_facecolor", list)()
    return len(colours) > 0 and tuple(colours[0]) == pytest.approx(to_rgba(PREDICTED))
