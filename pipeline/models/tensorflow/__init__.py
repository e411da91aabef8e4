"""The TensorFlow backend, the only package that imports TensorFlow and Keras."""

from .classifier import TensorFlowClassifier

__all__ = ["TensorFlowClassifier"]
