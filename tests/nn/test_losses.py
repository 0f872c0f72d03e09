"""Losses against textbook formulas, scikit-learn, PyTorch and finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike
from sklearn.metrics import log_loss

from nnctl.nn.activations import Activation, Exponential, Sigmoid, Softmax
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import make_targets, one_hot
from tests.nn.helpers import (
    FUNCTIONS,
    PAIRS,
    forward,
    labels_of,
    normal,
    pytorch,
    weighted_inputs,
)

every_pair = pytest.mark.parametrize(("name", "output"), PAIRS, ids=str)


def textbook(name: str, output: Activation, a: list[float], y: list[float]) -> float:
    """Return the loss of one example with outputs a and targets y, as a textbook writes it."""
    pairs = list(zip(a, y, strict=True))
    if name == "quadratic":
        return sum((ai - yi) ** 2 for ai, yi in pairs) / 2
    if output == Softmax():
        return -math.log(a[y.index(1)])
    return -sum(yi * math.log(ai) + (1 - yi) * math.log(1 - ai) for ai, yi in pairs)


@every_pair
def test_values_are_those_of_the_textbook(name: str, output: Activation) -> None:
    logits, targets = normal(30, 4), one_hot(labels_of(30, 4), 4, np.float64)
    answers = zip(forward(output, logits).tolist(), targets.tolist(), strict=True)
    expected = [textbook(name, output, a, y) for a, y in answers]
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
    loss.errors(logits, forward(output, logits), targets, out=actual)
    rounding = 1e-8 + 1e-10 * loss.values(logits, targets).max()
    np.testing.assert_allclose(expected, actual, rtol=1e-6, atol=rounding)


def test_softmax_cross_entropy_is_the_log_loss_of_scikit_learn() -> None:
    logits, labels = normal(50, 4), labels_of(50, 4)
    values = make_loss("cross_entropy", Softmax()).values(logits, one_hot(labels, 4, np.float64))
    expected = log_loss(labels, forward(Softmax(), logits), labels=range(4))
    assert expected == pytest.approx(values.mean(), rel=1e-12)


def test_sigmoid_cross_entropy_is_the_sum_of_binary_log_losses_of_scikit_learn() -> None:
    logits, targets = normal(50, 4), one_hot(labels_of(50, 4), 4, np.float64)
    columns = zip(targets.T, forward(Sigmoid(), logits).T, strict=True)
    expected = sum(log_loss(y, a, labels=[0, 1]) for y, a in columns)
    values = make_loss("cross_entropy", Sigmoid()).values(logits, targets)
    assert expected == pytest.approx(values.mean(), rel=1e-12)


@every_pair
def test_values_and_errors_agree_with_pytorch(name: str, output: Activation) -> None:
    oracle = pytorch(output)
    torch: Any = pytest.importorskip("torch")
    logits, labels = normal(30, 4), labels_of(30, 4)
    targets = one_hot(labels, 4, np.float64)
    z, y = torch.tensor(logits, requires_grad=True), torch.tensor(targets)
    functional = torch.nn.functional
    if name == "quadratic":
        theirs = functional.mse_loss(oracle(z), y, reduction="none").sum(1) / 2
    elif isinstance(output, Sigmoid):
        gained = output.gain * z
        theirs = functional.binary_cross_entropy_with_logits(gained, y, reduction="none").sum(1)
    else:
        theirs = functional.cross_entropy(z, torch.tensor(labels), reduction="none")
    theirs.sum().backward()
    loss, errors = make_loss(name, output), np.empty_like(logits)
    loss.errors(logits, forward(output, logits), targets, out=errors)
    np.testing.assert_allclose(theirs.detach().numpy(), loss.values(logits, targets), rtol=1e-12)
    np.testing.assert_allclose(z.grad.numpy(), errors, rtol=1e-12, atol=1e-12)


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
def test_extreme_logits_stay_finite_and_of_their_dtype(
    name: str, output: Activation, dtype: DTypeLike
) -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [0, 0]], dtype)
    targets = np.array([[1, 0]] * 3, dtype)
    loss, errors = make_loss(name, output), np.full_like(logits, np.nan)
    values = loss.values(logits, targets)
    loss.errors(logits, forward(output, logits), targets, out=errors)
    assert np.dtype(dtype) == values.dtype
    assert np.isfinite(values).all()
    assert np.isfinite(errors).all()


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_a_single_unit_has_the_log_loss_of_yes_and_no(gain: float) -> None:
    output, logits, labels = Sigmoid(gain), normal(50, 1), labels_of(50, 2)
    values = make_loss("cross_entropy", output).values(logits, make_targets(labels, 1, np.float64))
    expected = log_loss(labels, forward(output, logits)[:, 0], labels=[0, 1])
    assert expected == pytest.approx(values.mean(), rel=1e-12)


@pytest.mark.parametrize(
    "output", [f for f in FUNCTIONS if not isinstance(f, Softmax | Sigmoid)], ids=str
)
def test_cross_entropy_refuses_outputs_that_are_no_probabilities(output: Activation) -> None:
    with pytest.raises(ValueError, match="softmax or sigmoid") as refusal:
        make_loss("cross_entropy", output)
    assert output.name in str(refusal.value)
