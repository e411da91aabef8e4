"""The PyTorch backend. The only package that imports torch."""

from .classifier import PyTorchClassifier

__all__ = ["PyTorchClassifier"]
