"""Bundles that are taken where none is named: one for pictures, one for volumes."""

from collections.abc import Mapping

MATCHING = {2: "xray_landmark_matching", 3: "volume_landmark_matching"}
"""Matching bundle by the number of axes of the images."""
SELFTRAINING = {2: "xray_landmark_selftraining", 3: "volume_landmark_selftraining"}
"""Self-training bundle by the number of axes of the images; what it trained is found in it, too."""


def bundle_for(bundles: Mapping[int, str], dims: int | None) -> str:
    """Name of the bundle for images of so many axes; that for pictures where it is not known or there is no other."""
    return bundles.get(dims or 2, bundles[2])
