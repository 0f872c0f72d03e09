"""Losses against textbook formulas, scikit-learn, PyTorch and finite differences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike
from sklearn.metrics import log_loss

from nnctl.nn.activations import ACTIVATIONS, Array
from nnctl.nn.losses import Loss, make_loss
from nnctl.nn.metrics import one_hot
from tests.nn.helpers import PAIRS, labels_of, normal

every_pair = pytest.mark.parametrize(("name", "output"), PAIRS)


def build(name: str, output: str) -> Loss:
    """Return a loss over an activation, both by name."""
    return make_loss(name, ACTIVATIONS[output]())


def outputs_of(output: str, logits: Array) -> Array:
    """Return f(z)."""
    outputs = np.empty_like(logits)
    ACTIVATIONS[output]().forward(logits, outputs)
    return outputs


def textbook(name: str, output: str, a: list[float], y: list[float]) -> float:
    """Return the loss of one example with outputs a and targets y, as a textbook writes it."""
    pairs = list(zip(a, y, strict=True))
    if name == "quadratic":
        return sum((ai - yi) ** 2 for ai, yi in pairs) / 2
    if output == "softmax":
        return -math.log(a[y.index(1)])
    return -sum(yi * math.log(ai) + (1 - yi) * math.log(1 - ai) for ai, yi in pairs)


@every_pair
def test_values_are_those_of_the_textbook(name: str, output: str) -> None:
    """Computed from logits, they equal the formulas over outputs."""
    logits, targets = normal(30, 4), one_hot(labels_of(30, 4), 4, np.float64)
    answers = zip(outputs_of(output, logits).tolist(), targets.tolist(), strict=True)
    expected = [textbook(name, output, a, y) for a, y in answers]
    np.testing.assert_allclose(expected, build(name, output).values(logits, targets), rtol=1e-11)


@every_pair
def test_errors_are_the_derivative_of_the_values(name: str, output: str) -> None:
    """By central differences, logit by logit."""
    loss, step = build(name, output), 1e-6
    logits, targets = normal(30, 4), one_hot(labels_of(30, 4), 4, np.float64)
    logits[abs(logits) < 1e-3] = 1  # away from kinks
    expected, actual = np.empty_like(logits), np.empty_like(logits)
    for unit in range(4):
        moved = step * np.eye(4)[unit]
        above, below = loss.values(logits + moved, targets), loss.values(logits - moved, targets)
        expected[:, unit] = (above - below) / (2 * step)
    loss.errors(outputs_of(output, logits), targets, out=actual)
    np.testing.assert_allclose(expected, actual, rtol=1e-6, atol=1e-8)


def test_softmax_cross_entropy_is_the_log_loss_of_scikit_learn() -> None:
    """The mean over examples, natural logarithms."""
    logits, labels = normal(50, 4), labels_of(50, 4)
    values = build("cross_entropy", "softmax").values(logits, one_hot(labels, 4, np.float64))
    expected = log_loss(labels, outputs_of("softmax", logits), labels=range(4))
    assert expected == pytest.approx(values.mean(), rel=1e-12)


def test_sigmoid_cross_entropy_is_the_sum_of_binary_log_losses_of_scikit_learn() -> None:
    """Each unit answers a question of its own."""
    logits, targets = normal(50, 4), one_hot(labels_of(50, 4), 4, np.float64)
    columns = zip(targets.T, outputs_of("sigmoid", logits).T, strict=True)
    expected = sum(log_loss(y, a, labels=[0, 1]) for y, a in columns)
    values = build("cross_entropy", "sigmoid").values(logits, targets)
    assert expected == pytest.approx(values.mean(), rel=1e-12)


@every_pair
def test_values_and_errors_agree_with_pytorch(name: str, output: str) -> None:
    """PyTorch's loss over its own activation, and the derivative that it finds."""
    torch: Any = pytest.importorskip("torch")
    functional = torch.nn.functional
    logits, labels = normal(30, 4), labels_of(30, 4)
    targets = one_hot(labels, 4, np.float64)
    z, y = torch.tensor(logits, requires_grad=True), torch.tensor(targets)
    if name == "quadratic":
        kinds = {"softmax": lambda z: torch.softmax(z, 1), "linear": torch.clone}
        f = kinds.get(output.replace("identity", "linear")) or getattr(torch, output)
        theirs = functional.mse_loss(f(z), y, reduction="none").sum(1) / 2
    elif output == "softmax":
        theirs = functional.cross_entropy(z, torch.tensor(labels), reduction="none")
    else:
        theirs = functional.binary_cross_entropy_with_logits(z, y, reduction="none").sum(1)
    theirs.sum().backward()
    loss, errors = build(name, output), np.empty_like(logits)
    loss.errors(outputs_of(output, logits), targets, out=errors)
    np.testing.assert_allclose(theirs.detach().numpy(), loss.values(logits, targets), rtol=1e-12)
    np.testing.assert_allclose(z.grad.numpy(), errors, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("output", "expected"),
    [("softmax", [0, 20_000, math.log(2)]), ("sigmoid", [0, 20_000, 10_000])],
)
def test_cross_entropy_of_extreme_logits_is_exact(output: str, expected: list[float]) -> None:
    """Right beyond doubt costs nothing, wrong beyond doubt the distance; nothing overflows."""
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4]], np.float32)
    targets = np.array([[1, 0]] * 3, np.float32)
    actual = build("cross_entropy", output).values(logits, targets)
    np.testing.assert_allclose(expected, actual, rtol=1e-6)


@every_pair
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_stay_finite_and_of_their_dtype(
    name: str, output: str, dtype: DTypeLike
) -> None:
    """Values and errors alike, without a warning."""
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [0, 0]], dtype)
    targets = np.array([[1, 0]] * 3, dtype)
    loss, errors = build(name, output), np.full_like(logits, np.nan)
    values = loss.values(logits, targets)
    loss.errors(outputs_of(output, logits), targets, out=errors)
    assert np.dtype(dtype) == values.dtype
    assert np.isfinite(values).all()
    assert np.isfinite(errors).all()


@pytest.mark.parametrize("output", ["relu", "linear", "identity", "tanh"])
def test_cross_entropy_refuses_outputs_that_are_no_probabilities(output: str) -> None:
    """The message names the activations that it is defined over."""
    with pytest.raises(ValueError, match="softmax or sigmoid") as refusal:
        build("cross_entropy", output)
    assert ACTIVATIONS[output].name in str(refusal.value)
