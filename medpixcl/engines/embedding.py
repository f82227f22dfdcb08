"""Embeddings of whole images to disk, for use outside of this package."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ignite.engine import Engine, Events
from monai.data import decollate_batch

from medpixcl.engines.image_list import ImageList


class EmbeddingWriter:
    """Writes ``<image>.npz`` for every image that an evaluator embeds.

    Each file holds ``level_0``, ``level_1``, ... (float16 unit vectors, shape (E, *cells), finest first), ``strides``
    (pixels of the working image per cell), ``affine`` (voxel of the working image -> RAS+ mm) and ``shape`` (of the
    working image, before padding at its end to a multiple of the coarsest stride).

    Args:
        images: The images that the evaluator runs over.
        strides: Of the network's levels.
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
