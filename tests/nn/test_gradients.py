"""Backpropagation through whole networks against central differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from nnctl.nn.activations import Activation, Array, PReLU, Sigmoid, Softmax, Step, Tanh
from nnctl.nn.gradient_check import backpropagated_gradient
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import make_targets, one_hot
from nnctl.nn.network import Backpropagation, Network, Parameters
from tests.nn.helpers import (
    HIDDEN,
    PAIRS,
    TRUE,
    labels_of,
    make_network,
    normal,
    numerical_gradient,
    pytorch,
    relative_error,
)

STRAIGHT_THROUGH = Step(surrogate="sigmoid")
ALL_AT_ONCE = [f for f in HIDDEN if not isinstance(f, Step)]


def small_network(layers: Sequence[Activation], units: int = 4) -> Network:
    """Return a network of 6 inputs, 5 units a hidden layer, and outputs for as many classes."""
    return make_network([6, *[5] * (len(layers) - 1), units], layers)


def batch(units: int = 4, seed: int = 3) -> tuple[Array, Array]:
    """Return inputs and targets of 7 examples."""
    labels = labels_of(7, max(2, units), seed)
    return normal(7, 6, seed=seed) / 2, make_targets(labels, units, np.float64)


def both_gradients(loss: str, network: Network) -> tuple[Parameters, Parameters]:
    """Return the gradient of a network by backpropagation, and by differences."""
    function = make_loss(loss, network.layers[-1].activation)
    examples = batch(network.sizes[-1])
    return (
        backpropagated_gradient(network, function, *examples),
        numerical_gradient(network, function, *examples),
    )


def views(parameters: Parameters) -> list[Array]:
    """Return the weights, biases and learned parameters of every layer."""
    return [*parameters.weights, *parameters.biases, *parameters.learned]


@pytest.mark.parametrize("hidden", [f for f in HIDDEN if f in TRUE], ids=str)
@pytest.mark.parametrize(("loss", "output"), PAIRS, ids=str)
def test_backpropagation_finds_the_gradient(
    loss: str, output: Activation, hidden: Activation
) -> None:
    ours, reference = both_gradients(loss, small_network([Tanh(), hidden, output]))
    for actual, expected in zip(views(ours), views(reference), strict=True):
        assert relative_error(actual, expected) < 1e-6
    assert isinstance(output, Step) != (np.linalg.norm(reference.vector) > 1e-3)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("hidden", [f for f in HIDDEN if f in TRUE], ids=str)
def test_backpropagation_finds_the_gradient_at_any_depth(hidden: Activation, depth: int) -> None:
    network = small_network([hidden] * depth + [Softmax()])
    network.parameters.vector /= 2  # lest exponentials of exponentials explode
    ours, reference = both_gradients("cross_entropy", network)
    for actual, expected in zip(views(ours), views(reference), strict=True):
        assert relative_error(actual, expected) < 1e-6
    assert np.linalg.norm(reference.vector) > 1e-3


def test_backpropagation_goes_through_every_hidden_activation_at_once() -> None:
    ours, reference = both_gradients("cross_entropy", small_network([*ALL_AT_ONCE, Softmax()]))
    for actual, expected in zip(views(ours), views(reference), strict=True):
        assert relative_error(actual, expected) < 1e-5
    assert all(np.linalg.norm(weights) > 1e-5 for weights in reference.weights)


@pytest.mark.parametrize("gain", [1, 2])
@pytest.mark.parametrize("loss", ["cross_entropy", "quadratic"])
def test_backpropagation_finds_the_gradient_of_a_single_output(loss: str, gain: float) -> None:
    network = small_network([Tanh(), PReLU(), Sigmoid(gain)], units=1)
    ours, reference = both_gradients(loss, network)
    for actual, expected in zip(views(ours), views(reference), strict=True):
        assert relative_error(actual, expected) < 1e-6
    assert np.linalg.norm(reference.vector) > 1e-3


def test_nothing_below_a_step_has_a_gradient() -> None:
    loss, examples = make_loss("cross_entropy", Softmax()), batch()
    for step, below in ((Step(), False), (Step(at_zero=1), False), (STRAIGHT_THROUGH, True)):
        network = small_network([Tanh(), step, Tanh(), Softmax()])
        gradient = backpropagated_gradient(network, loss, *examples)
        for layers in (gradient.weights, gradient.biases):
            assert [below, below, True, True] == [bool(layer.any()) for layer in layers]


@pytest.mark.parametrize(
    "layers",
    [
        *([f, f, Softmax()] for f in HIDDEN),
        [STRAIGHT_THROUGH, *ALL_AT_ONCE, Softmax()],
    ],
    ids=lambda layers: f"{len(layers)} {layers[0]}",
)
def test_backpropagation_agrees_with_pytorch(layers: list[Activation]) -> None:
    oracles = [pytorch(f) for f in layers[:-1]]
    torch: Any = pytest.importorskip("torch")
    network, labels = small_network(layers), labels_of(7, 4)
    for f, slopes in zip(layers, network.parameters.learned, strict=True):
        slopes[...] = f.first_learned  # the oracle of a prelu has no others
    inputs, targets = normal(7, 6, seed=3) / 2, one_hot(labels, 4, np.float64)
    ours = backpropagated_gradient(network, make_loss("cross_entropy", Softmax()), inputs, targets)
    weights, biases = (
        [torch.tensor(view, requires_grad=True) for view in group]
        for group in (network.parameters.weights, network.parameters.biases)
    )
    a = torch.tensor(inputs)
    for f, w, b in zip([*oracles, torch.clone], weights, biases, strict=True):
        a = f(a @ w + b)
    torch.nn.functional.cross_entropy(a, torch.tensor(labels)).backward()
    for expected, actual in zip([*weights, *biases], [*ours.weights, *ours.biases], strict=True):
        np.testing.assert_allclose(expected.grad.numpy(), actual, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
def test_passes_can_be_used_again(hidden: Activation) -> None:
    network, loss = (
        small_network([hidden, hidden, Softmax()]),
        make_loss("cross_entropy", Softmax()),
    )
    gradient = Parameters(6, network.layers, np.float64)
    passes, logits = Backpropagation(network, gradient, 7), np.empty((7, 4))
    for seed in (3, 4):
        network.parameters.vector *= -1
        inputs, targets = batch(seed=seed)
        loss.errors(logits, passes.forward(inputs, logits), targets, out=passes.errors[-1])
        passes.errors[-1] /= 7
        passes.backward()
        passes.write_gradient(inputs)
        expected = backpropagated_gradient(network, loss, inputs, targets)
        np.testing.assert_array_equal(expected.vector, gradient.vector)


@dataclass(frozen=True)
class _WrongSigmoid(Sigmoid):
    """A sigmoid whose derivative forgets a factor."""

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        """f instead of f (1 - f)."""
        np.multiply(errors, outputs, out=out)


@pytest.mark.parametrize(
    ("output", "hidden"), [(Sigmoid(), _WrongSigmoid()), (_WrongSigmoid(), Sigmoid())]
)
def test_the_check_notices_a_wrong_derivative(output: Activation, hidden: Activation) -> None:
    ours, reference = both_gradients("quadratic", small_network([hidden, hidden, output]))
    assert relative_error(ours.vector, reference.vector) > 0.1


def test_the_numerical_gradient_puts_the_parameters_back() -> None:
    network = make_network([3, 2], ["softmax"])
    kept = network.parameters.vector.copy()
    loss = make_loss("cross_entropy", network.layers[-1].activation)
    numerical_gradient(network, loss, normal(4, 3), one_hot(labels_of(4, 2), 2, np.float64))
    np.testing.assert_array_equal(kept, network.parameters.vector)


def test_the_relative_error_is_measured_against_the_longer_gradient() -> None:
    assert relative_error(np.array([3.0, 4.0]), np.array([0.0, 0.0])) == 1
    assert relative_error(np.array([4.0]), np.array([5.0])) == pytest.approx(0.2)
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
