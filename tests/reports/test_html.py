import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from medpixcl.data.landmarks.comparison import evaluate_positions
from medpixcl.landmarks.metrics import summarise_errors
from medpixcl.reports.figures import landmark_overlay
from medpixcl.reports.html import SHEET_BYTES, MatchReport, Picture, render_match_report, write_match_report
from medpixcl.reports.match import error_array, extremes, match_report

NAN = float("nan")
VOID = {"meta", "img", "br", "link", "hr", "input"}
NAMES = ["sella", "nasion"]
IMAGES = [f"/data/jane doe/{index}.png" for index in range(5)]


class Page(HTMLParser):
    """Elements of a page; complains about tags that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & {*self.open}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def overlay(dims: int) -> Figure:
    return landmark_overlay(torch.rand((12, 10, 8)[:dims]), torch.ones(2, dims))


def square() -> bytes:
    """A small picture that takes no time."""
    buffer = BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "png")
    return buffer.getvalue()


def report(dims: int | None = None, *, reference: bool = True, **changes: object) -> MatchReport:
    scores = torch.tensor([[0.9, 0.8], [0.7, NAN], [0.5, 0.4], [0.3, 0.9], [0.6, 0.6]])
    predicted = {image: {"sella": (1.0 * n, 0.0), "nasion": (0.0, 0.5)} for n, image in enumerate(IMAGES)}
    truth = {f"{n}.png": {"sella": (0.0, 0.0), "nasion": (0.0, 0.0)} for n in range(4)}
    content = match_report(
        title="Test",
        templates=["/data/jane doe/template.png"],
        images=IMAGES,
        names=NAMES,
        scores=scores,
        unsure=scores < 0.45,
        draw=lambda _: overlay(dims) if dims else square(),
        facts={"command": "medpixcl match", "weights": "none"},
        metrics=evaluate_positions(predicted, truth) if reference else None,
        template_pictures=[Picture(image=overlay(dims) if dims else square(), caption="the template")],
        rejected={"/data/jane doe/bad.png": "cannot read /data/jane doe/bad.png: not an image"},
        warnings=["mind the gap"],
        cases=2,
    )
    return replace(content, **({} if dims else {"plots": []}) | changes)


class TestPage:
    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("reference", [False, True])
    def test_is_whole_and_loads_nothing(self, dims: int, reference: bool, tmp_path: Path) -> None:
        path = tmp_path / "new" / "report.html"
        write_match_report(path, report(dims, reference=reference))
        page = Page(path.read_text(encoding="utf-8"))
        sources = [
            value
            for _, attributes in page.elements
            for key, value in attributes.items()
            if key in ("src", "href", "srcset")
        ]
        assert len(sources) == 5 + 2 * reference
        assert all(re.fullmatch(r"data:image/(png|jpeg);base64,[\w+/=]+", source) for source in sources)
        assert page.all("script") == page.all("link") == page.all("iframe") == []
        assert "url(" not in path.read_text(encoding="utf-8")
        assert "@import" not in path.read_text(encoding="utf-8")

    def test_is_accessible(self) -> None:
        page = Page(render_match_report(report(comparisons=[("random", summarise_errors(torch.ones(2, 2), NAMES))])))
        assert page.all("html")[0]["lang"] == "en"
        assert len(page.all("h1")) == 1
        assert all(image["alt"] for image in page.all("img"))
        assert len(page.all("caption")) == len(page.all("table")) > 4
        assert all(cell["scope"] in ("col", "row") for cell in page.all("th"))
        identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(identities) == len(set(identities))
        assert {section["aria-labelledby"] for section in page.all("section")} == set(identities)

    def test_says_what_was_found(self) -> None:
        text = Page(render_match_report(report())).text
        for words in (
            "mind the gap",
            "8 points of 4 images measured, 0 missing",
            "SDR < 2.5 mm (%)",
            "2.png nasion",
            "bad.png cannot read bad.png: not an image",
            "images without reference 1 4.png",
            "Worst by error 3.png: MRE 1.75 mm 2.png: MRE 1.25 mm",
            "Best by error 0.png: MRE 0.25 mm 1.png: MRE 0.75 mm",
            "command medpixcl match",
        ):
            assert words in text, words

    def test_without_reference_there_is_no_error(self) -> None:
        text = Page(render_match_report(report(reference=False))).text
        assert "MRE" not in text
        assert "Worst by mean confidence 2.png: mean confidence 0.45" in text

    def test_folders_stay_out(self) -> None:
        page = render_match_report(report())
        assert "jane" not in page
        assert "/data" not in page.replace("data:image", "")

    def test_long_lists_are_cut(self) -> None:
        """Of very many images those are listed that need a look most; the page says that there are more."""
        flagged = [(f"image {n}", ["sella", "nasion"] if n % 2 else ["sella"]) for n in range(500)]
        rejected = [(f"bad {n}", "is no image") for n in range(300)]
        text = Page(render_match_report(report(flagged=flagged, rejected=rejected))).text
        assert "500 images with landmarks flagged as unsure; the 200 with most of them are listed" in text
        assert "image 399 sella, nasion" in text
        assert "image 401 " not in text
        assert "image 0 " not in text
        assert "300 images were not searched; the first 200 are listed, rejected.csv has all" in text
        assert "bad 200 " not in text

    def test_nearly_empty(self) -> None:
        empty = MatchReport(title="T", template_names=["t.png"], facts={}, landmark_table=[["landmark"]])
        page = Page(render_match_report(empty))
        assert page.all("img") == []
        assert "Examples" not in page.text

    def test_hostile_names_are_text(self) -> None:
        evil = '<script>alert("x")</script><img src=http://evil.example/a.png onerror=alert(1)>'
        page = Page(
            render_match_report(
                report(
                    title=evil,
                    template_names=[evil],
                    facts={evil: evil},
                    landmark_table=[[evil, evil], [evil, evil]],
                    best=[Picture(image=square(), caption=evil, alt=f'"{evil}')],
                    flagged=[(evil, [evil])],
                    rejected=[(evil, evil)],
                    warnings=[evil],
                    comparisons=[(evil + " [0, 1]", summarise_errors(torch.ones(2, 2), NAMES))],
                )
            )
        )
        assert page.all("script") == []
        assert all(image["src"].startswith("data:") and set(image) == {"src", "alt"} for image in page.all("img"))
        assert page.text.count(evil) >= 11


class TestPlanes:
    def page(self, **changes: object) -> Page:
        sheets = [Picture(image=square(), caption=f"volume {n}") for n in range(2)]
        return Page(render_match_report(report(**{"planes": sheets, "images": 5} | changes)))

    def test_one_to_unfold_for_each_image(self) -> None:
        page = self.page()
        assert [set(one) for one in page.all("details")] == [{"open"}, set()]
        assert "volume 0" in page.text
        assert "Shown: 2 of 5 images, those with the largest errors." in page.text
        assert "; beside them the template." in page.text

    def test_all_images_shown(self) -> None:
        assert "Shown:" not in self.page(images=2).text

    def test_without_volumes(self) -> None:
        assert self.page(planes=[]).all("details") == []

    def test_captions_are_text(self) -> None:
        evil = "</summary><script>alert(1)</script>"
        page = self.page(planes=[Picture(image=square(), caption=evil)])
        assert page.all("script") == []
        assert evil in page.text

    def test_large_pictures_keep_their_size_and_some_are_left_out(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (1500, 1200, 3), dtype=np.uint8)
        buffer = BytesIO()
        Image.fromarray(noise).save(buffer, "png", compress_level=1)
        sheets = [Picture(image=buffer.getvalue(), caption=f"volume {n}") for n in range(3)]
        page = self.page(planes=sheets)
        sources = [image["src"] for image in page.all("img") if image["alt"].startswith("volume")]
        assert 0 < len(sources) < 3
        assert sum(map(len, sources)) <= SHEET_BYTES
        assert f"Shown: {len(sources)} of 5 images" in page.text
        with Image.open(BytesIO(base64.b64decode(sources[0].split(",")[1]))) as picture:
            assert picture.size == (1200, 1500)

    def test_every_picture_can_be_enlarged(self) -> None:
        """By a switch and a style, without a script."""
        page = self.page()
        assert len(page.all("input")) == len(page.all("img"))
        assert all(one == {"type": "checkbox", "aria-label": "enlarge the picture"} for one in page.all("input"))


class TestPictures:
    def test_downsized(self) -> None:
        buffer = BytesIO()
        Image.new("RGB", (3000, 1000), "red").save(buffer, "png")
        text = render_match_report(report(plots=[Picture(image=buffer.getvalue(), caption="large")]))
        source = next(image["src"] for image in Page(text).all("img") if image["alt"] == "large")
        with Image.open(BytesIO(base64.b64decode(source.split(",")[1]))) as picture:
            assert picture.size == (800, 267)

    def test_many_large_pictures_still_make_a_small_page(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
        buffer = BytesIO()
        Image.fromarray(noise).save(buffer, "png", compress_level=1)
        pictures = [Picture(image=buffer.getvalue(), caption=str(index)) for index in range(4)]
        assert len(render_match_report(report(worst=pictures))) < 3_000_000


class TestMatchReport:
    def test_draws_only_what_is_shown(self) -> None:
        shown: list[str] = []
        match_report(
            title="",
            templates=[],
            images=IMAGES,
            names=["a"],
            scores=torch.tensor([[0.1], [0.2], [NAN], [0.4], [0.5]]),
            unsure=torch.zeros(5, 1, dtype=torch.bool),
            draw=lambda image: shown.append(image) or square(),
            facts={},
            cases=1,
        )
        assert shown == [IMAGES[0], IMAGES[4]]

    @pytest.mark.parametrize("reference", [False, True])
    def test_slices_of_the_worst_images(self, reference: bool) -> None:
        """By error, images without a reference last; without any by the number of unsure landmarks and confidence."""
        shown: list[str] = []
        truth = {image: {"a": (0.0, 0.0)} for image in IMAGES[:4]}
        found = {image: {"a": (float(n), 0.0)} for n, image in enumerate(IMAGES)}
        content = match_report(
            title="",
            templates=[],
            images=IMAGES,
            names=["a"],
            scores=torch.tensor([[0.1], [0.9], [0.5], [0.4], [0.2]]),
            unsure=torch.tensor([[False], [True], [True], [False], [False]]),
            draw=lambda _: square(),
            draw_planes=lambda image: shown.append(image) or square(),
            facts={},
            metrics=evaluate_positions(found, truth) if reference else None,
            sheets=5,
        )
        assert shown == [IMAGES[n] for n in ([3, 2, 1, 0, 4] if reference else [2, 1, 0, 4, 3])]
        assert content.images == 5
        assert content.planes[-1].caption == ("4.png" if reference else "3.png: mean confidence 0.40")

    def test_no_image_at_all(self) -> None:
        empty = match_report(
            title="",
            templates=[],
            images=[],
            names=["a"],
            scores=torch.zeros(0, 1),
            unsure=torch.zeros(0, 1, dtype=torch.bool),
            draw=lambda _: square(),
            facts={},
            rejected={"a.png": "empty"},
        )
        assert empty.best == empty.worst == []
        Page(render_match_report(empty))

    def test_shapes_must_fit(self) -> None:
        with pytest.raises(ValueError, match=r"expected 1 images x 2 landmarks"):
            match_report(
                title="",
                templates=[],
                images=["a"],
                names=NAMES,
                scores=torch.zeros(2, 2),
                unsure=torch.zeros(2, 2, dtype=torch.bool),
                draw=lambda _: square(),
                facts={},
            )

    def test_error_array(self) -> None:
        metrics = evaluate_positions({"a": {"x": (3.0, 4.0)}}, {"a": {"x": (0.0, 0.0)}})
        np.testing.assert_array_equal(error_array(metrics, ["b", "a"], ["y", "x"]), [[NAN, NAN], [NAN, 5.0]])

    def test_metrics_of_other_images(self) -> None:
        metrics = evaluate_positions({"other/a.png": {"x": (3.0, 4.0)}}, {"a.png": {"x": (0.0, 0.0)}})
        with pytest.raises(ValueError, match=r"1 images that are not reported, a.png among them"):
            error_array(metrics, ["a.png"], ["x"])

    @pytest.mark.parametrize(
        ("quality", "low", "high"),
        [([], [], []), ([1.0], [], [0]), ([2.0, 1.0], [1], [0]), ([3.0, 1.0, 4.0, 2.0, 5.0], [1, 3], [4, 2])],
    )
    def test_extremes(self, quality: list[float], low: list[int], high: list[int]) -> None:
        assert extremes(np.array(quality), count=2) == (low, high)
