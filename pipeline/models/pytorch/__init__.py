"""The PyTorch backend, the only package that imports torch."""

from .classifier import PyTorchClassifier

__all__ = ["PyTorchClassifier"]
