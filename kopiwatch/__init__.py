"""kopiwatch: backs up Docker containers with Kopia because their labels say so."""

__version__ = "0.1.0"
