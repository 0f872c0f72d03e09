"""Metrics agree with scikit-learn and with their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from sklearn.metrics import precision_recall_fscore_support

from nnctl.nn.examples import Examples, scaled
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import (
    calibration,
    class_metrics,
    confusion_matrix,
    expected_calibration_error,
    logits_of,
    make_targets,
    mean_loss_and_accuracies,
    one_hot,
)
from nnctl.nn.network import Network
from tests.nn.helpers import clouds, make_network

digits = st.integers(0, 9)
few = settings(max_examples=30)


@few
@given(st.lists(st.tuples(digits, digits), min_size=1, max_size=60))
def test_class_metrics_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, predictions = np.array(pairs, np.uint8).T
    confusion = confusion_matrix(labels, predictions, classes=10)
    np.testing.assert_array_equal(
        sklearn_confusion_matrix(labels, predictions, labels=range(10)), confusion
    )
    expected = precision_recall_fscore_support(
        labels, predictions, labels=range(10), zero_division=0
    )
    actual = [(m.precision, m.recall, m.f1, m.support) for m in class_metrics(confusion)]
    np.testing.assert_allclose(np.transpose(expected), actual, rtol=0, atol=1e-12)


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    expected = [[0, 2, 0], [0, 1, 0], [0, 0, 0]]
    assert expected == confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 3).tolist()


def test_one_hot_rows_have_their_1_at_the_label() -> None:
    targets = one_hot(np.array([2, 0], np.uint8), 3, np.float64)
    assert targets.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert np.float64 == targets.dtype


def test_the_targets_of_a_single_unit_are_its_labels() -> None:
    labels = np.array([1, 0, 1], np.uint8)
    assert make_targets(labels, 1, np.float64).tolist() == [[1], [0], [1]]
    np.testing.assert_array_equal(one_hot(labels, 2), make_targets(labels, 2))
    for units in (1, 2):
        assert np.float32 == make_targets(labels, units).dtype


def test_bytes_are_scaled_to_0_to_1() -> None:
    for dtype in (np.float32, np.float64):
        values = scaled(np.array([0, 51, 255], np.uint8), dtype)
        assert [0, pytest.approx(0.2), 1] == values.tolist()
        assert dtype == values.dtype


@pytest.mark.parametrize("count", [1, 2000, 4500])
def test_bytes_and_floats_give_the_same_logits(count: int) -> None:
    network = make_network([12, 5, 3], ["relu", "softmax"], np.float32)
    pixels = clouds(count).inputs
    logits = logits_of(network, pixels)
    np.testing.assert_array_equal(logits, logits_of(network, scaled(pixels)))
    np.testing.assert_allclose(network.logits(scaled(pixels)), logits, rtol=1e-4, atol=1e-5)


def test_mean_loss_and_accuracy_are_means_over_all_examples() -> None:
    examples = clouds(4500)
    network = make_network([12, 3], ["softmax"])
    (weights,), (biases,) = network.parameters.weights, network.parameters.biases
    logits = examples.inputs / 255 @ weights + biases
    outputs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(outputs[np.arange(4500), examples.labels]).mean()
    check_mean(network, examples, expected, outputs.argmax(axis=1) == examples.labels)


def test_a_single_unit_is_a_binary_classifier() -> None:
    examples = clouds(500)
    examples = Examples(examples.inputs, examples.labels % 2)
    network = make_network([12, 1], ["sigmoid"])
    (weights,), (biases,) = network.parameters.weights, network.parameters.biases
    z = (examples.inputs / 255 @ weights + biases)[:, 0]
    signed = np.where(examples.labels, -z, z)
    check_mean(network, examples, np.log1p(np.exp(signed)).mean(), signed < 0)


def test_a_class_without_examples_has_no_accuracy() -> None:
    network = make_network([12, 3], ["softmax"])
    examples = clouds(50)
    only_twos = Examples(examples.inputs, np.full(50, 2))
    loss = make_loss("cross_entropy", network.layers[-1].activation)
    _, accuracy, accuracies = mean_loss_and_accuracies(network, loss, only_twos)
    assert accuracies == [None, None, accuracy]


def check_mean(network: Network, examples: Examples, expected: float, right: Any) -> None:
    """Check the mean cross-entropy and the accuracy of a network."""
    loss = make_loss("cross_entropy", network.layers[-1].activation)
    mean, accuracy, accuracies = mean_loss_and_accuracies(network, loss, examples)
    assert expected == pytest.approx(mean, rel=1e-12)
    assert right.mean() == accuracy
    assert accuracies == [right[examples.labels == c].mean() for c in range(len(accuracies))]
    assert 0 < accuracy < 1


@few
@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60))
def test_calibration_agrees_with_scikit_learn(pairs: list[tuple[float, bool]]) -> None:
    confidences = np.array([np.floor(p * 9.99) / 10 + 0.05 for p, _ in pairs], np.float32)
    right = np.array([hit for _, hit in pairs])
    bins = calibration(confidences, right)
    accuracy, confidence = calibration_curve(right, confidences, n_bins=10)
    np.testing.assert_allclose(accuracy, [one.accuracy for one in bins])
    np.testing.assert_allclose(confidence, [one.confidence for one in bins], atol=1e-6)
    assert len(pairs) == sum(one.count for one in bins)


def test_the_calibration_error_is_defined_as_in_guo_et_al() -> None:
    bins = calibration(np.array([1, 1, 1, 0.5], np.float32), np.array([True, True, False, True]))
    assert [(one.low, one.high, one.count) for one in bins] == [(0.5, 0.6, 1), (0.9, 1.0, 3)]
    assert expected_calibration_error(bins) == pytest.approx((3 * (1 / 3) + 0.5) / 4)
    assert expected_calibration_error([]) == 0
