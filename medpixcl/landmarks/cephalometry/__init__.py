"""Cephalometry: lengths, angles and classes of a lateral cephalogram from its landmarks.

``measurements.json`` lists the measurements with their norms, the limits of the classes and the sources;
``landmarks.json`` lists the landmarks and their other names.
"""

from medpixcl.landmarks.cephalometry.agreement import (
    ClassAgreement,
    MeasurementAgreement,
    ReaderComparison,
    compare_classes,
    compare_measurements,
    compare_readers,
)
from medpixcl.landmarks.cephalometry.definitions import (
    Classification,
    Measurement,
    Norm,
    classifications,
    measurements,
)
from medpixcl.landmarks.cephalometry.intervals import OPEN, half_intervals, possible_classes
from medpixcl.landmarks.cephalometry.measuring import cephalometric_values, classify, deviations, why_not
from medpixcl.landmarks.cephalometry.roles import landmark_roles

__all__ = [
    "OPEN",
    "ClassAgreement",
    "Classification",
    "Measurement",
    "MeasurementAgreement",
    "Norm",
    "ReaderComparison",
    "cephalometric_values",
    "classifications",
    "classify",
    "compare_classes",
    "compare_measurements",
    "compare_readers",
    "deviations",
    "half_intervals",
    "landmark_roles",
    "measurements",
    "possible_classes",
    "why_not",
]
