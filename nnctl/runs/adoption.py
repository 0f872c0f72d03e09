"""A run of a network that was trained elsewhere, so that it can be evaluated and trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnctl.config import Document, Override
from nnctl.config.choices import write
from nnctl.errors import UsageError
from nnctl.nn.losses import make_loss
from nnctl.nn.network import Network
from nnctl.runs.directory import Run
from nnctl.runs.plan import Notify, find_dataset, resolve_config, settle
from nnctl.runs.training import TrainingRun


def save_network(
    network: Network,
    directory: Path,
    dataset: str,
    overrides: Sequence[Override] = (),
    *,
    notify: Notify,
) -> Run:
    """Write a network as a run before its first epoch.

    Parameters
    ----------
    network : Network
        With its parameters.
    directory : Path
        Of the run, new or empty.
    dataset : str
        What it was trained on.
    overrides : sequence of Override
        What else its configuration says.
    notify : callable
        Takes the events of a download.

    Raises
    ------
    ConfigError
        No such network can be trained on this dataset.
    UsageError
        It takes images of another size, or the directory is not empty.
    DataError
        The dataset cannot be had.
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
        "optimizer": {"learning_rate": 0.1},  # that of a training that goes on from here
    }
    asked = resolve_config(Document("the network", config), overrides)
    digits = find_dataset(asked.data, None, notify)
    pixels = digits.training.images.shape[1]
    if pixels != network.sizes[0]:
        raise UsageError(
            f"the images of {dataset} have {pixels} pixels; this network takes {network.sizes[0]}"
        )
    settled = settle(asked, digits, notify)
    run = Run.create_at(directory)
    TrainingRun.begin(run, settled, digits).adopt(network)
    return run


def _fitting_loss(network: Network) -> str:
    """Return the loss that is usual over the network's outputs."""
    try:
        make_loss("cross_entropy", network.layers[-1].activation)
    except ValueError:
        return "quadratic"
    return "cross_entropy"
