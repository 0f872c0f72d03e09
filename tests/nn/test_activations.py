"""Activations agree with textbook formulas and finite differences, also for extreme arguments."""

from __future__ import annotations

import dataclasses
import math
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import DTypeLike

from nnctl.nn.activations import (
    ACTIVATIONS,
    ELU,
    SELU,
    Activation,
    HardSigmoid,
    LeakyReLU,
    Linear,
    Maxout,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Step,
    Swish,
    Tanh,
    normal_cdf,
    normal_density,
)
from nnctl.nn.types import Array
from tests.nn.helpers import (
    DEFAULTS,
    DIFFERENTIABLE,
    FUNCTIONS,
    VARIANTS,
    backward,
    differences,
    forward,
    make_network,
    normal,
    textbook,
    weighted_inputs,
)

ONE_PIECE = [f for f in FUNCTIONS if f.pieces == 1]
every_activation = pytest.mark.parametrize("f", FUNCTIONS, ids=str)
every_activation_with_one_piece = pytest.mark.parametrize("f", ONE_PIECE, ids=str)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
rows = arrays(np.float64, (3, 5), elements=st.floats(-50, 50))


def test_every_activation_with_parameters_is_also_tested_with_other_values() -> None:
    expected = {type(f) for f in DEFAULTS if dataclasses.fields(f)}
    assert expected == {type(f) for f in VARIANTS}
    assert not set(DEFAULTS) & set(VARIANTS)


def test_every_activation_is_listed_under_its_own_name() -> None:
    own = {kind.name: kind for kind in ACTIVATIONS.values()}
    assert {**own, "silu": Swish, "identity": Linear} == ACTIVATIONS


@every_activation
def test_forward_computes_the_textbook_formula(f: Activation) -> None:
    z = weighted_inputs(f, 40, 5)
    z[0] = 0
    np.testing.assert_allclose(forward(f, z), textbook(f)(z), rtol=2e-12, atol=2e-12)


@pytest.mark.parametrize("f", DIFFERENTIABLE, ids=str)
def test_backward_agrees_with_central_differences(f: Activation) -> None:
    z, errors, step = weighted_inputs(f, 40, 5), normal(40, 5), 1e-5
    expected = np.empty_like(z)
    for column, moved in enumerate(step * np.eye(z.shape[1])):
        rise = forward(f, z + moved) - forward(f, z - moved)
        expected[:, column] = (errors * rise).sum(axis=1) / (2 * step)
    np.testing.assert_allclose(expected, backward(f, z, errors), rtol=1e-8, atol=1e-8)


@every_activation
def test_temporary_arrays_are_no_larger_than_the_arguments(f: Activation) -> None:
    count = 2000
    z = weighted_inputs(f, count, 200).astype(np.float32)
    outputs, errors = np.ones((2, count, z.shape[1] // f.pieces), np.float32)
    f.forward(z, outputs)  # fills caches
    tracemalloc.start()
    f.forward(z, outputs)
    f.backward(z, outputs, errors, np.empty_like(z))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - z.nbytes <= 3.2 * z.nbytes


@every_activation
@both_dtypes
def test_layers_keep_the_dtype(f: Activation, dtype: DTypeLike) -> None:
    network = make_network([4, 3, 2], [f, "linear"], dtype)
    logits = network.logits(normal(5, 4, dtype=dtype))
    arrays_made = [*network.activations(normal(5, 4, dtype=dtype)), logits, network.outputs(logits)]
    assert [np.dtype(dtype)] * 4 == [array.dtype for array in arrays_made]


@every_activation
def test_float32_and_float64_agree_to_rounding(f: Activation) -> None:
    z, errors = weighted_inputs(f, 40, 5).astype(np.float32), normal(40, 5, dtype=np.float32)
    wide, wide_errors = z.astype(np.float64), errors.astype(np.float64)
    np.testing.assert_allclose(forward(f, wide), forward(f, z), rtol=1e-6, atol=3e-7)
    expected = backward(f, wide, wide_errors)
    np.testing.assert_allclose(expected, backward(f, z, errors), rtol=1e-6, atol=5e-6)


@every_activation
@both_dtypes
def test_extreme_arguments_stay_finite_without_a_warning(f: Activation, dtype: DTypeLike) -> None:
    extremes = np.array([[-1e4, -100, -10, 0, 10, 100, 1e4], [1e4] * 7, [-1e4] * 7], dtype)
    z = np.concatenate([np.roll(extremes, piece, axis=1) for piece in range(f.pieces)], axis=1)
    with np.errstate(all="raise", under="ignore"):
        assert np.isfinite(forward(f, z)).all()
        assert np.isfinite(backward(f, z, np.ones((3, 7), dtype))).all()


@every_activation
@pytest.mark.parametrize("z", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_raise_no_error(f: Activation, z: float) -> None:
    with np.errstate(invalid="ignore"):
        outputs = forward(f, np.full((2, 5 * f.pieces), z))
        backward(f, np.full((2, 5 * f.pieces), z), np.ones((2, 5)))
    if np.isnan(z) and not isinstance(f, Step):
        assert np.isnan(outputs).all()


@every_activation
def test_passes_write_to_their_output_and_read_z_only_if_needed(f: Activation) -> None:
    z, errors = weighted_inputs(f, 20, 5), normal(20, 5)
    outputs, gradient = forward(f, z), np.empty_like(z)
    copies = [array.copy() for array in (z, outputs, errors)]
    forward(f, z)
    f.backward(z if f.needs_z else np.full_like(z, np.nan), outputs, errors, gradient)
    for expected, actual in zip(copies, (z, outputs, errors), strict=True):
        np.testing.assert_array_equal(expected, actual)
    np.testing.assert_array_equal(backward(f, z, errors), gradient)
    if f.pieces == 1:
        in_place, errors_in_place = z.copy(), errors.copy()
        f.forward(in_place, in_place)
        f.backward(z, in_place, errors_in_place, errors_in_place)
        np.testing.assert_array_equal(outputs, in_place)
        np.testing.assert_array_equal(gradient, errors_in_place)


@every_activation_with_one_piece
def test_only_monotone_activations_never_decrease(f: Activation) -> None:
    z = np.linspace(-9, 9, 1001)
    outputs = forward(f, z[None] if f.place == "output" else z[:, None]).ravel()
    assert (f.monotone or f == PReLU()) == (np.diff(outputs) >= 0).all()


@every_activation_with_one_piece
def test_saturation_bounds_are_the_limits_of_the_function(f: Activation) -> None:
    z = np.array([[-1e4], [1e4]])
    if f.saturation:
        np.testing.assert_allclose(f.saturation, forward(f, z).ravel(), rtol=0, atol=1e-3)
        np.testing.assert_allclose([[0], [0]], backward(f, z, np.ones_like(z)), atol=1e-7)
    elif f.place == "anywhere" and not isinstance(f, Step):
        assert abs(forward(f, z)).max() > 1e3


@every_activation
def test_every_activation_has_complete_descriptions(f: Activation) -> None:
    for text in ("formula", "derivative", "outputs", "advice"):
        assert vars(type(f))[text]
        assert not set("{}") & set(f.describe(getattr(f, text)))


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (Step(at_zero=1), ("1 if z > 0 else 0; 1 at 0", "0")),
        (Sigmoid(), ("1 / (1 + exp(-z))", "f (1 - f)")),
        (Sigmoid(gain=3), ("1 / (1 + exp(-3 z))", "3 f (1 - f)")),
        (LeakyReLU(0.3), ("max(z, 0.3 z)", "1 where z > 0, else 0.3")),
        (ELU(0.5), ("z if z > 0 else 0.5 (exp(z) - 1)", "1 where z > 0, else f + 0.5")),
        (Swish(), ("z / (1 + exp(-z))", "s + f (1 - s), s = f / z")),
        (Swish(2), ("z / (1 + exp(-2 z))", "s + 2 f (1 - s), s = f / z")),
        (Maxout(3), ("max(z_1, ..., z_3)", "1 for the largest z, else 0")),
    ],
    ids=str,
)
def test_descriptions_contain_the_values_of_parameters(
    f: Activation, expected: tuple[str, str]
) -> None:
    assert expected == (f.describe(f.formula), f.describe(f.derivative))


def number(text: str) -> float:
    """Return a number that may be written as a fraction."""
    numerator, _, denominator = text.partition("/")
    return float(numerator) / float(denominator or 1)


@every_activation
def test_outputs_are_in_the_described_range(f: Activation) -> None:
    bounds = re.match(r"[\[(](\S+), ([^])]+)[\])]", f.describe(f.outputs).replace("∞", "inf"))
    low, high = map(number, bounds.groups()) if bounds else (0, 1)  # "0 or 1"
    outputs = forward(f, weighted_inputs(f, 40, 5))
    assert (outputs > low - 0.005).all()
    assert (outputs < high + 0.005).all()
    assert f.positive == (low >= 0)
    assert f.positive == (outputs >= 0).all() or f == PReLU(-0.5)


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (Sigmoid, {"gain": 0}, "gain must be above 0, got 0"),
        (LeakyReLU, {"negative_slope": 1.5}, "negative_slope must be between 0 and 1, got 1.5"),
        (LeakyReLU, {"negative_slope": -0.1}, "negative_slope must be between 0 and 1, got -0.1"),
        (ELU, {"alpha": -1}, "alpha must not be negative, got -1"),
        (Swish, {"beta": 0}, "beta must be above 0, got 0"),
        (Maxout, {"pieces": 1}, "pieces must be 2 to 100, got 1"),
        (Maxout, {"pieces": 101}, "pieces must be 2 to 100, got 101"),
    ],
)
def test_invalid_parameters_are_rejected(
    kind: type[Activation], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        kind(**parameters)


def test_the_bounds_of_parameters_are_allowed() -> None:
    z = normal(20, 5)
    for special, general in (  # the first is a special case of the second
        (ReLU(), LeakyReLU(0)),
        (ReLU(), ELU(0)),
        (Linear(), LeakyReLU(1)),
    ):
        np.testing.assert_array_equal(forward(special, z), forward(general, z))


def test_regions_end_at_the_kinks() -> None:
    z = np.array([[-4.0, -2.9, 2.9, 3.1]])
    assert HardSigmoid().regions(z).tolist() == [[0, 1, 1, 2]]
    assert ReLU().regions(z).tolist() == [[0, 0, 1, 1]]
    assert Tanh().regions(z).tolist() == [[0, 0, 0, 0]]
    assert Maxout(2).regions(z).tolist() == [[1, 1]]
    assert Maxout(4).regions(z).tolist() == [[3]]


@pytest.mark.parametrize("f", [f for f in DIFFERENTIABLE if f.pieces == 1], ids=str)
def test_a_derivative_jumps_only_at_kinks(f: Activation) -> None:
    def slopes(z: Array) -> Array:
        return backward(f, z[:, None], np.ones((len(z), 1)))[:, 0]

    z = np.setdiff1d(np.linspace(-5, 5, 41), f.kinks)
    np.testing.assert_allclose(slopes(z - 1e-6), slopes(z + 1e-6), rtol=1e-5, atol=1e-4)
    kinks = np.array(f.kinks)
    outside = slopes(np.where(kinks > 0, kinks + 1e-9, kinks - 1e-9))
    np.testing.assert_allclose(slopes(kinks), outside, atol=1e-8)


def test_the_surrogate_of_a_step_is_the_derivative_of_the_sigmoid() -> None:
    z, errors = normal(20, 5), normal(20, 5, seed=1)
    estimator = Step(surrogate="sigmoid")
    np.testing.assert_array_equal(forward(Step(), z), forward(estimator, z))
    np.testing.assert_array_equal(backward(Sigmoid(), z, errors), backward(estimator, z, errors))
    assert Sigmoid() == estimator.differentiable()
    assert not backward(Step(), z, errors).any()


def test_selu_keeps_mean_0_and_variance_1() -> None:
    z = np.linspace(-12, 12, 240_001)
    density, outputs = normal_density(z), forward(SELU(), z[None])[0]
    moments = [np.trapezoid(outputs**power * density, z) for power in (1, 2)]
    np.testing.assert_allclose([0, 1], moments, rtol=0, atol=1e-8)


def test_the_normal_distribution_function_agrees_with_the_c_library() -> None:
    z = np.concatenate([np.linspace(-12, 12, 99_991), np.arange(-12, 12, 1 / 128), [-1e4, 1e4]])
    expected = [math.erfc(-value / math.sqrt(2)) / 2 for value in z]
    np.testing.assert_allclose(expected, normal_cdf(z), rtol=0, atol=1e-12)


@given(rows, st.floats(-1000, 1000))
def test_softmax_is_a_distribution_and_does_not_depend_on_a_shift(z: Array, shift: float) -> None:
    outputs = forward(Softmax(), z)
    assert (outputs >= 0).all()
    np.testing.assert_allclose(np.ones(3), outputs.sum(axis=1), rtol=1e-14)
    np.testing.assert_allclose(outputs, forward(Softmax(), z + shift), rtol=0, atol=1e-12)


def test_softmax_of_large_logits_is_exact() -> None:
    expected = [[9.99954600e-01, 4.53978686e-05, 2.06106005e-09]]
    actual = forward(Softmax(), np.array([[1010.0, 1000.0, 990.0]]))
    np.testing.assert_allclose(expected, actual, rtol=1e-8)


def test_each_prelu_unit_learns_its_own_slope() -> None:
    slopes, gradient = np.array([-0.5, 0, 0.1, 0.25, 2]), np.full(5, np.nan)
    z, errors = weighted_inputs(PReLU(), 40, 5), normal(40, 5)
    f = PReLU().bind(slopes)
    f.write_gradient(z, errors, gradient)
    np.testing.assert_allclose(np.where(z > 0, z, slopes * z), forward(f, z))
    np.testing.assert_allclose(np.where(z > 0, 1, slopes) * errors, backward(f, z, errors))
    by_slopes = differences(lambda: (errors * forward(f, z)).sum(), slopes)
    np.testing.assert_allclose(by_slopes, gradient, rtol=1e-7)


def test_maxout_passes_the_gradient_to_the_first_of_the_largest_pieces() -> None:
    z = np.array([[1.0, 2, 3, 4, 5, 0], [7, 0, 7, 0, 6, 0]])
    errors = np.array([[10.0, 20], [30, 40]])
    gradient = [[0, 0, 0, 20, 10, 0], [30, 40, 0, 0, 0, 0]]
    assert gradient == backward(Maxout(3), z, errors).tolist()
