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


class Monitor:
    """Measures a network on the training set and on the test set, without dropout.

    Parameters
    ----------
    config : Config
        Configuration of the training.
    dataset : Dataset
        Dataset of the training.
    training : Examples
        Examples that the network is trained on.
    threads : int
        Number of threads.

    Raises
    ------
    DataError
        The test set cannot be read, or its images have another size.
    """

    def __init__(
        self, config: Config, dataset: Dataset, training: Examples, threads: int = 1
    ) -> None:
        self._config = config
        self._loss = make_loss(config.loss, config.network.layers[-1].activation)
        self._training = training
        self._threads = threads
        self._test: Examples | None = None
        if "test" in config.training.monitor:
            self._test = read_test_set(config, dataset)
            sizes = [examples.inputs.shape[1] for examples in (training, self._test)]
            if sizes[0] != sizes[1]:
                raise DataError(
                    f"training.monitor: the images of {dataset.name} have {sizes[0]} pixels in the "
                    f"training set, but {sizes[1]} in the test set"
                )

    def measure(self, network: Network) -> Monitored:
        """Return the figures of a network; None if a figure is not asked for or not finite."""
        names = self._config.training.monitor
        values: dict[str, float] = {}
        with np.errstate(over="ignore", invalid="ignore"):
            if "cost" in names or "train_accuracy" in names:
                loss, accuracy, _ = self._measure(network, self._training)
                if "cost" in names:
                    values["cost"] = loss + self._regularization(network)
                if "train_accuracy" in names:
                    values["train_accuracy"] = accuracy
            if self._test:
                values["test_loss"], values["test_accuracy"], _ = self._measure(network, self._test)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        return Monitored(**finite)

    def _measure(
        self, network: Network, examples: Examples
    ) -> tuple[float, float, list[float | None]]:
        return mean_loss_and_accuracies(network, self._loss, examples, self._threads)

    def _regularization(self, network: Network) -> float:
        """Return the terms of L2 and L1 regularization (Nielsen, chapter 3)."""
        optimizer = self._config.optimizer
        weights = network.parameters.decaying.astype(np.float64)
        squares, magnitudes = float(weights @ weights), float(np.abs(weights).sum())
        return optimizer.weight_decay / 2 * squares + optimizer.l1 * magnitudes
