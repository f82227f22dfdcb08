"""Error radii of matched landmarks, for the table, the overlays and the comparison with a reference."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.landmarks.calibration import RadiusCalibration, coverage_of
from medpixcl.reports.match import error_array


class Radii:
    """Error radii of a calibration, or none.

    Args:
        path: File from ``medpixcl calibrate``; None for no radii.
        names: Names of the landmarks to match.
        digest: Digest of all that finds them: weights, templates and settings.

    Raises:
        ValueError: If the file is not a calibration of these landmarks and this digest.
    """

    def __init__(self, path: str | None, names: Sequence[str], digest: str = "") -> None:
        self.path = path
        self.calibration = None if path is None else RadiusCalibration.read(path)
        self.names = tuple(names)
        if self.calibration is not None and self.calibration.made_for != digest:
            raise ValueError(
                f"{path} was made for other weights, templates or settings; run medpixcl calibrate again with these"
            )
        self.of([""] * len(self.names))

    def of(self, flags: Sequence[str]) -> Float[Tensor, " k"] | None:
        """Radii in mm of one image's landmarks (K,), according to their flags; NaN where there is none."""
        return None if self.calibration is None else self.calibration.radii_of(self.names, flags)

    def stretched(self, factor: float) -> "Radii":
        """Copy with radii that are so many times as large."""
        other = copy.copy(self)
        other.calibration = None if self.calibration is None else self.calibration.stretched(factor)
        return other

    def measure(self, flags: Mapping[str, Sequence[str]], metrics: dict[str, Any] | None) -> dict[str, str]:
        """Text on the radii for the report; also adds the share of radii that hold the true position to the metrics.

        Args:
            flags: Flags of the landmarks, by image.
            metrics: Metrics of the same images; None without a reference.
        """
        if self.calibration is None:
            return {}
        meant = f"meant to hold {100 * self.calibration.coverage:g} % of the true places"
        if metrics is None:
            return {"circles": meant}
        errors = torch.from_numpy(error_array(metrics, list(flags), self.names))
        radii = torch.stack([self.calibration.radii_of(self.names, row) for row in flags.values()])
        share = coverage_of(errors, radii)
        metrics["radius_coverage"] = {"target": self.calibration.coverage, "measured": share}
        return {"circles": f"{meant}, hold {100 * share:.1f} %"}


def with_radii(rows: Sequence[dict[str, str]], radii_mm: Float[Tensor, " k"] | None) -> tuple[dict[str, str], ...]:
    """Add the column ``radius_mm`` to the rows of one image; without radii, return them unchanged."""
    if radii_mm is None:
        return tuple(rows)
    cells = ["" if radius != radius else f"{radius:.4f}" for radius in radii_mm.tolist()]
    return tuple(row | {"radius_mm": cell} for row, cell in zip(rows, cells, strict=True))
