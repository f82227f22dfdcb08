"""Exogenous channels and labels of the images of a scan."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

from medpixcl.data.examination import MapFile
from medpixcl.data.exogenous import ExogenousFiles
from medpixcl.data.manifest_paths import relative_path
from medpixcl.data.scan_grouping import ImageList
from medpixcl.data.scan_inputs import ScanInputs
from medpixcl.data.sources import Source


class ImageMaps:
    """Which files of the channels and labels belong to which image.

    Args:
        inputs: What is scanned.
        images: All images, also those that cannot be used, since a file may be theirs.

    Raises:
        ValueError: If several files of a channel fit an image.
    """

    def __init__(self, inputs: ScanInputs, images: ImageList) -> None:
        self._inputs = inputs
        self._roots = [*inputs.roots, inputs.folder]
        kinds = [*((one, "continuous") for one in inputs.channels), *((one, "categorical") for one in inputs.labels)]
        self._kinds = kinds
        found = [[(source.place, self._find(one, source)) for source in images] for one, _ in kinds]
        self._files = [dict(pairs) for pairs in found]
        self._users = [Counter(file for _, file in pairs) for pairs in found]

    def why_unusable(self, source: Source) -> str | None:
        """Explain why an image has no file of a channel for itself; None if it has all."""
        for (channel, _), files, users in zip(self._kinds, self._files, self._users, strict=True):
            file = files[source.place]
            if file is None:
                return f"has no {channel.what} {channel.name!r} in {channel.folder}; add its file."
            if (shared := users[file]) > 1:
                name = os.path.relpath(file, channel.folder)
                return (
                    f"is one of {shared} images whose {channel.what} {channel.name!r} could be {name}; give both the "
                    "same folders."
                )
        return None

    def of(self, source: Source) -> tuple[MapFile, ...]:
        """Maps of an image that has all of them."""
        if not self._kinds:
            return ()
        found = (
            (channel, files[source.place], kind)
            for (channel, kind), files in zip(self._kinds, self._files, strict=True)
        )
        return tuple(MapFile(channel.name, file, kind) for channel, file, kind in found if file)

    def named(self, maps: tuple[MapFile, ...]) -> dict[str, Any]:
        """What the entry of an image says of its maps."""
        inputs = self._inputs
        paths = [relative_path(one.path, inputs.base_dir) for one in maps]
        named: dict[str, Any] = {}
        if inputs.channels:
            named["exogenous"] = dict(zip([one.name for one in inputs.channels], paths, strict=False))
        if inputs.labels:
            labels = paths[len(inputs.channels) :]
            named["label"] = labels[0] if inputs.one_label_map else labels
        return named

    def _find(self, channel: ExogenousFiles, source: Source) -> Path | None:
        """File of an image; that of a resampled series may be named like the series."""
        if source.made_from is not None and (file := channel.find(source.made_from.place, self._roots)) is not None:
            return file
        return channel.find(source.place, self._roots)
