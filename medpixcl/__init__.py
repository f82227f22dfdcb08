"""Pixel-level self-supervised pretraining and few-shot landmark detection for medical images, on MONAI.

The front door: every name is loaded when it is first used, so that ``import medpixcl`` costs next to nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
