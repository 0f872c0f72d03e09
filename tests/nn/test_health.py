"""The health of layers that are made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnctl.nn.health import LayerHealth, measure_health
from tests.nn.helpers import make_network


def health_of(activation: str, weights: list[float], biases: list[float]) -> LayerHealth:
    """Return the health of one layer that sees the inputs 0 and 1."""
    network = make_network([1, len(biases)], [activation])
    network.parameters.vector[...] = weights + biases
    return measure_health(network, np.array([[0.0], [1.0]]))[0]


def test_a_unit_is_dead_that_is_0_for_every_example() -> None:
    """A unit that answers one example of two is alive."""
    health = health_of("relu", [1, -1, 0, 0], [0, 0, 3, -1])  # outputs 0 0 3 0 and 1 0 3 0
    assert LayerHealth(mean=7 / 8, std=math.sqrt(1.609375), dead=0.5, saturated=0) == health


def test_outputs_are_saturated_within_a_twentieth_of_the_bounds() -> None:
    """Of the range from bound to bound: 0.05 for the sigmoid, 0.1 for tanh."""
    near, far = np.array([0.04, 0.96, 0.999]), np.array([0.06, 0.5, 0.94])
    logits = [float(np.log(a / (1 - a))) for a in (*near, *far)]
    assert health_of("sigmoid", [0] * 6, logits).saturated == 0.5
    near, far = np.array([-0.91, 0.91, 0.999]), np.array([-0.89, 0, 0.89])
    arguments = np.arctanh([*near, *far]).tolist()
    assert health_of("tanh", [0] * 6, arguments).saturated == 0.5


@pytest.mark.parametrize("activation", ["relu", "linear", "softmax"])
def test_what_has_no_bounds_is_never_saturated(activation: str) -> None:
    """However large the outputs."""
    assert health_of(activation, [0, 0], [1e4, -1e4]).saturated == 0


def test_every_layer_is_measured_on_what_the_layer_before_gives_it() -> None:
    """From the first hidden layer to the output."""
    network = make_network([1, 2, 1], ["relu", "linear"])
    network.parameters.vector[...] = [1, -1, 2, 2, 0, 0, 1]  # hidden x and 0; output 2 x + 1
    first, second = measure_health(network, np.array([[0.0], [1.0], [2.0]]))
    assert (first.mean, first.dead) == (0.5, 0.5)
    assert (second.mean, second.dead) == (3, 0)
    assert second.std == pytest.approx(math.sqrt(8 / 3))
