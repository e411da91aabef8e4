"""The TensorFlow backend. The only package that imports TensorFlow."""

from .classifier import TensorFlowClassifier

__all__ = ["TensorFlowClassifier"]
