"""Initial parameters have the distributions that are configured."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnctl.nn.activations import (
    ACTIVATIONS,
    ELU,
    GELU,
    SELU,
    Activation,
    LeakyReLU,
    Maxout,
    PReLU,
    ReLU,
    Swish,
)
from nnctl.nn.initializers import (
    INITIALIZERS,
    Constant,
    Distribution,
    GlorotUniform,
    HeNormal,
    LeCunNormal,
    Normal,
    Uniform,
    Zeros,
)
from nnctl.nn.network import Layer, Network
from nnctl.nn.types import Array
from tests.nn.helpers import FUNCTIONS

SHAPES = [(784, 100), (100, 784), (200, 200)]


def draw(distribution: Distribution, shape: tuple[int, int], dtype: type = np.float32) -> Array:
    weights: Array = np.full(shape, np.nan, dtype)
    rng = np.random.default_rng(0)
    distribution.fill(weights, fan_in=shape[0], fan_out=shape[1], rng=rng)
    return weights.astype(np.float64)


def named(name: str) -> Distribution:
    distribution = INITIALIZERS[name]()
    assert isinstance(distribution, Distribution)
    return distribution


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["glorot", "he", "lecun"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scaled_distributions_have_their_variance(
    name: str, shape: tuple[int, int], dtype: type
) -> None:
    fan_in, fan_out = shape
    variances = {"glorot": 2 / (fan_in + fan_out), "he": 2 / fan_in, "lecun": 1 / fan_in}
    variance, count = variances[name], fan_in * fan_out
    bound = math.sqrt(3 * variance)
    for kind, kurtosis in (("normal", 3), ("uniform", 1.8)):
        weights = draw(named(f"{name}_{kind}"), shape, dtype)
        assert abs(weights.mean()) < 5 * math.sqrt(variance / count)
        assert abs(weights.var() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / count)
        farthest = abs(weights).max()
        assert (
            farthest > 2 * bound if kind == "normal" else 0.99 * bound < farthest <= bound * 1.001
        )


def test_normal_and_uniform_have_the_given_moments_and_bounds() -> None:
    normal, uniform = draw(Normal(std=2, mean=5), (784, 100)), draw(Uniform(-1, 3), (784, 100))
    assert normal.mean() == pytest.approx(5, abs=5 * 2 / 280)
    assert normal.std() == pytest.approx(2, rel=0.02)
    assert uniform.mean() == pytest.approx(1, abs=5 * 1.155 / 280)
    assert uniform.min() == pytest.approx(-1, abs=0.01)
    assert uniform.max() == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("activation", FUNCTIONS, ids=str)
def test_auto_depends_on_the_activation_and_is_zeros_for_biases(activation: Activation) -> None:
    he = ReLU, LeakyReLU, PReLU, ELU, GELU, Swish
    expected = {SELU: LeCunNormal(), **dict.fromkeys(he, HeNormal())}
    layer = Layer(3, activation)
    assert expected.get(type(activation), GlorotUniform()) == layer.weights_distribution
    assert Zeros() == layer.biases_distribution


def test_learned_slopes_start_at_the_initial_slope_of_the_activation() -> None:
    layers = [Layer(3, PReLU(), biases=Constant(7)), Layer(2, PReLU(initial_slope=-0.5))]
    network = Network(4, layers)
    network.parameters.vector[...] = np.nan
    network.initialize(np.random.default_rng(0))
    first, second = network.parameters.slopes
    assert first.tolist() == [0.25] * 3
    assert second.tolist() == [-0.5] * 2
    assert np.isfinite(network.parameters.vector).all()


def test_numbers_beyond_float32_become_infinite_without_a_warning() -> None:
    layer = Layer(3, PReLU(initial_slope=1e300), Normal(std=1e300), Constant(1e300))
    network = Network(4, [layer])
    network.initialize(np.random.default_rng(0))
    assert not np.isfinite(network.parameters.vector).any()


def test_each_layer_has_its_own_distributions_and_fans() -> None:
    sigmoid, relu = ACTIVATIONS["sigmoid"](), ACTIVATIONS["relu"]()
    constant = Network(4, [Layer(3, sigmoid, Constant(2), Constant(3)), Layer(2, sigmoid, Zeros())])
    constant.initialize(np.random.default_rng(0))
    assert constant.parameters.vector.tolist() == [2] * 12 + [0] * 6 + [3] * 3 + [0] * 2
    network = Network(500, [Layer(200, relu), Layer(400, relu), Layer(200, Maxout(pieces=3))])
    network.initialize(np.random.default_rng(0))
    variances = [weights.var() for weights in network.parameters.weights]
    assert variances == pytest.approx([2 / 500, 2 / 200, 2 / (400 + 200)], rel=0.03)


def test_the_same_seed_draws_the_same_parameters_and_another_does_not() -> None:
    def drawn(seed: int) -> bytes:
        layers = [Layer(5, ACTIVATIONS["relu"](), biases=Normal()), Layer(3, ACTIVATIONS["tanh"]())]
        network = Network(4, layers)
        network.parameters.vector[...] = np.nan
        network.initialize(np.random.default_rng(seed))
        return network.parameters.vector.tobytes()

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_invalid_distributions_are_rejected() -> None:
    with pytest.raises(ValueError, match="std must not be negative"):
        Normal(std=-1)
    with pytest.raises(ValueError, match=r"low \(2\) must not be above high \(1\)"):
        Uniform(low=2, high=1)
