"""Small trained runs of every activation."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.config.tables import write
from nnctl.data.dataset import open_dataset
from nnctl.nn.activations import (
    ACTIVATIONS,
    ELU,
    GELU,
    Activation,
    LeakyReLU,
    Maxout,
    PReLU,
    Sigmoid,
    Step,
    Swish,
)
from nnctl.nn.examples import scaled
from nnctl.nn.metrics import logits_of
from nnctl.nn.types import Array
from nnctl.runs.run import Run
from tests.runs.helpers import SMALL, begin, ignore, train

ALL: list[Activation] = [
    *(kind() for kind in dict.fromkeys(ACTIVATIONS.values())),
    Step(at_zero=1),
    Step(surrogate="sigmoid"),
    Sigmoid(2.5),
    LeakyReLU(0.3),
    LeakyReLU(0),
    PReLU(0.1),
    ELU(0.4),
    GELU("tanh"),
    Swish(1.7),
    Maxout(3),
]
"""Every activation, and some variants with other parameters."""

HIDDEN = [activation for activation in ALL if activation.place != "output"]
OUTPUT = [activation for activation in ALL if activation.place != "hidden"]


def named(activation: Activation) -> str:
    """Return an activation and its parameters as a test ID."""
    return str(write(activation)).translate(str.maketrans("", "", "{}' "))


def trained(layers: Sequence[Activation], position: str | None = None, **data: Any) -> Run:
    """Return a trained run with 20 units per hidden layer; it is cached between tests.

    With a position, the hidden layers have batch normalization there.
    """
    units = [20] * (len(layers) - 1) + [1 if "positive_digit" in data else 10]
    return _train(tuple(layers), tuple(units), position, tuple(data.items()))


@functools.cache
def _train(
    layers: tuple[Activation, ...],
    units: tuple[int, ...],
    position: str | None,
    data: tuple[tuple[str, Any], ...],
) -> Run:
    specified: list[dict[str, Any]] = [
        {"units": n, "activation": write(f)} for n, f in zip(units, layers, strict=True)
    ]
    if position:
        for layer in specified[:-1]:
            layer["batch_norm"] = {"position": position}
    cross_entropy = layers[-1].name in ("softmax", "sigmoid")
    bounded = (
        cross_entropy and layers[0].name != "exponential"
    )  # otherwise a learning rate of 0.2 diverges
    config = {
        **SMALL,
        "data": {**SMALL["data"], **dict(data)},
        "network": {"layers": specified},
        "loss": "cross_entropy" if cross_entropy else "quadratic",
        "optimizer": {"learning_rate": 0.2 if bounded else 0.02},
        "training": {"epochs": 2, "batch_size": 30, "seed": 3, "threads": 1},
    }
    directory = Path(_FOLDER.name) / f"run-{len(list(Path(_FOLDER.name).iterdir()))}"
    assert train(begin(directory, config)) == "finished"
    return Run.open(directory)


_FOLDER = tempfile.TemporaryDirectory()


@functools.cache
def images(dataset: str = "mini") -> Array:
    """Return all test images, scaled to 0..1."""
    return scaled(open_dataset(dataset, notify=ignore).test.inputs)


def answers(run: Run, pixels: Array) -> tuple[Array, Array]:
    """Return nnctl's logits and outputs."""
    network = run.network()
    logits = logits_of(network, pixels)
    return logits, network.outputs(logits)


def largest_difference(expected: Array, actual: Array) -> float:
    """Return the largest difference, relative to the largest output of an image if that is above 1.

    Sums in float32 are not more precise: nnctl's differ as much from sums in float64.
    """
    scale = np.maximum(1, np.abs(expected).max(axis=1, keepdims=True))
    return float((np.abs(expected.astype(np.float64) - actual) / scale).max())
