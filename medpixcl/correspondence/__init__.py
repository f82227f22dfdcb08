"""Which cells of two views are positives: near in space (PixPro), and alike in exogenous channels (our extension).

Everything here is without gradient and in float32 or wider, also under autocast: a mask in half precision is wrong.
What is PixPro's: the spatial mask (arXiv 2011.10043, and its published code). What is the depth-guided paper's (arXiv
2211.10177): that a channel beside the image filters the positives further; its equation was not available. The form
given to the filter here, its kinds, policies and combinations are a reconstruction of this package.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
