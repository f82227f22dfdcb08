"""One-shot landmark matching: the landmarks of an annotated template, found in other images by their embeddings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
