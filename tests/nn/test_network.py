"""Parameters in one vector, and the passes that need no gradient."""

from __future__ import annotations

import numpy as np

from nnctl.nn.network import Parameters, count_parameters
from tests.nn.helpers import make_network, normal


def test_parameters_are_one_vector_with_all_weights_before_all_biases() -> None:
    """A checkpoint is one array, and what decays is one slice."""
    parameters = Parameters([4, 3, 2])
    parameters.vector[...] = np.arange(23)
    assert count_parameters([4, 3, 2]) == 4 * 3 + 3 + 3 * 2 + 2 == parameters.vector.size
    views = [view.ravel() for view in (*parameters.weights, *parameters.biases)]
    np.testing.assert_array_equal(np.arange(23), np.concatenate(views))
    np.testing.assert_array_equal(np.arange(18), parameters.decaying)
    assert [weights.shape for weights in parameters.weights] == [(4, 3), (3, 2)]


def test_views_write_to_the_vector() -> None:
    """Weights, biases and the decaying slice are no copies."""
    parameters = Parameters([2, 1])
    parameters.weights[0][1, 0] = 5
    parameters.biases[0][0] = 7
    parameters.decaying *= 2
    assert parameters.vector.tolist() == [0, 10, 7]


def test_a_network_computes_f_of_x_w_plus_b_layer_by_layer() -> None:
    """Outputs of every layer, logits of the last one, by hand."""
    network = make_network([4, 3, 2], ["tanh", "softmax"])
    (w1, w2), (b1, b2) = network.parameters.weights, network.parameters.biases
    inputs = normal(5, 4)
    hidden = np.tanh(inputs @ w1 + b1)
    logits = hidden @ w2 + b2
    outputs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    actual = network.activations(inputs)
    np.testing.assert_allclose(hidden, actual[0], rtol=1e-12)
    np.testing.assert_allclose(outputs, actual[1], rtol=1e-12)
    np.testing.assert_allclose(logits, network.logits(inputs), rtol=1e-12)
    np.testing.assert_allclose(outputs, network.outputs(logits), rtol=1e-12)
