"""Every activation against finite differences, PyTorch, and the extremes of its arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import DTypeLike

from nnctl.nn.activations import ACTIVATIONS, Array
from tests.nn.helpers import make_network, normal

every_activation = pytest.mark.parametrize("name", ACTIVATIONS)
rows = arrays(np.float64, (3, 5), elements=st.floats(-50, 50))


def forward(name: str, z: Array) -> Array:
    """Return f(z), and leave z as it is."""
    outputs = np.empty_like(z)
    ACTIVATIONS[name]().forward(z, outputs)
    return outputs


def backward(name: str, z: Array, errors: Array) -> Array:
    """Return dL/dz for errors dL/df(z), and leave both as they are."""
    gradient = errors.copy()
    ACTIVATIONS[name]().backward(forward(name, z), gradient)
    return gradient


@every_activation
def test_the_derivative_is_that_of_the_function(name: str) -> None:
    """Backward is the Jacobian's transpose times the errors, by central differences."""
    z, errors, step = normal(40, 5), normal(40, 5, seed=1), 1e-6
    z[abs(z) < 1e-3] = 1  # away from kinks
    expected = np.empty_like(z)
    for unit in range(z.shape[1]):
        moved = step * np.eye(z.shape[1])[unit]
        rise = forward(name, z + moved) - forward(name, z - moved)
        expected[:, unit] = (errors * rise).sum(axis=1) / (2 * step)
    np.testing.assert_allclose(expected, backward(name, z, errors), rtol=1e-7, atol=1e-8)


@every_activation
def test_both_passes_agree_with_pytorch(name: str) -> None:
    """PyTorch's function and its automatic derivative, the kink at 0 included."""
    torch: Any = pytest.importorskip("torch")
    oracle = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "linear": torch.clone,
        "identity": torch.clone,
        "softmax": lambda z: torch.softmax(z, dim=1),
    }[name]
    z, errors = normal(20, 5), normal(20, 5, seed=1)
    z[0] = 0
    theirs = torch.tensor(z, requires_grad=True)
    outputs = oracle(theirs)
    outputs.backward(torch.tensor(errors))
    np.testing.assert_allclose(outputs.detach().numpy(), forward(name, z), rtol=0, atol=1e-14)
    np.testing.assert_allclose(theirs.grad.numpy(), backward(name, z, errors), rtol=0, atol=1e-14)


@every_activation
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_keep_the_dtype(name: str, dtype: DTypeLike) -> None:
    """No pass turns float32 into float64, or back."""
    network = make_network([4, 3, 2], ["linear", name], dtype)
    logits = network.logits(normal(5, 4, dtype=dtype))
    made = [*network.activations(normal(5, 4, dtype=dtype)), logits, network.outputs(logits)]
    assert [np.dtype(dtype)] * 4 == [array.dtype for array in made]


@every_activation
def test_float32_gives_what_float64_gives_to_rounding(name: str) -> None:
    """Neither pass loses more digits than float32 has not got."""
    z, errors = normal(40, 5).astype(np.float32), normal(40, 5, seed=1).astype(np.float32)
    wide, wide_errors = z.astype(np.float64), errors.astype(np.float64)
    np.testing.assert_allclose(forward(name, wide), forward(name, z), rtol=0, atol=3e-7)
    expected = backward(name, wide, wide_errors)
    np.testing.assert_allclose(expected, backward(name, z, errors), rtol=0, atol=3e-6)


@every_activation
def test_extreme_arguments_stay_finite_without_a_warning(name: str) -> None:
    """Weighted inputs of ±10,000 are what a learning rate too large makes."""
    z = np.array([[-1e4, -1, 0, 1, 1e4], [1e4] * 5, [-1e4] * 5], np.float32)
    assert np.isfinite(forward(name, z)).all()
    assert np.isfinite(backward(name, z, np.ones_like(z))).all()


@every_activation
def test_in_place_is_the_same_as_out_of_place(name: str) -> None:
    """Where the result is written elsewhere, the argument is left alone."""
    z = normal(20, 5)
    kept, in_place = z.copy(), z.copy()
    outputs = forward(name, z)
    ACTIVATIONS[name]().forward(in_place, in_place)
    np.testing.assert_array_equal(kept, z)
    np.testing.assert_array_equal(outputs, in_place)


@every_activation
def test_the_backward_pass_leaves_the_outputs_alone(name: str) -> None:
    """The gradient of the next layer's weights needs them."""
    outputs = forward(name, normal(20, 5))
    kept = outputs.copy()
    ACTIVATIONS[name]().backward(outputs, normal(20, 5, seed=1))
    np.testing.assert_array_equal(kept, outputs)


def test_the_sigmoid_is_steepest_at_0_with_a_slope_of_a_quarter() -> None:
    """Hence gradients vanish in deep sigmoid networks."""
    z = np.linspace(-10, 10, 2001)[None, :]
    slopes = backward("sigmoid", z, np.ones_like(z))
    assert slopes.max() == 0.25
    assert abs(z[0, slopes.argmax()]) < 1e-12


@given(rows)
def test_the_sigmoid_is_symmetric(z: Array) -> None:
    """f(-z) = 1 - f(z)."""
    np.testing.assert_allclose(
        1 - forward("sigmoid", z), forward("sigmoid", -z), rtol=0, atol=1e-15
    )


@given(rows)
def test_the_sigmoid_is_the_textbook_one_and_a_tanh(z: Array) -> None:
    """1 / (1 + exp(-z)) = (1 + tanh(z/2)) / 2."""
    np.testing.assert_allclose(1 / (1 + np.exp(-z)), forward("sigmoid", z), rtol=0, atol=1e-15)
    np.testing.assert_allclose(
        (1 + forward("tanh", z / 2)) / 2, forward("sigmoid", z), rtol=0, atol=1e-15
    )


@given(rows)
def test_softmax_is_a_distribution(z: Array) -> None:
    """No output is negative, and each row sums to 1."""
    outputs = forward("softmax", z)
    assert (outputs >= 0).all()
    np.testing.assert_allclose(np.ones(3), outputs.sum(axis=1), rtol=1e-14)


@given(rows, st.integers(0, 4), st.floats(0.1, 10))
def test_raising_one_logit_raises_its_share_and_lowers_the_others(
    z: Array, unit: int, rise: float
) -> None:
    """Softmax is monotone in each of its arguments."""
    change = forward("softmax", z + rise * np.eye(5)[unit]) - forward("softmax", z)
    others = np.delete(change, unit, axis=1)
    assert (change[:, unit] >= -1e-15).all()
    assert (others <= 1e-15).all()


@given(rows, st.floats(-1000, 1000))
def test_softmax_does_not_see_a_shift_of_all_logits(z: Array, shift: float) -> None:
    """f(z + c) = f(z)."""
    np.testing.assert_allclose(
        forward("softmax", z), forward("softmax", z + shift), rtol=0, atol=1e-12
    )


def test_softmax_of_large_logits_is_exact() -> None:
    """The classic example in which exp alone would overflow."""
    expected = [[9.99954600e-01, 4.53978686e-05, 2.06106005e-09]]
    actual = forward("softmax", np.array([[1010.0, 1000.0, 990.0]]))
    np.testing.assert_allclose(expected, actual, rtol=1e-8)


@pytest.mark.parametrize(("name", "bounds"), [("sigmoid", (0, 1)), ("tanh", (-1, 1))])
def test_saturation_bounds_are_the_limits_of_the_function(
    name: str, bounds: tuple[float, float]
) -> None:
    """Health measures from them how many outputs have no derivative left."""
    assert bounds == ACTIVATIONS[name].saturation
    np.testing.assert_allclose([bounds], forward(name, np.array([[-1e4, 1e4]])), rtol=0, atol=1e-15)
