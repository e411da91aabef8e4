"""The PyTorch backend, the only package that imports torch."""

import os

# How long OpenMP's threads spin for each other before they sleep. With the default, another program on one of two
# cores slows training from 6,900 to 850 images/s; with this value, to 2,100. On an idle machine nothing changes.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # torch reads it during import

# With fewer threads than it was given, PyTorch waits at its barriers for ever.
os.environ.pop("OMP_THREAD_LIMIT", None)
os.environ.pop("OMP_DYNAMIC", None)

from .classifier import PyTorchClassifier

__all__ = ["PyTorchClassifier"]
