"""Measures what ``training.monitor`` names; no decision of a training depends on it."""

from __future__ import annotations

import math

import numpy as np

from nnctl.config import Config
from nnctl.data.dataset import Dataset
from nnctl.errors import DataError
from nnctl.nn.events import Monitored
from nnctl.nn.examples import Examples
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import mean_loss_and_accuracies
from nnctl.nn.network import Network
from nnctl.runs.resolve import read_test_set


def read_monitored(config: Config, dataset: Dataset, training: Examples) -> Examples | None:
    """Return the test set if ``training.monitor`` names it, else None.

    Raises
    ------
    DataError
        The test set cannot be read, or its images have another size than the training examples.
    """
    if "test" not in config.training.monitor:
        return None
    test = read_test_set(config, dataset)
    sizes = [examples.inputs.shape[1] for examples in (training, test)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"training.monitor: the images of {dataset.name} have {sizes[0]} pixels in the "
            f"training set, but {sizes[1]} in the test set"
        )
    return test


def measure(
    config: Config, network: Network, training: Examples, test: Examples | None, threads: int = 1
) -> Monitored | None:
    """Return the figures of a network, without dropout; None without ``training.monitor``.

    A figure is None if it is not asked for or not finite.

    Parameters
    ----------
    config : Config
        Configuration of the training.
    network : Network
        Network to measure.
    training : Examples
        Examples that the network is trained on.
    test : Examples, optional
        Test set; see `read_monitored`.
    threads : int
        Number of threads.
    """
    names, loss = config.training.monitor, make_loss(config.loss, network.layers[-1].activation)
    if not names:
        return None
    values: dict[str, float] = {}
    with np.errstate(over="ignore", invalid="ignore"):
        if "cost" in names or "train_accuracy" in names:
            mean, accuracy, _ = mean_loss_and_accuracies(network, loss, training, threads)
            if "cost" in names:
                values["cost"] = mean + _regularization(config, network)
            if "train_accuracy" in names:
                values["train_accuracy"] = accuracy
        if test:
            mean, accuracy, _ = mean_loss_and_accuracies(network, loss, test, threads)
            values |= {"test_loss": mean, "test_accuracy": accuracy}
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return Monitored(**finite)


def _regularization(config: Config, network: Network) -> float:
    """Return the terms of L2 and L1 regularization (Nielsen, chapter 3)."""
    weights = network.parameters.decaying.astype(np.float64)
    squares, magnitudes = float(weights @ weights), float(np.abs(weights).sum())
    return config.optimizer.weight_decay / 2 * squares + config.optimizer.l1 * magnitudes
