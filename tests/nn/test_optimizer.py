"""Updates against formulas written out of place, and against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnctl.nn.activations import Array
from nnctl.nn.network import Parameters
from nnctl.nn.optimizer import SGD
from tests.nn.helpers import normal

SIZES = [4, 3, 2]
WEIGHTS, SIZE = 18, 23


def updated(rule: SGD, rates: list[float]) -> Array:
    """Return the parameters after a step at each rate, along gradients told from the step."""
    parameters = Parameters(SIZES, np.float64)
    parameters.vector[...] = normal(SIZE)
    velocity = rule.make_velocity(parameters)
    for i, rate in enumerate(rates):
        rule.update(parameters, rate * normal(SIZE, seed=i), velocity, rate)
    return parameters.vector


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.9, False), (0.9, True)])
def test_an_update_is_the_formula(momentum: float, nesterov: bool, weight_decay: float) -> None:
    """Over several steps with changing rates; the velocity includes the rate of its step."""
    rates = [0.5, 0.4, 0.01, 0.3]
    w, v = normal(SIZE), np.zeros(SIZE)
    decays = np.arange(SIZE) < WEIGHTS
    for i, rate in enumerate(rates):
        gradient = normal(SIZE, seed=i)
        w = np.where(decays, (1 - rate * weight_decay) * w, w)
        v = momentum * v - rate * gradient
        w = w + momentum * v - rate * gradient if nesterov else w + v
    actual = updated(SGD(0.5, momentum, nesterov, weight_decay), rates)
    np.testing.assert_allclose(w, actual, rtol=1e-12, atol=1e-14)


def test_decay_shrinks_weights_and_exempts_biases() -> None:
    """By 1 - learning rate x weight decay, where the gradient is 0."""
    parameters = Parameters(SIZES, np.float64)
    parameters.vector.fill(1)
    rule = SGD(0.5, weight_decay=0.1)
    rule.update(parameters, np.zeros(SIZE), rule.make_velocity(parameters), 0.5)
    assert parameters.vector.tolist() == [0.95] * WEIGHTS + [1.0] * (SIZE - WEIGHTS)


def test_only_momentum_needs_a_velocity() -> None:
    """At rest it is zero, of the parameters' size and dtype."""
    parameters = Parameters(SIZES)
    assert SGD(0.5).make_velocity(parameters).size == 0
    velocity = SGD(0.5, momentum=0.9).make_velocity(parameters)
    assert velocity.tolist() == [0.0] * SIZE
    assert np.float32 == velocity.dtype


@pytest.mark.parametrize(("momentum", "nesterov"), [(0, False), (0.9, False), (0.9, True)])
def test_updates_at_a_constant_rate_are_those_of_pytorch(momentum: float, nesterov: bool) -> None:
    """PyTorch's velocity leaves the rate out, which makes no difference while it is constant."""
    torch: Any = pytest.importorskip("torch")
    theirs = torch.tensor(normal(SIZE), requires_grad=True)
    optimizer = torch.optim.SGD([theirs], lr=0.1, momentum=momentum, nesterov=nesterov)
    for i in range(5):
        theirs.grad = torch.tensor(normal(SIZE, seed=i))
        optimizer.step()
    actual = updated(SGD(0.1, momentum, nesterov), [0.1] * 5)
    np.testing.assert_allclose(theirs.detach().numpy(), actual, rtol=1e-12, atol=1e-14)
