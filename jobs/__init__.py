"""Digit classifiers trained by TensorFlow and by PyTorch as batch jobs, and their comparison."""

__version__ = "0.1.0"
