"""Definitions of measurements, norms and classes, read from ``measurements.json``."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

UNITS = {"deg": "°", "mm": "mm", "%": "%"}


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Usual values of a measurement according to a source.

    Attributes:
        source: Publication and population of the norm.
        mean: Mean or ideal value.
        sd: Standard deviation between people; None if the source gives none.
        low: Lower end of the usual range.
        high: Upper end of the usual range.
    """

    source: str
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        spread = "" if self.sd is None else f" ± {self.sd:g}"
        middle = "" if self.mean is None else f"{self.mean:g}{spread}"
        limits = "" if self.low is None or self.sd is not None else f"{self.low:g} to {self.high:g}"
        return f"{middle} ({limits})" if middle and limits else middle or limits


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Definition of one measurement.

    Attributes:
        name: Short, unique name.
        group: Part of the face that the measurement belongs to.
        about: Description of the measured quantity.
        unit: Unit of the values: ``deg``, ``mm`` or ``%``.
        kind: Kind of computation, a key of :data:`medpixcl.landmarks.cephalometry.geometry.KINDS` or ``sum``.
        points: Landmarks that the computation takes, in its order; ``a&b`` is the midpoint of two landmarks.
        terms: Measurements added by a ``sum``, with their signs.
        norm: Usual values, None if no source was found.
        note: Remark that a reader of the value must know.
    """

    name: str
    group: str
    about: str
    unit: str
    kind: str
    points: tuple[str, ...] = ()
    terms: Mapping[str, int] = field(default_factory=dict)
    norm: Norm | None = None
    note: str = ""

    @property
    def landmarks(self) -> tuple[str, ...]:
        """Landmarks that the measurement needs, each once."""
        own = [name for point in self.points for name in point.split("&")]
        others = [name for term in self.terms for name in measurement(term).landmarks]
        return tuple(dict.fromkeys([*own, *others]))


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Division of a measurement into three classes; a value on a limit belongs to the middle class.

    Attributes:
        name: Unique name of the classification.
        measurement: Name of the measurement.
        bounds: Lower and upper limit of the middle class, in the unit of the measurement.
        labels: Labels of the lower, middle and upper class.
        source: Publication of the limits.
    """

    name: str
    measurement: str
    bounds: tuple[float, float]
    labels: tuple[str, str, str]
    source: str


@cache
def measurements() -> tuple[Measurement, ...]:
    """List all measurements, by group.

    Example:
        >>> [one.name for one in measurements()[:3]]
        ['SNA', 'SNB', 'ANB']
    """
    return tuple(_measurement(entry) for entry in read_table("measurements.json")["measurements"])


@cache
def classifications() -> tuple[Classification, ...]:
    """List all classifications."""
    entries = read_table("measurements.json")["classifications"]
    return tuple(
        Classification(**{**entry, "bounds": tuple(map(float, entry["bounds"])), "labels": tuple(entry["labels"])})
        for entry in entries
    )


def measurement(name: str) -> Measurement:
    """Look up a measurement by name.

    Raises:
        ValueError: If there is no measurement of that name.

    Example:
        >>> measurement("ANB").landmarks
        ('S', 'N', 'A', 'B')
    """
    for one in measurements():
        if one.name == name:
            return one
    raise ValueError(
        f"there is no measurement {name!r}; expected one of {', '.join(one.name for one in measurements())}."
    )


def read_table(name: str) -> Any:
    """Read a JSON file of this package."""
    return json.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def _measurement(entry: Mapping[str, Any]) -> Measurement:
    norm = Norm(**_with_floats(entry["norm"])) if "norm" in entry else None
    return Measurement(**{**entry, "points": tuple(entry.get("points", ())), "norm": norm})


def _with_floats(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float(value) if isinstance(value, int) else value for key, value in entry.items()}
