"""One picture of all landmarks of a volume: slices through each, those of a template beside them, to check by eye."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped

from medpixcl._typing import Array
from medpixcl.reports.canvas import DPI, NEUTRAL, SERIES, new_figure
from medpixcl.reports.cuts import Cut, MarkedVolume, cuts_through
from medpixcl.reports.markers import CORRECTED, PREDICTED, REFERENCE, labels_and_key, open_cross, rim
from medpixcl.reports.panels import as_array

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

TILE = 110
"""Pixels along each side of a slice."""
MOST = 100
"""Largest number of landmarks in one picture."""
NEAR = 0.05
"""Distance of the reference from the slices that show it, in sides of a slice."""
FOUND, PLACED, MARKED = "found", "placed by a reader", "reference or template"
_COLOURS = MappingProxyType({FOUND: PREDICTED, PLACED: CORRECTED, MARKED: REFERENCE})
_ACROSS = 12
"""Slices in a row of the picture."""
_GAP, _SPACE, _LINE = 2, 14, 20
"""Pixels between slices, between landmarks, and in height of a line of text."""
_LETTERS = 42
"""Letters that fit above three slices."""


@dataclass(frozen=True)
class _Layout:
    """Blocks of equal size, one for each landmark: a line of text above three slices, or above two times three."""

    blocks: int
    slices: int

    @property
    def across(self) -> int:
        """Blocks in a row."""
        return max(min(_ACROSS // self.slices, self.blocks), 1)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture in pixels."""
        right, last = self.corner(self.across - 1, self.slices)[0], self.corner(max(self.blocks - 1, 0), 0)[1]
        return max(right, 6 * TILE), last + TILE + _GAP

    def corner(self, block: int, place: int) -> tuple[int, int]:
        """Upper left corner (x, y) of a slice; those of the template stand a little apart."""
        row, column = divmod(block, self.across)
        left = column * (self.slices * (TILE + _GAP) + 2 * _SPACE) + place * (TILE + _GAP)
        return left + (_SPACE // 2 if place >= 3 else 0), 3 * _LINE + row * (TILE + _LINE)


@dataclass(frozen=True)
class _Tile:
    """A slice in the picture: its upper left corner (x, y), the voxels to mark by kind, and a region in mm^2."""

    corner: tuple[int, int]
    cut: Cut
    marks: dict[str, Float[np.ndarray, "3"]]
    region_mm2: Float[np.ndarray, "3 3"] | None = None


@dataclass(frozen=True)
class _Text:
    """A text that stands above a slice."""

    corner: tuple[int, int]
    text: str
    colour: str


def landmark_planes(
    found: MarkedVolume,
    names: Sequence[str],
    *,
    flags: Sequence[str] | None = None,
    reference: Shaped[Array, "k 3"] | None = None,
    regions_mm2: Shaped[Array, "k 3 3"] | None = None,
    templates: Sequence[MarkedVolume] = (),
) -> "matplotlib.figure.Figure":
    """Draw slices through every landmark, and through the same landmark of the first template that has it.

    All slices have the size ``found.side_mm``. Of more than ``MOST`` landmarks, flagged ones are drawn first.

    Args:
        found: The volume with the K landmarks found in it; a missing one is shown at its reference, if any.
        names: Names of the K landmarks.
        flags: Flag of each landmark, such as ``"unsure"`` or ``"corrected"``; empty for none.
        reference: Reference positions in voxels of the volume, shape (K, 3), NaN where missing; drawn in the slices
            that are within ``NEAR`` of them.
        regions_mm2: Region around each point along the array axes, shape (K, 3, 3), NaN for none, of which the slices
            show sections.
        templates: Annotated volumes, with landmarks in the order of ``names``.
    """
    words = list(flags or [""] * len(names))
    true = np.full_like(found.voxels, np.nan) if reference is None else as_array(reference)
    regions = [None] * len(names) if regions_mm2 is None else list(as_array(regions_mm2))
    labels = _labels(found, names, words, true)
    chosen = _chosen(words)
    layout = _Layout(len(chosen), 6 if templates else 3)
    tiles, texts = [], [_Text((0, _LINE), _headline(found, len(chosen), len(names)), "black")]
    for block, index in enumerate(chosen):
        corners = [layout.corner(block, place) for place in range(layout.slices)]
        tiles += _found_tiles(found, index, words[index], true[index], regions[index], corners)
        tiles += (beside := _template_tiles(templates, index, found.side_mm, corners[3:]))
        doubtful = words[index] not in ("", "corrected")
        texts.append(_Text(corners[0], labels[index], SERIES[1] if doubtful else "black"))
        texts += [_Text(corners[3], "template", NEUTRAL)] if beside else []
    return _drawn(layout, tiles, texts)


def _chosen(flags: Sequence[str]) -> list[int]:
    """Numbers of the landmarks to draw, in their order."""
    return sorted(sorted(range(len(flags)), key=lambda index: flags[index] in ("", "corrected"))[:MOST])


def _headline(found: MarkedVolume, drawn: int, count: int) -> str:
    some = f", {drawn} of {count} landmarks, flagged ones first" if drawn < count else ""
    return f"Axial, coronal and sagittal slices through each landmark, {found.side_mm:.3g} mm wide{some}"


def _labels(
    found: MarkedVolume, names: Sequence[str], flags: Sequence[str], reference: Float[np.ndarray, "k 3"]
) -> list[str]:
    """Number, name, flag and distance from the reference of each landmark; long names are shortened."""
    numbers, key = labels_and_key(len(names), names)
    errors = np.linalg.norm((found.voxels - reference) * found.spacing, axis=1)
    labels = []
    for title, flag, error in zip(key or numbers, flags, errors, strict=True):
        rest = "".join([f" · {flag}" if flag else "", "" if np.isnan(error) else f" · {error:.2f} mm off"])
        room = _LETTERS - len(rest)
        labels.append((title if len(title) <= room else title[: room - 1] + "…") + rest)
    return labels


def _found_tiles(
    found: MarkedVolume,
    index: int,
    flag: str,
    reference: Float[np.ndarray, "3"],
    region_mm2: Float[np.ndarray, "3 3"] | None,
    corners: Sequence[tuple[int, int]],
) -> list[_Tile]:
    """Slices of one landmark of the image that was searched; none if it has no position and no reference."""
    point = found.voxels[index]
    centre = reference if np.isnan(point).any() else point
    if np.isnan(centre).any():
        return []
    tiles = []
    for corner, cut in zip(corners, cuts_through(found, centre, side_mm=found.side_mm, pixels=TILE), strict=False):
        marks = {PLACED if flag == "corrected" else FOUND: point}
        marks |= {MARKED: reference} if cut.sides_away(reference) <= NEAR else {}
        tiles.append(_Tile(corner, cut, marks, region_mm2))
    return tiles


def _template_tiles(
    templates: Sequence[MarkedVolume], index: int, side_mm: float, corners: Sequence[tuple[int, int]]
) -> list[_Tile]:
    """Slices of one landmark of the first template that has it."""
    for template in templates:
        point = template.voxels[index]
        if not np.isnan(point).any():
            cuts = cuts_through(template, point, side_mm=side_mm, pixels=TILE)
            return [_Tile(corner, cut, {MARKED: point}) for corner, cut in zip(corners, cuts, strict=True)]
    return []


def _drawn(layout: _Layout, tiles: Sequence[_Tile], texts: Sequence[_Text]) -> "matplotlib.figure.Figure":
    """The picture, one pixel of a slice on one of the figure."""
    width, height = layout.size
    figure = new_figure(width / DPI, height / DPI)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    canvas = np.ones((height, width))
    for tile in tiles:
        (x, y), picture = tile.corner, tile.cut.panel.picture
        canvas[y : y + len(picture), x : x + len(picture)] = picture
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    _draw_letters(axes, tiles)
    _draw_regions(axes, tiles)
    _draw_marks(axes, tiles)
    for one in texts:
        x, y = one.corner
        axes.text(x, y - 5, one.text, fontsize=7, color=one.colour, parse_math=False)
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return figure


def _draw_marks(axes: "matplotlib.axes.Axes", tiles: Sequence[_Tile]) -> None:
    """Draw upright crosses where landmarks were found or placed, oblique ones where a reader marked them."""
    places = defaultdict(list)
    for tile in tiles:
        for kind, voxel in tile.marks.items():
            place = tile.cut.place(voxel)
            if np.all((place >= 0) & (place <= TILE - 1)):
                places[kind].append(tile.corner + place)
    for kind, some in places.items():
        x, y = np.stack(some, axis=1)
        style: dict[str, Any] = {"marker": open_cross(oblique=kind == MARKED), "path_effects": rim(1.1)}
        axes.scatter(x, y, s=50, edgecolors=_COLOURS[kind], facecolors="none", label=kind, **style)
    if places:
        at = 0.0, 1 - _LINE / axes.bbox.height
        axes.legend(
            loc="upper left", bbox_to_anchor=at, ncols=3, fontsize=7, frameon=False, borderpad=0, borderaxespad=0
        )


def _draw_regions(axes: "matplotlib.axes.Axes", tiles: Sequence[_Tile]) -> None:
    """Draw the outlines of the sections of the regions."""
    turns = np.linspace(0, 2 * np.pi, 73)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    for tile in tiles:
        point = tile.marks.get(FOUND, tile.marks.get(PLACED))
        if tile.region_mm2 is None or point is None or not np.isfinite(tile.region_mm2).all():
            continue
        outline = tile.cut.panel.section(tile.region_mm2[None])[0]
        line = tile.cut.place(point) + circle @ np.linalg.cholesky(outline).T
        line[((line < 0) | (line > TILE - 1)).any(axis=1)] = np.nan
        axes.plot(*(tile.corner + line).T, color=PREDICTED, linewidth=0.7)


def _draw_letters(axes: "matplotlib.axes.Axes", tiles: Sequence[_Tile]) -> None:
    """Draw the anatomical letters at the edges of the slices."""
    middle, near, far = TILE / 2, 5, TILE - 6
    places = defaultdict(list)
    for tile in tiles:
        edges = ((near, middle), (far, middle), (middle, near), (middle, far))
        for letter, edge in zip(tile.cut.panel.view.ends, edges, strict=False):
            places[letter].append(np.add(tile.corner, edge))
    for letter, some in places.items():
        x, y = np.stack(some, axis=1)
        axes.scatter(x, y, s=9, marker=f"${letter}$", c="white", linewidths=0.2, alpha=0.8)
