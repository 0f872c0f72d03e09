"""Optimizers follow their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from nnctl.nn.activations import PReLU, Softmax
from nnctl.nn.network import Layer, Parameters
from nnctl.nn.optimizer import OPTIMIZERS, SGD, AdaGrad, Adam, Optimizer
from nnctl.nn.types import Array
from tests.nn.helpers import normal

INPUTS, LAYERS = 4, [Layer(3, PReLU()), Layer(2, Softmax())]
WEIGHTS, SIZE = 4 * 3 + 3 * 2, (4 + 1) * 3 + (3 + 1) * 2 + 3


def take_step(
    rule: Optimizer,
    parameters: Parameters,
    gradient: Array,
    velocity: Array,
    rate: float,
    count: int,
) -> None:
    """Decay the weights and update all parameters in two parts, as two threads do."""
    for shard in parameters.shards(2):
        part = slice(shard.begin, shard.end)
        rule.decay(parameters.decaying[part], rate)
        rule.update(parameters.vector[part], gradient[part], velocity[:, part], rate, count)


def updated(rule: Optimizer, rates: list[float]) -> Array:
    """Return the parameters after one step per rate, each with a different gradient."""
    parameters = Parameters(INPUTS, LAYERS, np.float64)
    parameters.vector[...] = normal(SIZE)
    velocity = rule.init_state(parameters)
    for i, rate in enumerate(rates):
        gradient = rule.gradient_scale(rate) * normal(SIZE, seed=i)
        take_step(rule, parameters, gradient, velocity, rate, i + 1)
    return parameters.vector


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.9, False), (0.9, True)])
def test_sgd_updates_follow_the_formula(
    momentum: float, nesterov: bool, weight_decay: float
) -> None:
    rates = [0.5, 0.4, 0.01, 0.3]
    w, v = normal(SIZE), np.zeros(SIZE)
    decays = np.arange(SIZE) < WEIGHTS
    for i, rate in enumerate(rates):
        gradient = normal(SIZE, seed=i)
        w = np.where(decays, (1 - rate * weight_decay) * w, w)
        v = momentum * v - rate * gradient
        w = w + momentum * v - rate * gradient if nesterov else w + v
    actual = updated(SGD(0.5, weight_decay, momentum, nesterov), rates)
    np.testing.assert_allclose(w, actual, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_decay_shrinks_weights_and_exempts_biases_and_learned_slopes(
    kind: type[Optimizer],
) -> None:
    parameters = Parameters(INPUTS, LAYERS, np.float64)
    parameters.vector.fill(1)
    rule = kind(0.5, weight_decay=0.1)
    take_step(rule, parameters, np.zeros(SIZE), rule.init_state(parameters), 0.5, 1)
    assert parameters.vector.tolist() == [0.95] * WEIGHTS + [1.0] * (SIZE - WEIGHTS)


def test_only_momentum_needs_a_velocity() -> None:
    parameters = Parameters(INPUTS, LAYERS)
    assert SGD(0.5).init_state(parameters).size == 0
    velocity = SGD(0.5, momentum=0.9).init_state(parameters)
    assert velocity.tolist() == [[0.0] * SIZE]
    assert np.float32 == velocity.dtype


def test_adagrad_divides_by_the_root_of_the_sum_of_squared_gradients() -> None:
    w, h, rates = normal(SIZE), np.zeros(SIZE), [0.5, 0.1, 0.3]
    for i, rate in enumerate(rates):
        gradient = normal(SIZE, seed=i)
        h += gradient**2
        w -= rate * gradient / (np.sqrt(h) + 1e-7)
    np.testing.assert_allclose(w, updated(AdaGrad(0.5), rates), rtol=1e-12)


def test_adam_uses_bias_corrected_averages() -> None:
    w, m, v, rates = normal(SIZE), np.zeros(SIZE), np.zeros(SIZE), [0.5, 0.1, 0.3]
    for i, rate in enumerate(rates):
        gradient = normal(SIZE, seed=i)
        m = 0.9 * m + 0.1 * gradient
        v = 0.999 * v + 0.001 * gradient**2
        mean, square = m / (1 - 0.9 ** (i + 1)), v / (1 - 0.999 ** (i + 1))
        w -= rate * mean / (np.sqrt(square) + 1e-8)
    np.testing.assert_allclose(w, updated(Adam(0.5), rates), rtol=1e-12)


@pytest.mark.parametrize("rule", [SGD(0.1, momentum=0.5), AdaGrad(0.1), Adam(0.1)], ids=str)
def test_the_step_size_is_the_step_per_unit_of_a_constant_gradient(rule: Optimizer) -> None:
    parameters = Parameters(INPUTS, LAYERS, np.float64)
    velocity, count = rule.init_state(parameters), 300
    for i in range(1, count + 1):
        before = parameters.vector.copy()
        gradient = np.full(SIZE, 0.5) * rule.gradient_scale(0.1)
        take_step(rule, parameters, gradient, velocity, 0.1, i)
    step = before - parameters.vector
    np.testing.assert_allclose(rule.step_size(velocity, 0.1, count) * np.full(SIZE, 0.5), step)
