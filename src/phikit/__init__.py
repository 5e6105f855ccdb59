"""phikit: the whole Phi-4 recipe as software. Importing this package imports no torch."""

__version__ = "0.1.0"
