"""Compute measurements from landmarks, their deviations from the norms, and classes."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medpixcl.landmarks.cephalometry.definitions import Measurement, classifications, measurement, measurements
from medpixcl.landmarks.cephalometry.geometry import KINDS, OUTLINE, SIDED, facing_of

Values = Float[Tensor, "n m"]


def cephalometric_values(points: Float[Tensor, "n k 2"], roles: Sequence[str | None]) -> Values:
    """Compute all measurements of N cephalograms.

    Angles do not depend on scale, and no value depends on how the face is turned or where it looks, which is found
    from the landmarks. See :mod:`medpixcl.landmarks.cephalometry.geometry` for the signs.

    Args:
        points: Landmarks in mm (pixels may be anisotropic), shape (N, K, 2) in any frame; NaN where missing.
        roles: Abbreviation of each of the K landmarks (``S``, ``N``, ``A``...), None for others; see
            :func:`~medpixcl.landmarks.cephalometry.roles.landmark_roles`.

    Returns:
        Values of shape (N, M), in the order and the units of
        :func:`~medpixcl.landmarks.cephalometry.definitions.measurements`; NaN where not computable, see
        :func:`why_not`.

    Raises:
        ValueError: If there is not one role per landmark.

    Example:
        >>> points = torch.tensor([[[0.0, 0.0], [70.0, 0.0], [62.0, 57.0]]])  # S, N, A
        >>> round(cephalometric_values(points, ["S", "N", "A"])[0, 0].item(), 1)  # SNA
        82.0
    """
    _require_one_role_each(points.shape[1], roles)
    places = _by_role(points, roles)
    facing = facing_of(torch.stack([places[name] for name in OUTLINE], dim=1))
    found: dict[str, Tensor] = {}
    for one in measurements():
        _evaluate(one, places, facing, found)
    return torch.stack([found[one.name] for one in measurements()], dim=1)


def why_not(points: Float[Tensor, "n k 2"], roles: Sequence[str | None]) -> list[list[str]]:
    """Explain why each of the M measurements of each cephalogram cannot be computed; empty where it can.

    Args:
        points: Landmarks in mm, shape (N, K, 2), NaN where missing.
        roles: Abbreviation of each of the K landmarks, None for others.
    """
    absent = cephalometric_values(points, roles).isnan().tolist()
    places = _by_role(points, roles)
    missing = {name: place.isnan().any(dim=1).tolist() for name, place in places.items()}
    side_known = (~facing_of(torch.stack([places[name] for name in OUTLINE], dim=1)).isnan()).tolist()
    return [
        [
            _reason(one, {name for name in one.landmarks if missing[name][number]}, side_known[number]) if gone else ""
            for one, gone in zip(measurements(), row, strict=True)
        ]
        for number, row in enumerate(absent)
    ]


def deviations(values: Values) -> Values:
    """Convert measurements to standard deviations above the norm's mean; NaN where the norm has none."""
    norms = [one.norm for one in measurements()]
    mean = values.new_tensor([torch.nan if norm is None or norm.mean is None else norm.mean for norm in norms])
    sd = values.new_tensor([torch.nan if norm is None or norm.sd is None else norm.sd for norm in norms])
    return (values - mean) / sd


def classify(values: Values) -> Int[Tensor, "n c"]:
    """Classify every cephalogram by every classification: 0, 1 or 2 (index into its labels), -1 where not computable.

    Example:
        >>> values = torch.full((1, len(measurements())), torch.nan)
        >>> values[0, 2] = 5.1  # ANB
        >>> classifications()[0].labels[classify(values)[0, 0]]
        'II'
    """
    names = [one.name for one in measurements()]
    classes = []
    for one in classifications():
        column = values[:, names.index(one.measurement)]
        low, high = one.bounds
        place = (column >= low).long() + (column > high).long()
        classes.append(place.where(~column.isnan(), -1))
    return torch.stack(classes, dim=1)


def point_of(point: str, places: Mapping[str, Tensor]) -> Tensor:
    """Value of a point of a definition: that of a landmark, or the mean of two (``a&b``)."""
    return torch.stack([places[name] for name in point.split("&")]).mean(dim=0)


def _require_one_role_each(count: int, roles: Sequence[str | None]) -> None:
    if len(roles) != count:
        raise ValueError(f"{count} landmarks come with {len(roles)} roles; expected one each (None for no role).")


def _by_role(points: Tensor, roles: Sequence[str | None]) -> dict[str, Tensor]:
    """Position (N, 2) of every landmark that any measurement needs, NaN where missing."""
    needed = {name for one in measurements() for name in one.landmarks} | {*OUTLINE}
    nowhere = points.new_full((len(points), 2), torch.nan)
    return {name: points[:, roles.index(name)] if name in roles else nowhere for name in needed}


def _evaluate(one: Measurement, places: dict[str, Tensor], facing: Tensor, found: dict[str, Tensor]) -> Tensor:
    """Value (N,) of a measurement, kept in ``found``."""
    if one.name not in found:
        if one.kind == "sum":
            terms = [sign * _evaluate(measurement(name), places, facing, found) for name, sign in one.terms.items()]
            found[one.name] = torch.stack(terms).sum(dim=0)
        else:
            found[one.name] = KINDS[one.kind]([point_of(point, places) for point in one.points], facing)
    return found[one.name]


def _reason(one: Measurement, missing: set[str], side_known: bool) -> str:
    if missing:
        names = ", ".join(name for name in one.landmarks if name in missing)
        return f"not computable: landmark{'s' if len(missing) > 1 else ''} {names} missing"
    if not side_known and _is_sided(one):
        return "not computable: the landmarks do not tell which way the face looks"
    return "not computable: two of its landmarks lie at the same place"


def _is_sided(one: Measurement) -> bool:
    return one.kind in SIDED or any(_is_sided(measurement(name)) for name in one.terms)
