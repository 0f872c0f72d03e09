"""Losses agree with textbook formulas and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import DTypeLike

from nnctl.nn.activations import Activation, Exponential, Sigmoid, Softmax
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import one_hot
from tests.nn.helpers import (
    FUNCTIONS,
    PAIRS,
    forward,
    labels_of,
    normal,
    weighted_inputs,
)

every_pair = pytest.mark.parametrize(("name", "output"), PAIRS, ids=str)


def textbook(name: str, output: Activation, a: list[float], y: list[float]) -> float:
    """Return the textbook loss of one example with outputs a and targets y."""
    pairs = list(zip(a, y, strict=True))
    if name == "quadratic":
        return sum((ai - yi) ** 2 for ai, yi in pairs) / 2
    if output == Softmax():
        return -math.log(a[y.index(1)])
    return -sum(yi * math.log(ai) + (1 - yi) * math.log(1 - ai) for ai, yi in pairs)


@every_pair
def test_values_agree_with_the_textbook(name: str, output: Activation) -> None:
    logits, targets = normal(30, 4), one_hot(labels_of(30, 4), 4, np.float64)
    examples = zip(forward(output, logits).tolist(), targets.tolist(), strict=True)
    expected = [textbook(name, output, a, y) for a, y in examples]
    np.testing.assert_allclose(
        expected, make_loss(name, output).values(logits, targets), rtol=1e-11
    )


@every_pair
def test_errors_are_the_derivative_of_the_values(name: str, output: Activation) -> None:
    loss, step = make_loss(name, output), 1e-5
    logits, targets = weighted_inputs(output, 30, 4), one_hot(labels_of(30, 4), 4, np.float64)
    expected, actual = np.empty_like(logits), np.empty_like(logits)
    for unit, moved in enumerate(step * np.eye(4)):
        above, below = loss.values(logits + moved, targets), loss.values(logits - moved, targets)
        expected[:, unit] = (above - below) / (2 * step)
    loss.gradient(logits, forward(output, logits), targets, out=actual)
    rounding = 1e-8 + 1e-10 * loss.values(logits, targets).max()
    np.testing.assert_allclose(expected, actual, rtol=1e-6, atol=rounding)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Softmax(), [0, 20_000, math.log(2)]),
        (Sigmoid(), [0, 20_000, 10_000]),
        (Sigmoid(gain=2), [0, 40_000, 20_000]),
    ],
    ids=str,
)
def test_cross_entropy_of_extreme_logits_is_exact(
    output: Activation, expected: list[float]
) -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4]], np.float32)
    targets = np.array([[1, 0]] * 3, np.float32)
    actual = make_loss("cross_entropy", output).values(logits, targets)
    np.testing.assert_allclose(expected, actual, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "output"),
    [pair for pair in PAIRS if pair[1] != Exponential()],  # its square overflows
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_of_extreme_logits_are_finite_and_keep_the_dtype(
    name: str, output: Activation, dtype: DTypeLike
) -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [0, 0]], dtype)
    targets = np.array([[1, 0]] * 3, dtype)
    loss, errors = make_loss(name, output), np.full_like(logits, np.nan)
    values = loss.values(logits, targets)
    loss.gradient(logits, forward(output, logits), targets, out=errors)
    assert np.dtype(dtype) == values.dtype
    assert np.isfinite(values).all()
    assert np.isfinite(errors).all()


@pytest.mark.parametrize(
    "output", [f for f in FUNCTIONS if not isinstance(f, Softmax | Sigmoid)], ids=str
)
def test_cross_entropy_rejects_outputs_that_are_not_probabilities(output: Activation) -> None:
    with pytest.raises(ValueError, match="softmax or sigmoid") as caught:
        make_loss("cross_entropy", output)
    assert output.name in str(caught.value)
