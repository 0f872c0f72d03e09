"""Train MNIST digit classifiers, and see why they learn or do not."""

__version__ = "0.1.0"
