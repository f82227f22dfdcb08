"""Non-medical source images for mix-up: procedural textures in 2D and 3D, or images of a folder."""

from medpixcl.data.textures.fields import gradient_noise, perlin_noise, power_noise
from medpixcl.data.textures.lifting import lift_picture
from medpixcl.data.textures.patterns import gabor_patches, two_nearest, warped_checkers, worley_cells
from medpixcl.data.textures.sources import PictureSources, ProceduralSources, draw_texture, skimage_pictures

__all__ = [
    "PictureSources",
    "ProceduralSources",
    "draw_texture",
    "gabor_patches",
    "gradient_noise",
    "lift_picture",
    "perlin_noise",
    "power_noise",
    "skimage_pictures",
    "two_nearest",
    "warped_checkers",
    "worley_cells",
]
