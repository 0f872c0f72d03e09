"""Backpropagation through whole networks agrees with central differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from nnctl.nn.activations import Activation, PReLU, Sigmoid, Softmax, Step, Tanh
from nnctl.nn.backprop import Backpropagation
from nnctl.nn.gradient_check import backpropagated_gradient
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import make_targets
from nnctl.nn.network import Network, Parameters
from nnctl.nn.types import Array
from tests.nn.helpers import (
    DIFFERENTIABLE,
    HIDDEN,
    PAIRS,
    differences,
    labels_of,
    normal,
    relative_error,
    small_network,
)

HIDDEN_DIFFERENTIABLE = [f for f in HIDDEN if f in DIFFERENTIABLE]
ALL_AT_ONCE = [f for f in HIDDEN if not isinstance(f, Step)]


def batch(units: int = 4, seed: int = 3) -> tuple[Array, Array]:
    labels = labels_of(7, max(2, units), seed)
    return normal(7, 6, seed=seed) / 2, make_targets(labels, units, np.float64)


def both_gradients(loss: str, network: Network) -> tuple[Parameters, Parameters]:
    """Return the gradient by backpropagation and by central differences."""
    function = make_loss(loss, network.layers[-1].activation)
    inputs, targets = batch(network.sizes[-1])
    reference = Parameters(network.sizes[0], network.layers, network.dtype)
    reference.vector[...] = differences(
        lambda: function.values(network.logits(inputs), targets).mean(), network.parameters.vector
    )
    return backpropagated_gradient(network, function, inputs, targets), reference


@pytest.mark.parametrize(
    ("loss", "layers", "units"),
    [
        *((loss, [Tanh(), PReLU(), output], 4) for loss, output in PAIRS),
        *(("cross_entropy", [f, f, f, Softmax()], 4) for f in HIDDEN_DIFFERENTIABLE),
        ("cross_entropy", [Softmax()], 4),
        ("cross_entropy", [Tanh(), Softmax()], 4),
        *(
            (loss, [Tanh(), PReLU(), Sigmoid(gain)], 1)
            for loss in ("cross_entropy", "quadratic")
            for gain in (1, 2)
        ),
        ("cross_entropy", [*ALL_AT_ONCE, Softmax()], 4),
    ],
    ids=str,
)
def test_backpropagation_computes_the_gradient(
    loss: str, layers: list[Activation], units: int
) -> None:
    backpropagated, reference = both_gradients(loss, small_network(layers, units))
    for actual, expected in (
        *zip(backpropagated.weights, reference.weights, strict=True),
        *zip(backpropagated.biases, reference.biases, strict=True),
        *zip(backpropagated.slopes, reference.slopes, strict=True),
    ):
        assert relative_error(actual, expected) < (1e-6 if len(layers) < 9 else 1e-5)
    smallest = min(float(np.linalg.norm(weights)) for weights in reference.weights)
    assert smallest > 1e-5 or any(isinstance(layer, Step) for layer in layers)


def test_no_layer_below_a_step_has_a_gradient() -> None:
    loss, examples = make_loss("cross_entropy", Softmax()), batch()
    for step, below in (
        (Step(), False),
        (Step(at_zero=1), False),
        (Step(surrogate="sigmoid"), True),
    ):
        network = small_network([Tanh(), step, Tanh(), Softmax()])
        gradient = backpropagated_gradient(network, loss, *examples)
        for layers in (gradient.weights, gradient.biases):
            assert [below, below, True, True] == [bool(layer.any()) for layer in layers]


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
def test_backpropagation_buffers_can_be_reused(hidden: Activation) -> None:
    network = small_network([hidden, hidden, Softmax()])
    loss = make_loss("cross_entropy", Softmax())
    gradient = Parameters(6, network.layers, np.float64)
    backprop, logits = Backpropagation(network, gradient, 7), np.empty((7, 4))
    for seed in (3, 4):
        network.parameters.vector *= -1
        inputs, targets = batch(seed=seed)
        loss.gradient(logits, backprop.forward(inputs, logits), targets, out=backprop.deltas[-1])
        backprop.output_deltas[...] /= 7
        backprop.backward(inputs)
        expected = backpropagated_gradient(network, loss, inputs, targets)
        np.testing.assert_array_equal(expected.vector, gradient.vector)


@dataclass(frozen=True)
class _WrongSigmoid(Sigmoid):
    """A sigmoid with the wrong derivative f instead of f (1 - f)."""

    def backward(self, z: Array, outputs: Array, errors: Array, out: Array) -> None:
        np.multiply(errors, outputs, out=out)


@pytest.mark.parametrize(
    ("output", "hidden"), [(Sigmoid(), _WrongSigmoid()), (_WrongSigmoid(), Sigmoid())]
)
def test_a_wrong_derivative_changes_the_gradient_visibly(
    output: Activation, hidden: Activation
) -> None:
    network = small_network([hidden, hidden, output])
    before = network.parameters.vector.copy()
    backpropagated, reference = both_gradients("quadratic", network)
    assert relative_error(backpropagated.vector, reference.vector) > 0.1
    np.testing.assert_array_equal(before, network.parameters.vector)
