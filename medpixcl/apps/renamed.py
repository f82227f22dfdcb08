"""Config ids renamed since earlier releases, so that a setting under an old id is refused."""

RENAMED = {
    "spacing_mm": "working_spacing_mm, the network's, or pixel_mm, that of pictures that do not say their own",
    "siamese": "wrapped",
    "mixed": "wrapped",
    "mixed_precision": "wrapped",
    "pixpro": "wrapped",
    "ema": "average",
    "intensity_range": "window",
}


def renamed_id(key: str) -> str | None:
    """New name of a config id, with its meaning if there are two; None if the id was never renamed.

    Args:
        key: Id as the user wrote it; for a nested id, such as ``siamese::bfloat16``, the outermost name counts.

    Example:
        >>> renamed_id("siamese::bfloat16"), renamed_id("max_epochs")
        ('wrapped', None)
    """
    return RENAMED.get(key.replace("#", "::").split("::")[0])
