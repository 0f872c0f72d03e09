"""Saves a network that was trained elsewhere as a run, to evaluate it or continue its training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnctl.config import Document, Override
from nnctl.config.choices import write
from nnctl.errors import UsageError
from nnctl.nn.losses import make_loss
from nnctl.nn.network import Network
from nnctl.runs.resolve import Notify, find_dataset, resolve_auto, resolve_config
from nnctl.runs.run import Run
from nnctl.runs.training_run import TrainingRun


def save_network(
    network: Network,
    directory: Path,
    dataset: str,
    overrides: Sequence[Override] = (),
    *,
    notify: Notify,
) -> Run:
    """Save a network as a run that has no epoch yet, and return the run.

    Parameters
    ----------
    network : Network
        Network with its parameters.
    directory : Path
        Run directory, new or empty.
    dataset : str
        Name of the dataset that the network was trained on.
    overrides : sequence of Override
        Other settings of the run's configuration.
    notify : callable
        Receives the notices, such as the progress of a download.

    Raises
    ------
    ConfigError
        The network cannot be trained on this dataset.
    UsageError
        The network takes images of another size, or the directory is not empty.
    DataError
        The dataset is not available.
    """
    layers = network.layers
    config: dict[str, Any] = {
        "data": {"dataset": dataset},
        "network": {
            "layers": [
                {"units": layer.units, "activation": write(layer.activation)} for layer in layers
            ]
        },
        "loss": _fitting_loss(network),
        "optimizer": {"learning_rate": 0.1},  # used only if the run is trained further
    }
    requested = resolve_config(Document("the network", config), overrides)
    digits = find_dataset(requested.data, None, notify)
    pixels = digits.training.images.shape[1]
    if pixels != network.sizes[0]:
        raise UsageError(
            f"the images of {dataset} have {pixels} pixels; this network takes {network.sizes[0]}"
        )
    final = resolve_auto(requested, digits, notify)
    run = Run.create_at(directory)
    TrainingRun.create(run, final, digits).init_from_network(network)
    return run


def _fitting_loss(network: Network) -> str:
    """Return the loss that fits the output activation: cross-entropy where it is defined."""
    try:
        make_loss("cross_entropy", network.layers[-1].activation)
    except ValueError:
        return "quadratic"
    return "cross_entropy"
