"""Parameter vectors, forward passes, predicted classes, and parts of a batch."""

from __future__ import annotations

import numpy as np
import pytest

from nnctl.nn.activations import (
    Activation,
    Maxout,
    PReLU,
    Sigmoid,
    Softmax,
    Step,
    Swish,
    Tanh,
)
from nnctl.nn.backprop import Backpropagation
from nnctl.nn.network import Layer, Parameters, count_parameters
from tests.nn.helpers import HIDDEN, make_network, normal


def test_the_vector_contains_weights_then_biases_then_learned_slopes() -> None:
    layers = [Layer(3, PReLU()), Layer(2, Maxout(pieces=3)), Layer(5, Softmax())]
    weights, biases, learned = 4 * 3 + 3 * 6 + 2 * 5, 3 + 6 + 5, 3
    size = weights + biases + learned
    parameters = Parameters(4, layers)
    parameters.vector[...] = np.arange(size)
    assert size == count_parameters(4, layers) == parameters.vector.size
    views = [*parameters.weights, *parameters.biases, *parameters.slopes]
    shapes = [(4, 3), (3, 6), (2, 5), (3,), (6,), (5,), (3,), (0,), (0,)]
    assert shapes == [view.shape for view in views]
    np.testing.assert_array_equal(np.arange(size), np.concatenate([v.ravel() for v in views]))
    np.testing.assert_array_equal(np.arange(weights), parameters.decaying)
    np.testing.assert_array_equal(np.arange(weights + biases), parameters.affine)


def test_parameters_have_a_dtype_and_views_that_write_to_the_vector() -> None:
    parameters = Parameters(2, [Layer(1, PReLU())], np.float64)
    parameters.weights[0][1, 0] = 5
    parameters.biases[0][0] = 7
    parameters.slopes[0][0] = 9
    parameters.decaying *= 2
    parameters.affine += 1
    assert parameters.vector.tolist() == [1, 11, 8, 9]
    assert parameters.vector.dtype == np.float64
    assert Parameters(2, [Layer(1, PReLU())]).vector.dtype == np.float32


def test_a_network_computes_f_of_x_w_plus_b_layer_by_layer() -> None:
    network = make_network([4, 3, 2, 5], [PReLU(), Maxout(pieces=3), "softmax"])
    (w1, w2, w3), (b1, b2, b3) = network.parameters.weights, network.parameters.biases
    inputs, slopes = normal(6, 4), network.parameters.slopes[0]
    slopes[...] = [-1, 0.5, 3]
    z = inputs @ w1 + b1
    first = np.where(z > 0, z, slopes * z)
    pieces = [first @ w2[:, i : i + 2] + b2[i : i + 2] for i in (0, 2, 4)]
    second = np.maximum.reduce(pieces)
    logits = second @ w3 + b3
    outputs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    actual = [*network.activations(inputs), network.logits(inputs), network.outputs(logits)]
    for expected, array in zip([first, second, outputs, logits, outputs], actual, strict=True):
        np.testing.assert_allclose(expected, array, rtol=1e-12)


@pytest.mark.parametrize("f", HIDDEN, ids=str)
def test_training_and_evaluation_compute_the_same_outputs(f: Activation) -> None:
    network = make_network([4, 3, 3, 2], [f, f, "softmax"])
    gradient = Parameters(4, network.layers, network.dtype)
    backprop, inputs, logits = Backpropagation(network, gradient, 5), normal(5, 4), np.empty((5, 2))
    outputs = backprop.forward(inputs, logits)
    np.testing.assert_array_equal(network.outputs(logits), outputs)
    np.testing.assert_array_equal(network.logits(inputs), logits)
    for expected, actual in zip(network.activations(inputs), backprop.outputs, strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_as_float64_returns_a_copy() -> None:
    network = make_network([4, 3, 2, 2], [PReLU(), Maxout(), "softmax"], np.float32)
    inputs, original = normal(5, 4), network.parameters.vector.copy()
    copy = network.as_float64()
    assert copy.dtype == np.float64
    np.testing.assert_array_equal(original, copy.parameters.vector)
    np.testing.assert_allclose(
        copy.logits(inputs), network.logits(inputs.astype(np.float32)), rtol=1e-4, atol=1e-5
    )
    copy.parameters.vector += 1
    np.testing.assert_array_equal(original, network.parameters.vector)
    np.testing.assert_array_equal(original.astype(np.float64) + 1, copy.parameters.vector)


@pytest.mark.parametrize(
    ("output", "logits", "expected"),
    [
        ("sigmoid", [-30, -20, -25], 1),
        ("softmax", [1e4, 0, 2e4], 2),
        ("tanh", [50, 70, 60], 1),  # all outputs are 1
        ("relu", [-3, -2, -1], 2),  # all outputs are 0
        ("step", [1, 3, 2], 1),  # all outputs are 1
        ("swish", [-10, -1, -2], 0),  # outputs -0.0005, -0.27, -0.24
        ("gelu", [-2, -1, -4], 2),  # outputs -0.05, -0.16, -0.0001
        ("swish", [-10, 3, 2], 1),
    ],
)
def test_the_unit_with_the_largest_output_is_the_predicted_class(
    output: str, logits: list[float], expected: int
) -> None:
    network = make_network([4, 3], [output])
    assert [expected] * 2 == network.predict_classes(np.array([logits] * 2, np.float64)).tolist()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Sigmoid(), [0, 0, 1, 1, 1]),
        (Sigmoid(gain=3), [0, 0, 1, 1, 1]),
        (Step(), [0, 0, 0, 1, 1]),
        (Step(at_zero=1), [0, 0, 1, 1, 1]),
        (Tanh(), [0, 0, 0, 0, 1]),
        (Swish(), [0, 0, 0, 0, 1]),
    ],
    ids=str,
)
def test_a_single_unit_predicts_1_from_an_output_of_one_half(
    output: Activation, expected: list[int]
) -> None:
    network, z = make_network([4, 1], [output]), np.array([[-2], [-1e-9], [0], [1e-9], [2]])
    assert expected == network.predict_classes(z).tolist()
    assert network.predict_classes(z).dtype == np.int64
