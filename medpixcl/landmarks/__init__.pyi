from .pseudo import PseudoLandmarks as PseudoLandmarks
