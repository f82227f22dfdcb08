"""Compare landmark positions of two sources: pair their images and points, measure the errors, list the rest."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl.data.identity import named_images, pair_images
from medpixcl.landmarks.metrics import THRESHOLDS_MM, radial_errors, summarise_errors
from medpixcl.landmarks.points import in_plane
from medpixcl.landmarks.resampling import TIE_MM, named_means

NamedPositions = Mapping[str, Sequence[float] | None]
"""Landmark name to position in mm; ``None`` or NaN is a missing point."""


def evaluate_positions(
    predictions: Mapping[str, NamedPositions],
    reference: Mapping[str, NamedPositions],
    *,
    exclude: Collection[str] = (),
    thresholds: Sequence[float] = THRESHOLDS_MM,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare predicted with reference positions, image by image, and list whatever is on one side only.

    Images are paired by path (:func:`medpixcl.data.identity.pair_images`), landmarks by name.

    Args:
        predictions: Mapping from image (path) to landmark to position in mm.
        reference: Reference positions in the same form and frame.
        exclude: Keys or file names of images to leave out, above all the template.
        thresholds: SDR thresholds in mm.
        bootstrap: Number of resamples behind the intervals, see :func:`medpixcl.landmarks.metrics.summarise_errors`.
        seed: Random seed of the resampling.

    Returns:
        Statistics of :func:`medpixcl.landmarks.metrics.summarise_errors` for the reference landmarks of the paired
        images, and ``sdr_percent_missing_as_miss`` (a point without a prediction counts as not detected),
        ``per_image`` (``mre_mm`` and ``errors_mm`` by landmark), ``images_without_reference``,
        ``images_without_prediction``, ``landmarks_without_reference``, ``landmarks_without_prediction``,
        ``points_without_reference``, ``points_without_prediction`` (image to names), ``excluded``,
        ``exclude_not_found``.

    Raises:
        ValueError: If no image is on both sides, a file name stands for several images, or positions differ in length.
    """
    left_out, left_out_reference = named_images(exclude, predictions), named_images(exclude, reference)
    kept, kept_reference = _without(predictions, left_out), _without(reference, left_out_reference)
    pairs = pair_images(kept, kept_reference)
    if not pairs:
        raise ValueError(
            f"none of the {len(kept)} predicted images is among the {len(kept_reference)} reference images; "
            "expected the same paths on both sides, or file names without a folder."
        )
    guessed, given = [kept[image] for image in pairs], [kept_reference[image] for image in pairs.values()]
    names = list(dict.fromkeys(itertools.chain(*given)))
    found, expected = _stack(guessed, given, names)
    errors = radial_errors(found, expected)
    excluded = left_out_reference | left_out
    return {
        **summarise_errors(errors, names, thresholds=thresholds, bootstrap=bootstrap, seed=seed),
        "sdr_percent_missing_as_miss": _strict_rate(errors, ~expected.isnan().any(-1), thresholds),
        "images_without_reference": sorted(kept.keys() - pairs.keys()),
        "images_without_prediction": sorted(kept_reference.keys() - set(pairs.values())),
        "landmarks_without_reference": sorted(set(itertools.chain(*guessed)) - set(names)),
        "landmarks_without_prediction": sorted(set(names) - set(itertools.chain(*guessed))),
        "points_without_reference": _only_in(found, expected, list(pairs), names),
        "points_without_prediction": _only_in(expected, found, list(pairs), names),
        "excluded": sorted(set(excluded.values())),
        "exclude_not_found": sorted(entry for entry in exclude if entry not in excluded),
        "per_image": {image: _image_entry(row, names) for image, row in zip(pairs, errors, strict=True)},
    }


def _strict_rate(errors: Tensor, expected: Bool[Tensor, "n k"], thresholds: Sequence[float]) -> dict[str, Any]:
    rates = [100 * (errors < limit - TIE_MM)[expected].double().mean() for limit in thresholds]
    return named_means([0.0, *map(float, rates)], thresholds)["sdr_percent"]


def _without(side: Mapping[str, NamedPositions], left_out: Mapping[str, str]) -> dict[str, NamedPositions]:
    gone = set(left_out.values())
    return {key: points for key, points in side.items() if key not in gone}


def _stack(
    guessed: Sequence[NamedPositions], given: Sequence[NamedPositions], names: Sequence[str]
) -> tuple[Float[Tensor, "n k d"], Float[Tensor, "n k d"]]:
    """Positions of both sides as arrays, NaN where missing."""
    sides = [*guessed, *given]
    dims = min((len(point) for points in sides for point in points.values() if point is not None), default=2)
    lengths = {len(in_plane(point, dims)) for points in sides for point in points.values() if point is not None}
    if len(lengths) > 1:
        raise ValueError(f"found positions of {sorted(lengths)} coordinates; expected the same number everywhere.")
    shape = len(given), len(names), dims
    found, expected = torch.full((2, *shape), float("nan"), dtype=torch.float64)
    for array, side in ((found, guessed), (expected, given)):
        for image, points in enumerate(side):
            for index, name in enumerate(names):
                if (point := points.get(name)) is not None:
                    array[image, index] = torch.as_tensor(in_plane(point, dims), dtype=torch.float64)
    return found, expected


def _only_in(
    there: Float[Tensor, "n k d"], absent: Float[Tensor, "n k d"], images: Sequence[str], names: Sequence[str]
) -> dict[str, list[str]]:
    only = ~there.isnan().any(-1) & absent.isnan().any(-1)
    table = {image: [names[index] for index in row.nonzero()[:, 0]] for image, row in zip(images, only, strict=True)}
    return {image: listed for image, listed in table.items() if listed}


def _image_entry(errors: Float[Tensor, " k"], names: Sequence[str]) -> dict[str, Any]:
    values = {name: error for name, error in zip(names, errors.tolist(), strict=True) if error == error}
    return {"mre_mm": sum(values.values()) / len(values) if values else None, "errors_mm": values}
