"""The gradient check accepts correct gradients and reports wrong ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nnctl.nn.activations import Activation, Sigmoid, Softmax, Step
from nnctl.nn.gradient_check import (
    GradientError,
    check_gradient,
    linearization_residuals,
    slopes_along,
)
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import make_targets
from nnctl.nn.network import Network
from nnctl.nn.types import Array
from tests.nn.helpers import DIFFERENTIABLE, HIDDEN, labels_of, make_network, normal, small_network

SMOOTH = [f for f in HIDDEN if f in DIFFERENTIABLE and not f.kinks and f.pieces == 1]


def check(network: Network, loss: str = "quadratic", samples: int = 10**6) -> list[GradientError]:
    """Return the gradient errors of all layers for seven examples."""
    labels = labels_of(7, max(2, network.sizes[-1]))
    return check_gradient(
        network,
        make_loss(loss, network.layers[-1].activation),
        normal(7, network.sizes[0], seed=3) / 2,
        make_targets(labels, network.sizes[-1], np.float64),
        samples=samples,
        rng=np.random.default_rng(0),
    )


@pytest.mark.parametrize("hidden", [f for f in HIDDEN if f in DIFFERENTIABLE], ids=str)
def test_correct_gradients_pass(hidden: Activation) -> None:
    network = small_network([hidden, hidden, Softmax()])
    errors = check(network, "cross_entropy")
    assert [error.layer for error in errors] == [1, 2, 3]
    assert max(error.largest for error in errors) < 1e-6
    parameters = network.parameters
    for i, error in enumerate(errors):
        views = (parameters.weights[i], parameters.biases[i], parameters.slopes[i])
        assert sum(view.size for view in views) == error.checked + error.skipped
        assert error.checked > error.skipped * 9


@dataclass(frozen=True)
class _Wrong(Sigmoid):
    """A sigmoid whose derivative is wrong by 0.1 %."""

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        super().backward(z, outputs, errors, out)
        out *= 1.001


@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_a_wrong_derivative_shows_in_its_layer_and_all_layers_below(wrong: int) -> None:
    layers = [_Wrong() if layer == wrong else Sigmoid() for layer in (1, 2, 3)]
    largest = [error.largest for error in check(small_network(layers))]
    assert [1e-3] * wrong == pytest.approx(largest[:wrong], rel=0.1)
    assert all(error < 1e-6 for error in largest[wrong:])


def test_parameters_whose_step_crosses_a_kink_are_skipped_and_counted() -> None:
    network = make_network([1, 1, 1], ["relu", "linear"])
    network.parameters.vector[...] = [0, 2, 0, 1]
    first, second = check(network)
    assert (first.largest, first.checked, first.skipped) == (0.0, 0, 2)
    assert (second.checked, second.skipped) == (2, 0)
    network.parameters.biases[0][...] = 1e-3  # a step of the bias does not cross the kink
    assert check(network)[0].checked > 0


def test_samples_is_the_number_of_parameters_chosen_from_each_array() -> None:
    errors = check(small_network(["prelu", "linear"]), samples=3)
    assert [error.checked + error.skipped for error in errors] == [9, 6]


def test_all_parameters_are_restored() -> None:
    network = small_network(["prelu", "maxout", "softmax"])
    before = network.parameters.vector.tobytes()
    check(network)
    assert before == network.parameters.vector.tobytes()
    linearization_residuals(network, normal(1, 6), np.random.default_rng(0))
    slopes_along(network, normal(1, 6), np.ones(len(network.parameters.vector)))
    assert before == network.parameters.vector.tobytes()


@pytest.mark.parametrize("hidden", SMOOTH, ids=str)
def test_halving_the_change_divides_the_residual_by_four(hidden: Activation) -> None:
    network = small_network([hidden, hidden, "softmax"])
    lengths, residuals = zip(
        *linearization_residuals(network, normal(1, 6), np.random.default_rng(0), halvings=5),
        strict=True,
    )
    longest = 1e-3 * np.linalg.norm(network.parameters.vector)
    assert [longest / 2**i for i in range(6)] == pytest.approx(lengths)
    assert pytest.approx([residuals[i] / residuals[i + 1] for i in range(5)], rel=0.05) == [4.0] * 5


@pytest.mark.parametrize("layers", [["linear"], ["step", "linear"]], ids=str)
def test_outputs_that_are_linear_in_the_weights_have_no_residual(
    layers: list[str],
) -> None:
    network = small_network(layers)
    residuals = linearization_residuals(network, normal(1, 6), np.random.default_rng(0))
    assert max(residual for _, residual in residuals) < 1e-14


@pytest.mark.parametrize("hidden", [f for f in HIDDEN if f in DIFFERENTIABLE], ids=str)
@pytest.mark.parametrize("output", ["softmax", "tanh"])
def test_slopes_along_a_direction_agree_with_central_differences(
    hidden: Activation, output: str
) -> None:
    network, inputs = small_network([hidden, output]), normal(1, 6, seed=3)
    vector = network.parameters.vector
    original, direction_of_all = vector.copy(), normal(vector.size, seed=4)
    direction_of_first = np.where(np.arange(vector.size) < 30, direction_of_all, 0)
    for direction in (direction_of_all, direction_of_first):
        vector[...] = original + 1e-6 * direction
        above = network.activations(inputs)[-1][0]
        vector[...] = original - 1e-6 * direction
        differences = (above - network.activations(inputs)[-1][0]) / 2e-6
        vector[...] = original
        slopes = slopes_along(network, inputs, direction)
        np.testing.assert_allclose(differences, slopes, rtol=1e-5, atol=1e-8)
    assert isinstance(hidden, Step) != bool(np.abs(slopes).max() > 1e-6)


def test_gradients_that_are_not_finite_have_an_infinite_error() -> None:
    network = small_network(["linear", "linear"])
    network.parameters.vector.fill(1e200)
    with np.errstate(all="ignore"):
        assert check(network)[0].largest == np.inf
