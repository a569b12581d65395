"""Keep what matters."""

__version__ = "0.1.0"
