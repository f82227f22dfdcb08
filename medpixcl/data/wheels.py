"""Data of the demos that travel in somebody's wheel: installed with pip, found and checked, never imported."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class DataWheel:
    """Wheel that is installed for the data in it.

    Args:
        name: Name of the distribution.
        holds: What the demo takes from it, for messages.
        install: What to do where it is missing, such as "run `pip install ...`".
        checksums: SHA-256 of the files to take, by file name.
    """

    name: str
    holds: str
    install: str
    checksums: Mapping[str, str]

    def locate(self) -> dict[str, Path]:
        """Find the files of the installed wheel, by file name.

        Raises:
            FileNotFoundError: If the wheel is not installed or lacks a file.
            ValueError: If a file is another one than expected (SHA-256).
        """
        try:
            files = metadata.files(self.name) or []
        except metadata.PackageNotFoundError:
            raise FileNotFoundError(f"{self.holds} with the wheel of {self.name}: {self.install}") from None
        found = {file.name: Path(str(file.locate())) for file in files if file.name in self.checksums}
        for name in self.checksums:
            if name not in found or not found[name].is_file():
                raise FileNotFoundError(f"the installed {self.name} holds no {name}: {self.install}")
            self._check(found[name])
        return found

    def _check(self, path: Path) -> None:
        """Compare the checksum of a file with the expected one."""
        with path.open("rb") as stream:
            digest, expected = hashlib.file_digest(stream, "sha256").hexdigest(), self.checksums[path.name]
        if digest != expected:
            raise ValueError(
                f"{path.name} of the installed {self.name} has SHA-256 {digest}, expected {expected}: {self.install}"
            )
