"""Backpropagation through whole networks against central differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nnctl.nn.activations import ACTIVATIONS, Activation, Array, Sigmoid
from nnctl.nn.gradient_check import (
    backpropagated_gradient,
    numerical_gradient,
    relative_error,
)
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import one_hot
from nnctl.nn.network import Parameters
from tests.nn.helpers import HIDDEN, PAIRS, labels_of, make_network, normal


def both_gradients(
    loss: str, output: Activation, hidden: Activation, depth: int
) -> tuple[Parameters, Parameters]:
    """Return the gradient of a small network by backpropagation, and by differences."""
    network = make_network([6, *[5] * depth, 4], [*[hidden] * depth, output])
    function = make_loss(loss, output)
    inputs, targets = normal(7, 6, seed=3), one_hot(labels_of(7, 4), 4, np.float64)
    return (
        backpropagated_gradient(network, function, inputs, targets),
        numerical_gradient(network, function, inputs, targets),
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize(("loss", "output"), PAIRS)
def test_backpropagation_finds_the_gradient(
    loss: str, output: str, hidden: str, depth: int
) -> None:
    """Of weights and of biases, in every layer."""
    ours, reference = both_gradients(loss, ACTIVATIONS[output](), ACTIVATIONS[hidden](), depth)
    assert np.linalg.norm(reference.vector) > 1e-3
    for views in ("weights", "biases"):
        for actual, expected in zip(getattr(ours, views), getattr(reference, views), strict=True):
            assert relative_error(actual, expected) < 1e-6


def test_backpropagation_agrees_with_pytorch() -> None:
    """An oracle that shares no code with the check."""
    torch = pytest.importorskip("torch")
    network = make_network([6, 5, 5, 4], ["sigmoid", "relu", "softmax"])
    inputs, labels = normal(7, 6, seed=3), labels_of(7, 4)
    loss = make_loss("cross_entropy", network.layers[-1].activation)
    ours = backpropagated_gradient(network, loss, inputs, one_hot(labels, 4, np.float64))
    (w1, w2, w3), (b1, b2, b3) = (
        [torch.tensor(view, requires_grad=True) for view in views]
        for views in (network.parameters.weights, network.parameters.biases)
    )
    z = torch.relu(torch.sigmoid(torch.tensor(inputs) @ w1 + b1) @ w2 + b2) @ w3 + b3
    torch.nn.functional.cross_entropy(z, torch.tensor(labels)).backward()
    for expected, actual in zip(
        (w1, w2, w3, b1, b2, b3), (*ours.weights, *ours.biases), strict=True
    ):
        np.testing.assert_allclose(expected.grad.numpy(), actual, rtol=0, atol=1e-14)


@dataclass(frozen=True)
class _WrongSigmoid(Sigmoid):
    """A sigmoid whose derivative forgets a factor."""

    def backward(self, outputs: Array, errors: Array) -> None:
        """f instead of f (1 - f)."""
        errors *= outputs


@pytest.mark.parametrize(
    ("output", "hidden"), [(Sigmoid(), _WrongSigmoid()), (_WrongSigmoid(), Sigmoid())]
)
def test_the_check_notices_a_wrong_derivative(output: Activation, hidden: Activation) -> None:
    """In a hidden layer, and in the output layer."""
    ours, reference = both_gradients("quadratic", output, hidden, depth=2)
    assert relative_error(ours.vector, reference.vector) > 0.1


def test_the_numerical_gradient_puts_the_parameters_back() -> None:
    """To the bit."""
    network = make_network([3, 2], ["softmax"])
    kept = network.parameters.vector.copy()
    loss = make_loss("cross_entropy", network.layers[-1].activation)
    numerical_gradient(network, loss, normal(4, 3), one_hot(labels_of(4, 2), 2, np.float64))
    np.testing.assert_array_equal(kept, network.parameters.vector)


def test_the_relative_error_is_measured_against_the_longer_gradient() -> None:
    """|g - r| / max(|g|, |r|), and 0 for two zeros."""
    assert relative_error(np.array([3.0, 4.0]), np.array([0.0, 0.0])) == 1
    assert relative_error(np.array([4.0]), np.array([5.0])) == pytest.approx(0.2)
    assert relative_error(np.zeros(2), np.zeros(2)) == 0
