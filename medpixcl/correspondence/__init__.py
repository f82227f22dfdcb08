"""Correspondence of pixels and cells in two views: exact pixel pairs, and positives by position and exogenous channels.

Cells are positives if they are close in space (PixPro) and similar in exogenous channels (our extension). Everything
runs without gradient and in float32 or wider, also under autocast: a mask in half precision would be wrong. PixPro
defines the spatial mask (arXiv 2011.10043 and its published code). The depth-guided paper (arXiv 2211.10177) says that
a channel beside the image filters the positives further, but its equation was not available: the form of the filter,
its kinds, policies and combinations are a reconstruction of this package.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
