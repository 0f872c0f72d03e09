"""Optimizers follow their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from nnctl.nn.activations import PReLU, Softmax
from nnctl.nn.network import Layer, Parameters
from nnctl.nn.optimizers import (
    L1,
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Descent,
    Optimizer,
    RMSProp,
    State,
)
from nnctl.nn.parallel import split_parameters
from nnctl.nn.threads import ThreadTeam
from nnctl.nn.types import Array
from tests.nn.helpers import make_optimizer, normal

INPUTS, LAYERS = 4, [Layer(3, PReLU()), Layer(2, Softmax())]
WEIGHTS, SIZE = 4 * 3 + 3 * 2, (4 + 1) * 3 + (3 + 1) * 2 + 3


def take_step(
    optimizer: Optimizer,
    parameters: Parameters,
    state: State,
    gradient: Array,
    rate: float,
    step: int,
) -> None:
    """Update all parameters in two parts, as two threads do."""
    by_layer = Parameters(INPUTS, LAYERS, np.float64)
    by_layer.vector[...] = optimizer.gradient_scale(rate) * gradient
    for shard in split_parameters(parameters, by_layer, state, ThreadTeam(2)):
        optimizer.update(shard, rate, step)


def updated(descent: Descent, rates: list[float], weight_decay: float = 0.0) -> Array:
    """Return the parameters after one step per rate, each with a different gradient."""
    parameters = Parameters(INPUTS, LAYERS, np.float64)
    parameters.vector[...] = normal(SIZE)
    optimizer = make_optimizer(descent, weight_decay=weight_decay)
    state = optimizer.init_state(parameters)
    for i, rate in enumerate(rates):
        take_step(optimizer, parameters, state, normal(SIZE, seed=i), rate, i + 1)
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
    actual = updated(SGD(momentum, nesterov), rates, weight_decay)
    np.testing.assert_allclose(w, actual, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_decay_shrinks_weights_and_exempts_biases_and_learned_slopes(kind: type[Descent]) -> None:
    parameters = Parameters(INPUTS, LAYERS, np.float64)
    parameters.vector.fill(1)
    optimizer = make_optimizer(kind(), weight_decay=0.1)
    state = optimizer.init_state(parameters)
    take_step(optimizer, parameters, state, np.zeros(SIZE), 0.5, 1)
    assert parameters.vector.tolist() == [0.95] * WEIGHTS + [1.0] * (SIZE - WEIGHTS)


def test_only_momentum_needs_a_velocity() -> None:
    parameters = Parameters(INPUTS, LAYERS)
    assert SGD().init_state(parameters) == {}
    velocity = SGD(momentum=0.9).init_state(parameters)["velocity"]
    assert velocity.tolist() == [0.0] * SIZE
    assert np.float32 == velocity.dtype


@pytest.mark.parametrize("epsilon", [1e-7, 0.1])
def test_adagrad_divides_by_the_root_of_the_sum_of_squared_gradients(epsilon: float) -> None:
    w, h, rates = normal(SIZE), np.zeros(SIZE), [0.5, 0.1, 0.3]
    for i, rate in enumerate(rates):
        gradient = normal(SIZE, seed=i)
        h += gradient**2
        w -= rate * gradient / (np.sqrt(h) + epsilon)
    np.testing.assert_allclose(w, updated(AdaGrad(epsilon), rates), rtol=1e-12)


@pytest.mark.parametrize(("decay", "epsilon"), [(0.99, 1e-8), (0.5, 0.1)])
def test_rmsprop_divides_by_the_root_of_the_mean_of_squared_gradients(
    decay: float, epsilon: float
) -> None:
    w, v, rates = normal(SIZE), np.zeros(SIZE), [0.5, 0.1, 0.3]
    for i, rate in enumerate(rates):
        gradient = normal(SIZE, seed=i)
        v = decay * v + (1 - decay) * gradient**2
        w -= rate * gradient / (np.sqrt(v) + epsilon)
    np.testing.assert_allclose(w, updated(RMSProp(decay, epsilon), rates), rtol=1e-12)


def test_l1_moves_weights_toward_0_and_not_across_it() -> None:
    parameters = Parameters(INPUTS, LAYERS, np.float64)
    parameters.vector[...] = normal(SIZE)
    before = parameters.vector.copy()
    take_step(Optimizer(SGD(), (L1(0.4),)), parameters, {}, np.zeros(SIZE), 0.5, 1)
    shrunk = np.sign(before) * np.maximum(np.abs(before) - 0.2, 0)
    assert 0 < np.count_nonzero(shrunk[:WEIGHTS]) < WEIGHTS
    np.testing.assert_allclose(parameters.vector[:WEIGHTS], shrunk[:WEIGHTS], rtol=1e-12)
    assert parameters.vector[WEIGHTS:].tolist() == before[WEIGHTS:].tolist()


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize(("beta1", "beta2", "epsilon"), [(0.9, 0.999, 1e-8), (0.5, 0.9, 0.1)])
def test_adam_uses_bias_corrected_averages(
    kind: type[Adam], beta1: float, beta2: float, epsilon: float
) -> None:
    w, m, v, rates = normal(SIZE), np.zeros(SIZE), np.zeros(SIZE), [0.5, 0.1, 0.3]
    for i, rate in enumerate(rates):
        gradient = normal(SIZE, seed=i)
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        mean, square = m / (1 - beta1 ** (i + 1)), v / (1 - beta2 ** (i + 1))
        w -= rate * mean / (np.sqrt(square) + epsilon)
    np.testing.assert_allclose(w, updated(kind(beta1, beta2, epsilon), rates), rtol=1e-12)


@pytest.mark.parametrize("descent", [SGD(momentum=0.5), AdaGrad(), RMSProp(), Adam()], ids=str)
def test_the_step_size_is_the_step_per_unit_of_a_constant_gradient(descent: Descent) -> None:
    parameters = Parameters(INPUTS, LAYERS, np.float64)
    optimizer, steps = make_optimizer(descent), 300
    state = optimizer.init_state(parameters)
    for i in range(1, steps + 1):
        before = parameters.vector.copy()
        take_step(optimizer, parameters, state, np.full(SIZE, 0.5), 0.1, i)
    change = before - parameters.vector
    step_size = descent.step_size(state, 0.1, steps)
    np.testing.assert_allclose(step_size * np.full(SIZE, 0.5), change)
