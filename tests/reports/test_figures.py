from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from PIL import Image

from medpixcl.landmarks.metrics import summarise_errors
from medpixcl.reports.canvas import chart
from medpixcl.reports.figures import (
    confidence_against_error,
    error_curve,
    figure_to_array,
    figure_to_png,
    landmark_overlay,
    matched_views,
    save_png,
    similarity_maps,
)
from medpixcl.reports.markers import label_offsets, labels_and_key

NAN = float("nan")


def image_of(dims: int) -> torch.Tensor:
    return torch.rand((40, 32, 24)[:dims], generator=torch.Generator().manual_seed(0))


def drawn(figure: Figure, panel: int = 0) -> list[PathCollection]:
    return [item for item in figure.axes[panel].collections if isinstance(item, PathCollection)]


def numbers(figure: Figure, panel: int = 0) -> list[str]:
    return [item.get_text() for item in figure.axes[panel].texts if isinstance(item, Annotation)]


class TestLandmarkOverlay:
    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("reference", [False, True])
    def test_draws(self, dims: int, reference: bool) -> None:
        points = torch.tensor([[5.0, 6.0, 7.0], [20.0, 3.0, 4.0]])[:, :dims]
        names = ["a long name", "another"]
        figure = landmark_overlay(image_of(dims), points, reference=points + 1 if reference else None, names=names)
        panels = 1 if dims == 2 else 3
        assert len(figure.axes) == panels + 1
        assert all(numbers(figure, panel) == ["1", "2"] for panel in range(panels))
        assert "2  another" in figure.axes[-1].texts[0].get_text()
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend == ["predicted", "reference"][: 1 + reference]

    def test_points_stand_at_column_and_row(self) -> None:
        figure = landmark_overlay(image_of(2), np.array([[5.0, 6.0]]), reference=np.array([[8.0, 9.0]]))
        sure, rings, crosses = drawn(figure)
        assert sure.get_offsets().tolist() == [[6.0, 5.0]]
        assert len(rings.get_offsets()) == 0
        assert crosses.get_offsets().tolist() == [[9.0, 8.0]]

    def test_unsure_points_are_hollow(self) -> None:
        figure = landmark_overlay(image_of(2), np.array([[5.0, 6.0], [7.0, 8.0]]), unsure=[False, True])
        sure, rings = drawn(figure)
        assert sure.get_offsets().tolist() == [[6.0, 5.0]]
        assert rings.get_offsets().tolist() == [[8.0, 7.0]]
        assert len(sure.get_facecolors()) == 1
        assert len(rings.get_facecolors()) == 0
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["predicted", "predicted, unsure"]

    def test_points_of_a_reader_are_no_prediction(self) -> None:
        figure = landmark_overlay(image_of(2), np.array([[5.0, 6.0], [7.0, 8.0]]), corrected=[False, True])
        sure, rings, placed = drawn(figure)
        assert sure.get_offsets().tolist() == [[6.0, 5.0]]
        assert len(rings.get_offsets()) == 0
        assert placed.get_offsets().tolist() == [[8.0, 7.0]]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["predicted", "placed by a reader"]

    def test_missing_points(self) -> None:
        missing = np.array([[NAN, NAN], [7.0, 8.0]])
        assert numbers(landmark_overlay(image_of(2), missing)) == ["2"]
        assert numbers(landmark_overlay(image_of(2), missing, reference=np.ones((2, 2)))) == ["1", "2"]

    def test_template_has_a_reference_only(self) -> None:
        figure = landmark_overlay(image_of(2), np.full((1, 2), NAN), reference=np.ones((1, 2)))
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["reference"]

    def test_no_points(self) -> None:
        assert figure_to_array(landmark_overlay(image_of(2), np.zeros((0, 2)))).shape[0] == 3

    def test_dollar_signs_are_no_formula(self) -> None:
        figure = landmark_overlay(image_of(2), np.ones((1, 2)), names=["cost $\\frac{ $ of it"])
        figure_to_png(figure)

    def test_pixels_keep_their_proportions(self) -> None:
        figure = landmark_overlay(image_of(2), np.ones((1, 2)), spacing=(0.5, 1.0))
        figure.draw_without_rendering()
        box = figure.axes[0].get_window_extent()
        assert box.width / box.height == pytest.approx(32 / (40 * 0.5), rel=0.01)


class TestLabels:
    def test_crowded_labels_do_not_overlap(self) -> None:
        anchors = np.random.default_rng(0).uniform(100, 160, size=(19, 2))
        texts = [str(index + 1) for index in range(19)]
        offsets = label_offsets(anchors, texts, np.array([0.0, 0.0, 300.0, 300.0]), anchors, size=6.0)
        centres = anchors + np.array(offsets)
        half = np.array([[0.32 * 6 * len(text), 0.45 * 6] for text in texts])
        for a in range(19):
            for b in range(a):
                assert (np.abs(centres[a] - centres[b]) >= (half[a] + half[b]) - 1e-9).any(), (texts[a], texts[b])

    def test_corner_labels_stay_inside(self) -> None:
        frame = np.array([0.0, 0.0, 100.0, 100.0])
        corners = np.array([[1.0, 1.0], [99.0, 1.0], [1.0, 99.0], [99.0, 99.0]])
        centres = corners + np.array(label_offsets(corners, ["10"] * 4, frame, corners, size=6.0))
        assert ((centres > 3) & (centres < 97)).all()

    def test_short_names_need_no_key(self) -> None:
        assert labels_and_key(2, ["S", "N"]) == (["S", "N"], [])
        assert labels_and_key(2, None) == (["1", "2"], [])


class TestMatchedViews:
    @pytest.mark.parametrize("dims", [2, 3])
    def test_same_pixel_same_colour(self, dims: int) -> None:
        points = torch.tensor([[5.0, 6.0, 7.0], [20.0, 3.0, 4.0]])[:, :dims]
        figure = matched_views(image_of(dims), image_of(dims), points, points + 1, points + 2)
        (discs,), (crosses, rings) = drawn(figure, 0), drawn(figure, 1)
        np.testing.assert_array_equal(discs.get_facecolors(), rings.get_edgecolors())
        np.testing.assert_array_equal(discs.get_facecolors(), crosses.get_edgecolors())
        assert len({tuple(colour) for colour in discs.get_facecolors()}) == 2

    def test_a_volume_is_cut_through_its_middle(self) -> None:
        volume = torch.zeros(6, 5, 4)
        volume[1, 2, 0], volume[4, 3, 3] = 1, 9
        shown = np.asarray(
            matched_views(volume, volume, torch.ones(1, 3), torch.ones(1, 3)).axes[0].images[0].get_array()
        )
        assert np.argwhere(shown).tolist() == [[3, 4]], "i runs to the left, k upwards, and j is 2"

    def test_without_matches(self) -> None:
        figure = matched_views(image_of(2), image_of(2), torch.ones(1, 2), torch.ones(1, 2))
        assert len(drawn(figure, 1)) == 1


class TestSimilarityMaps:
    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("stride", [None, 4])
    def test_brightest_cell_lies_under_the_point(self, dims: int, stride: int | None) -> None:
        cell = [3, 4, 2][:dims]
        maps = torch.zeros(1, *[n // 4 for n in (40, 32, 24)[:dims]], dtype=torch.bfloat16)
        maps[(0, *cell)] = 1
        point = torch.tensor([[4 * index + 1.5 for index in cell]])
        axes = similarity_maps(image_of(dims), maps, point, stride=stride).axes[0]
        cells = axes.images[1]
        left, right, bottom, top = cells.get_extent()
        row, column = np.unravel_index(np.argmax(cells.get_array()), cells.get_array().shape)
        rows, columns = cells.get_array().shape
        place = [left + (column + 0.5) * (right - left) / columns, top + (row + 0.5) * (bottom - top) / rows]
        assert axes.collections[0].get_offsets()[0].tolist() == pytest.approx(place)

    def test_cells_beyond_a_padded_image(self) -> None:
        axes = similarity_maps(torch.rand(10, 10), torch.rand(1, 3, 3), stride=4).axes[0]
        assert axes.images[1].get_extent() == [-0.5, 11.5, 11.5, -0.5]
        assert axes.get_xlim() == (-0.5, 9.5)

    def test_one_panel_each(self) -> None:
        figure = similarity_maps(image_of(2), torch.rand(5, 4, 4))
        assert [axes.get_title() for axes in figure.axes] == list("12345")


class TestCharts:
    def test_error_curve_passes_through_the_sdr(self) -> None:
        errors = torch.tensor([[0.5, 2.0, 2.4], [NAN, 3.5, 20.0]])
        axes = error_curve(errors).axes[0]
        dots = {
            float(line.get_xdata()[0]): float(line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"
        }
        expected = summarise_errors(errors, ["a", "b", "c"])["sdr_percent"]
        assert {f"{x:g}": y for x, y in dots.items()} == pytest.approx(expected)
        steps = dict(zip(*axes.lines[0].get_data(), strict=True))
        assert steps[0.0] == 0
        assert steps[20.0] == 100

    def test_one_curve_per_method(self) -> None:
        figure = error_curve({"random": torch.ones(3), "trained $": torch.full((3,), NAN)})
        assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["random", "trained $"]
        figure_to_png(figure)

    def test_confidence_shows_each_measured_point_once(self) -> None:
        scores = torch.linspace(0, 1, 40).view(8, 5)
        errors = 5 - 4 * scores
        errors[0, 0] = NAN
        unsure = scores < 0.25
        axes = confidence_against_error(scores, errors, unsure=unsure).axes[0]
        sure, rings = axes.collections
        assert len(sure.get_offsets()) == int((~unsure).sum())
        assert len(rings.get_offsets()) == int(unsure.sum()) - 1
        medians = axes.lines[0].get_ydata()
        assert (np.diff(medians) < 0).all()

    def test_confidence_of_nothing(self) -> None:
        figure_to_png(confidence_against_error(torch.full((2, 2), NAN), torch.ones(2, 2)))


class TestOutput:
    def test_array_is_the_png(self) -> None:
        figure, axes = chart(xlabel="epoch", ylabel="loss")
        axes.plot([0, 1], [1.0, 0.5])
        array = figure_to_array(figure)
        with Image.open(BytesIO(figure_to_png(figure))) as picture:
            np.testing.assert_array_equal(array, np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
        assert array.flags["C_CONTIGUOUS"]

    def test_same_figure_same_bytes(self) -> None:
        one, other = (figure_to_png(error_curve(torch.ones(3))) for _ in range(2))
        assert one == other

    def test_save_makes_the_folder(self, tmp_path: Path) -> None:
        save_png(error_curve(torch.ones(3)), tmp_path / "new" / "curve.png")
        assert (tmp_path / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")

    def test_no_figure_stays_in_memory(self) -> None:
        """pyplot keeps what it makes until it is told to close it; a training run would fill up."""
        landmark_overlay(image_of(2), np.ones((1, 2)))
        error_curve(torch.ones(3))
        assert pyplot.get_fignums() == []
