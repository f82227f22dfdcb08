"""Components for MONAI's trainers and evaluators, to be named in bundle configurations."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
