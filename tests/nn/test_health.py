"""Health of layers with known weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnctl.nn.activations import Activation
from nnctl.nn.health import LayerHealth, Probe
from nnctl.nn.losses import make_loss
from nnctl.nn.network import Network, Parameters
from nnctl.nn.types import Array
from tests.nn.helpers import DEFAULTS, make_network, normal


def measure(network: Network, inputs: Array, step: float = 0.0) -> list[LayerHealth]:
    """Return the health of every layer for the quadratic loss with all targets 0."""
    targets = np.zeros((len(inputs), network.sizes[-1]))
    loss = make_loss("quadratic", network.layers[-1].activation)
    gradient = Parameters(network.sizes[0], network.layers, network.dtype)
    return Probe(network, loss, inputs, targets, gradient).measure(step)


def health_of(
    activation: str | Activation, weights: list[float], biases: list[float]
) -> LayerHealth:
    """Return the health of one layer with the inputs 0 and 1."""
    network = make_network([1, len(biases)], [activation])
    network.parameters.vector[...] = weights + biases
    return measure(network, np.array([[0.0], [1.0]]))[0]


def test_a_unit_whose_output_is_0_for_every_example_is_dead() -> None:
    health = health_of("relu", [1, -1, 0, 0], [0, 0, 3, -1])  # outputs 0 0 3 0 and 1 0 3 0
    assert (health.mean, health.dead, health.saturated) == (7 / 8, 0.5, 0)
    assert math.sqrt(1.609375) == health.std


def test_outputs_within_a_twentieth_of_the_bounds_are_saturated() -> None:
    near, far = np.array([0.04, 0.96, 0.999]), np.array([0.06, 0.5, 0.94])
    logits = [float(np.log(a / (1 - a))) for a in (*near, *far)]
    assert health_of("sigmoid", [0] * 6, logits).saturated == 0.5
    near, far = np.array([-0.91, 0.91, 0.999]), np.array([-0.89, 0, 0.89])
    arguments = np.arctanh([*near, *far]).tolist()
    assert health_of("tanh", [0] * 6, arguments).saturated == 0.5


@pytest.mark.parametrize("f", [f for f in DEFAULTS if f.place != "hidden"], ids=str)
def test_only_activations_with_bounds_saturate(f: Activation) -> None:
    expected = 1 if f.saturation else 0
    assert expected == health_of(f, [0, 0], [100, -100]).saturated


def test_every_layer_is_measured_on_the_outputs_of_the_previous_layer() -> None:
    network = make_network([1, 2, 1], ["relu", "linear"])
    network.parameters.vector[...] = [1, -1, 2, 2, 0, 0, 1]  # hidden x and 0; output 2 x + 1
    first, second = measure(network, np.array([[0.0], [1.0], [2.0]]))
    assert (first.mean, first.dead) == (0.5, 0.5)
    assert (second.mean, second.dead) == (3, 0)
    assert second.std == pytest.approx(math.sqrt(8 / 3))


@pytest.mark.parametrize("step", [0.0, 0.3])
def test_errors_and_updates_agree_with_the_textbook(step: float) -> None:
    network, inputs = make_network([4, 3, 3, 2], ["tanh", "relu", "linear"]), normal(5, 4)
    _, w2, w3 = weights = network.parameters.weights
    first, second, outputs = network.activations(inputs)
    upper = outputs  # dL/dz of (z - 0)² / 2
    middle = upper @ w3.T * (second > 0)
    lower = middle @ w2.T * (1 - first**2)
    errors = [math.sqrt((e**2).sum() / 5) for e in (lower, middle, upper)]
    gradient = [inputs.T @ lower / 5, first.T @ middle / 5, second.T @ upper / 5]
    updates = [
        np.linalg.norm(step * g) / np.linalg.norm(w) for g, w in zip(gradient, weights, strict=True)
    ]
    health = measure(network, inputs, step)
    assert errors == pytest.approx([layer.error for layer in health], rel=1e-12)
    assert updates == pytest.approx([layer.update_ratio for layer in health], rel=1e-12)
    ratios = [errors[0] / errors[1], errors[1] / errors[2]]
    assert ratios == pytest.approx([layer.error_ratio for layer in health[:2]], rel=1e-12)
    assert health[-1].error_ratio is None


def test_norms_do_not_overflow_if_the_numbers_are_finite() -> None:
    network = make_network([1, 2, 1], ["linear", "linear"], np.float32)
    network.parameters.vector[...] = [3e-3, 4e-3, 3e15, 4e15, 0, 0, 0]  # hidden the same as W
    with np.errstate(all="raise"):
        first, second = measure(network, np.ones((1, 1), np.float32), step=2)
    output = 25e12
    assert [5e15 * output, output] == pytest.approx([first.error, second.error])
    updates = [2 * 5e15 * output / 5e-3, 2 * 5e-3 * output / 5e15]
    assert updates == pytest.approx([first.update_ratio, second.update_ratio])


def test_no_gradient_passes_a_step() -> None:
    network = make_network([4, 3, 3, 2], ["tanh", "step", "linear"])
    *below, last = measure(network, normal(5, 4), step=0.3)
    assert [(one.error, one.error_ratio, one.update_ratio) for one in below] == [(0, 0, 0)] * 2
    assert min(last.error, last.update_ratio) > 0


def test_ratios_with_the_denominator_0_are_0() -> None:
    network = make_network([1, 1, 1], ["linear", "linear"])
    network.parameters.vector[...] = 0
    first, second = measure(network, np.ones((2, 1)), step=1)
    assert (first.error_ratio, first.update_ratio, second.update_ratio) == (0, 0, 0)
