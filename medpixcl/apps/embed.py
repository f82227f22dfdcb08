"""Embeddings of whole images to disk, for use outside of this package."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from monai.data import decollate_batch

from medpixcl.apps.images import ImageList


class VectorWriter:
    """Writes one file with the vector of every image that an evaluator goes over.

    ``vectors.npz`` holds ``images`` (names) and ``vectors`` (float32, one row an image).

    Args:
        images: The images that the evaluator runs over.
        output_dir: Folder of the result.
    """

    def __init__(self, images: ImageList, output_dir: str) -> None:
        self.images, self.output_dir = images, Path(output_dir)
        self.vectors: dict[str, np.ndarray] = {}

    def attach(self, engine: Engine) -> None:
        """Collect, and write at the end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def __call__(self, engine: Engine) -> None:
        """Keep the vectors of this iteration."""
        batch = decollate_batch(engine.state.batch["image"])
        for image, vector in zip(batch, engine.state.output["pred"], strict=True):
            self.vectors[self.images.name(str(image.meta["filename_or_obj"]))] = vector.float().cpu().numpy()

    def write(self, engine: Engine) -> None:
        """Write the file."""
        self.output_dir.mkdir(parents=True, exist_ok=True)
        rows = np.stack(list(self.vectors.values()))
        np.savez(self.output_dir / "vectors.npz", images=list(self.vectors), vectors=rows)


class EmbeddingWriter:
    """Writes ``<image>.npz`` for every image that an evaluator embeds.

    Each file holds ``level_0``, ``level_1``, ... (float16 unit vectors, shape (E, *cells), finest first), ``strides``
    (pixels of the working image per cell), ``affine`` (voxel of the working image -> RAS+ mm) and ``shape`` (of the
    working image, before padding at its end to a multiple of the coarsest stride).

    Args:
        images: The images that the evaluator runs over.
        strides: Strides of the network's levels.
        output_dir: Folder of the results.
    """

    def __init__(self, images: ImageList, strides: Sequence[int], output_dir: str) -> None:
        self.images, self.strides, self.output_dir = images, list(strides), Path(output_dir)

    def attach(self, engine: Engine) -> None:
        """Write after every iteration."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the embeddings of this iteration."""
        for number, image in enumerate(decollate_batch(engine.state.batch["image"])):
            path = self.output_dir / f"{self.images.stem(str(image.meta['filename_or_obj']))}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            levels = {
                f"level_{level}": maps[number].half().cpu().numpy()
                for level, maps in enumerate(engine.state.output["pred"])
            }
            np.savez(path, **levels, strides=self.strides, affine=np.asarray(image.affine), shape=image.shape[1:])
