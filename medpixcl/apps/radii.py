"""Error radii beside matched landmarks: in the table, in the overlays, against a reference."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.landmarks.calibration import RadiusCalibration, coverage_of
from medpixcl.reports.match import error_array


class Radii:
    """The radii of a calibration, or none.

    Args:
        path: File of ``medpixcl calibrate``; None for no radii.
        names: Names of the landmarks that are matched.

    Raises:
        ValueError: If the file is no calibration of these landmarks.
    """

    def __init__(self, path: str | None, names: Sequence[str]) -> None:
        self.calibration = None if path is None else RadiusCalibration.read(path)
        self.names = tuple(names)
        self.of([""] * len(self.names))

    def of(self, flags: Sequence[str]) -> Float[Tensor, " k"] | None:
        """Radii of one image's landmarks (K,) in mm by their flags, NaN where there is none."""
        return None if self.calibration is None else self.calibration.radii_of(self.names, flags)

    def with_column(self, rows: list[dict[str, str]], flags: Sequence[str]) -> list[dict[str, str]]:
        """Rows of one image with the column ``radius_mm``; without a calibration as they are."""
        radii = self.of(flags)
        if radii is None:
            return rows
        cells = ["" if radius != radius else f"{radius:.4f}" for radius in radii.tolist()]
        return [row | {"radius_mm": cell} for row, cell in zip(rows, cells, strict=True)]

    def measure(self, flags: Mapping[str, Sequence[str]], metrics: dict[str, Any] | None) -> dict[str, str]:
        """What the report says of the radii; the share that holds the reference's place goes to the metrics, too.

        Args:
            flags: Flags of every image's landmarks.
            metrics: Errors measured on these images; None without a reference.
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
