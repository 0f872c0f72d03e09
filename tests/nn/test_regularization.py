"""Dropout, label smoothing, clipping, max-norm and averaging agree with their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nnctl.nn.activations import Activation, Softmax, Step, Tanh
from nnctl.nn.adversarial import fast_gradient_step
from nnctl.nn.augmentation import Augmentation, Elastic
from nnctl.nn.backprop import Backpropagation
from nnctl.nn.batches import balanced_weights, smooth
from nnctl.nn.dropout import Dropout
from nnctl.nn.events import EpochDone
from nnctl.nn.examples import Examples, scaled
from nnctl.nn.loop import TrainingLoop
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import mean_loss_and_accuracies, one_hot
from nnctl.nn.network import Layer, Network, Parameters
from nnctl.nn.optimizers import EMA_EVERY, MaxNorm, MovingAverage, Shard, squared_norm
from nnctl.nn.streams import stream
from nnctl.nn.types import Array
from tests.nn.helpers import (
    DIFFERENTIABLE,
    HIDDEN,
    check_resuming,
    clouds,
    differences,
    labels_of,
    make_network,
    make_training,
    normal,
    relative_error,
)


def with_dropout(network: Network, *rates: float) -> Network:
    """Return a copy of the network whose layers have these dropout rates."""
    layers = [
        Layer(layer.units, layer.activation, layer.weights, layer.biases, rate)
        for layer, rate in zip(network.layers, rates, strict=True)
    ]
    dropping = Network(network.sizes[0], layers, network.dtype)
    dropping.parameters.vector[...] = network.parameters.vector
    return dropping


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.99])
def test_dropout_masks_have_their_rate_and_keep_the_mean(rate: float) -> None:
    dropout = Dropout(1, 0.0, [Layer(1000, Tanh(), dropout=rate)], 1000, np.float32)
    dropout.draw(slice(None), np.random.default_rng(0))
    (mask,) = dropout.masks(slice(None))
    assert mask is not None
    kept = mask > 0
    error = 5 * np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) < error
    np.testing.assert_allclose(mask[kept], 1 / (1 - rate), rtol=1e-3)
    assert abs(mask.mean() - 1) < error / (1 - rate)
    # All rows and all columns differ.
    assert len(np.unique(kept, axis=0)) == len(np.unique(kept, axis=1)[0]) == 1000


@pytest.mark.parametrize("hidden", [f for f in HIDDEN if f in DIFFERENTIABLE], ids=str)
def test_backpropagation_computes_the_gradient_under_dropout_masks(hidden: Activation) -> None:
    network = with_dropout(make_network([6, 5, 4, 3], [hidden, "tanh", "softmax"]), 0.4, 0.3, 0.0)
    network.parameters.vector /= 2
    loss = make_loss("cross_entropy", Softmax())
    inputs, targets = normal(7, 6) / 2, one_hot(labels_of(7, 3), 3, np.float64)
    dropout = Dropout(6, 0.0, network.layers, 7, np.float64)
    dropout.draw(slice(None), np.random.default_rng(4))
    masks = dropout.masks(slice(None))
    assert [mask is None for mask in masks] == [False, False, True]
    gradient = Parameters(6, network.layers, np.float64)
    backprop = Backpropagation(network, gradient, 7, dropout=True)
    logits = np.empty((7, 3))

    def mean_loss() -> float:
        backprop.forward(inputs, logits, masks)
        return float(loss.values(logits, targets).mean())

    outputs = backprop.forward(inputs, logits, masks)
    loss.gradient(logits, outputs, targets, out=backprop.output_deltas)
    backprop.output_deltas[...] /= 7
    backprop.backward(inputs)
    expected = differences(mean_loss, network.parameters.vector)
    assert relative_error(gradient.vector, expected) < 1e-6
    assert np.linalg.norm(expected) > 1e-4
    by_inputs = differences(mean_loss, inputs)
    assert relative_error(backprop.input_gradient(), by_inputs) < 1e-6
    assert isinstance(hidden, Step) != (np.linalg.norm(by_inputs) > 1e-4)


def test_evaluation_drops_nothing() -> None:
    plain = make_network([6, 5, 3], ["tanh", "softmax"])
    dropping = with_dropout(plain, 0.5, 0.0)
    inputs = normal(4, 6)
    assert plain.logits(inputs).tobytes() == dropping.logits(inputs).tobytes()
    logits = np.empty((4, 3))
    backprop = Backpropagation(dropping, Parameters(6, dropping.layers, np.float64), 4)
    backprop.forward(inputs, logits)
    np.testing.assert_allclose(plain.logits(inputs), logits)


def test_label_smoothing_is_defined_as_in_szegedy_et_al() -> None:
    targets = one_hot(np.array([2, 0]), 4)
    smoothed = smooth(targets, 0.2)
    np.testing.assert_allclose(smoothed, [[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]])
    single = smooth(np.array([[0.0], [1.0]]), 0.2)
    np.testing.assert_allclose(single, [[0.1], [0.9]])
    assert smooth(targets, 0.0) is targets


def test_adversarial_examples_move_along_the_gradient_by_the_distance() -> None:
    inputs = np.array([[1, 1], [2, 2], [3, 3], [4, 4]], np.float32)
    errors = np.array([[3e20, 4e20], [-6e-9, 8e-9], [0, 0], [1e-30, 0]], np.float32)
    fast_gradient_step(inputs, errors, 0.5)
    moved = np.array([[1.3, 1.4], [1.7, 2.4], [3, 3], [4, 4]], np.float32)
    np.testing.assert_allclose(inputs, moved, rtol=1e-6)


@pytest.mark.parametrize("scale", [1, 1e20])
def test_only_long_columns_are_scaled_down_even_if_their_squares_overflow(scale: float) -> None:
    weights = np.array([[3 * scale, 0.6, 0.0], [4 * scale, 0.8, 0.0]], np.float32)
    assert squared_norm(weights[:, 0]) == pytest.approx(25 * scale**2, rel=1e-6)
    MaxNorm(2.0).update(shard_of(weights), 0.1, 1)
    np.testing.assert_allclose(weights, [[1.2, 0.6, 0], [1.6, 0.8, 0]], rtol=1e-6)


def test_an_exploding_gradient_is_clipped() -> None:
    network = make_network([16, *[64] * 12, 3], [*["relu"] * 12, "softmax"], np.float32)
    network.parameters.vector[...] = 8 * normal(network.parameters.vector.size)
    before = network.parameters.vector.copy()
    assert all(make_training(network, squares(30), 1.0, batch_size=30, clip_norm=1.0))
    assert np.linalg.norm(network.parameters.vector - before) == pytest.approx(1, rel=0.01)


def test_the_moving_average_follows_its_formula() -> None:
    average, expected = np.zeros(1), 0.0
    parameters = np.zeros((1, 1))
    shard = shard_of(parameters, average=average)
    for count in range(1, 5 * EMA_EVERY):
        value = math.sin(count)
        parameters.fill(value)
        MovingAverage(0.7).update(shard, 0.1, count)
        if count in (EMA_EVERY, 2 * EMA_EVERY, 3 * EMA_EVERY, 4 * EMA_EVERY):
            decay = min(0.7, count / (count + 10)) ** EMA_EVERY
            expected = decay * expected + (1 - decay) * value
        assert average[0] == pytest.approx(expected)


@pytest.mark.parametrize(("steps", "is_average"), [(EMA_EVERY - 1, False), (EMA_EVERY, True)])
def test_the_averaged_network_is_used_after_the_first_stride(steps: int, is_average: bool) -> None:
    network = make_network([12, 3], ["softmax"], np.float32)
    training = make_training(network, clouds(100), 0.1, steps=steps, average=0.9)
    list(training)
    evaluated = training.eval_network.parameters.vector
    assert is_average == (not np.array_equal(network.parameters.vector, evaluated))


def shard_of(weights: Array, **state: Array) -> Shard:
    """Return the shard of a network that consists of one matrix of weights."""
    vector = weights.reshape(-1)
    return Shard(vector, np.zeros_like(vector), vector, [weights], state)


def classifier() -> Network:
    network = make_network([16, 8, 6, 3], ["relu", "tanh", "softmax"], np.float32)
    network.parameters.vector[...] = normal(network.parameters.vector.size) / 6
    return network


def squares(count: int, seed: int = 0) -> Examples:
    """Return examples of 3 classes that are images of 4 x 4 pixels."""
    examples = clouds(count, seed=seed)
    return Examples(np.pad(examples.inputs, ((0, 0), (2, 2))), examples.labels)


def passes_over(network: Network, count: int) -> tuple[Backpropagation, Parameters]:
    """Return a `Backpropagation` for a number of examples, and the gradient that it writes."""
    gradient = Parameters(network.sizes[0], network.layers)
    return Backpropagation(network, gradient, count), gradient


def run_passes(backprop: Backpropagation, inputs: Array, targets: Array, weights: Array) -> float:
    """Run both passes with softmax and cross-entropy; return the mean of the weighted losses."""
    loss, logits = make_loss("cross_entropy", Softmax()), np.empty_like(targets)
    outputs = backprop.forward(inputs, logits)
    loss.gradient(logits, outputs, targets, out=backprop.output_deltas)
    backprop.output_deltas[...] *= weights[:, None]
    backprop.propagate()
    return float((loss.values(logits, targets) * weights).mean())


EVERYTHING: dict[str, Any] = {
    "augmentation": Augmentation(shift=1, rotate=9, elastic=Elastic(3, 2), noise=0.1),
    "input_dropout": 0.2,
    "label_smoothing": 0.1,
    "class_weights": np.array([0.5, 1.0, 1.5], np.float32),
    "adversarial": 0.3,
    "clip_norm": 0.5,
    "max_norm": 1.0,
    "average": 0.9,
}
EACH_SETTING = [
    {},
    *({name: value} for name, value in EVERYTHING.items()),
    EVERYTHING,
]


def names(regularization: dict[str, Any]) -> str:
    return "-".join(regularization) or "none"


@pytest.mark.parametrize("regularization", EACH_SETTING, ids=names)
def test_the_number_of_threads_changes_only_rounding_errors(regularization: dict[str, Any]) -> None:
    trained = []
    for threads in (1, 3):
        network = with_dropout(classifier(), 0.3, 0.2, 0.0)
        training = make_training(
            *(network, squares(700), 0.1),
            epochs=2,
            batch_size=30,
            threads=threads,
            momentum=0.9,
            seed=3,
            **regularization,
        )
        assert all(event for event in training)
        trained.append(np.concatenate([network.parameters.vector, *training.state.values()]))
    np.testing.assert_allclose(trained[0], trained[1], atol=2e-4)


@pytest.mark.parametrize("regularization", EACH_SETTING, ids=names)
def test_resuming_after_any_event_gives_the_same_bits(regularization: dict[str, Any]) -> None:
    check_resuming(
        lambda: make_training(
            *(with_dropout(classifier(), 0.3, 0.0, 0.0), squares(300), 0.1),
            epochs=2,
            batch_size=30,
            momentum=0.9,
            seed=3,
            **regularization,
        )
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_a_clipped_step_keeps_its_direction(threads: int) -> None:
    steps = []
    for bound in (None, 1e-3):
        network = classifier()
        before = network.parameters.vector.copy()
        given: dict[str, Any] = {"clip_norm": bound}
        list(make_training(network, squares(30), 0.1, batch_size=30, threads=threads, **given))
        steps.append(network.parameters.vector - before)
    free, clipped = steps
    expected = 0.1 * 1e-3 * free / np.linalg.norm(free)
    assert relative_error(clipped, expected) < 1e-2


@pytest.mark.parametrize("threads", [1, 3])
def test_no_unit_has_longer_weights_than_max_norm(threads: int) -> None:
    network = classifier()
    given: dict[str, Any] = {"epochs": 3, "max_norm": 0.5}
    for event in make_training(network, squares(300), 1.0, threads=threads, **given):
        if isinstance(event, EpochDone):
            weights = network.parameters.weights
            longest = max(np.linalg.norm(layer, axis=0).max() for layer in weights)
            assert 0.49 < longest < 0.5 * (1 + 1e-6)


def test_validation_uses_the_averaged_weights() -> None:
    network, plain, validation = classifier(), classifier(), squares(60, seed=1)
    given: dict[str, Any] = {"average": 0.99}
    training = make_training(network, squares(300), 0.5, validation=validation, **given)
    *_, done, _ = training
    assert isinstance(done, EpochDone)
    expected = mean_loss_and_accuracies(training.eval_network, training.loss, validation)
    assert (done.val_loss, done.val_accuracy) == expected[:2]
    assert done.val_loss != mean_loss_and_accuracies(network, training.loss, validation)[0]
    list(make_training(plain, squares(300), 0.5))
    assert plain.parameters.vector.tobytes() == network.parameters.vector.tobytes()


@pytest.mark.parametrize("threads", [1, 3])
def test_the_average_covers_all_trainable_parameters(threads: int) -> None:
    def prelus() -> Network:
        return make_network([16, 8, 6, 3], ["prelu", "tanh", "softmax"], np.float32)

    def trained(steps: int, **given: Any) -> TrainingLoop:
        training = make_training(prelus(), squares(300), 0.5, steps=steps, threads=threads, **given)
        list(training)
        return training

    expected = prelus().parameters.vector.copy()
    for count in range(EMA_EVERY, 4 * EMA_EVERY, EMA_EVERY):
        parameters = trained(count).network.parameters.vector
        MovingAverage(0.9).update(shard_of(parameters[None], average=expected), 0.5, count)
    training = trained(4 * EMA_EVERY - 1, average=0.9)
    np.testing.assert_allclose(training.eval_network.parameters.vector, expected, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [30, 300])
@pytest.mark.parametrize(
    ("rate", "regularization", "different"),
    [
        (0.0, {}, 1),
        (0.5, {}, 4),
        (0.0, {"input_dropout": 0.5}, 4),
        (0.0, {"augmentation": Augmentation(shift=1)}, 4),
        (0.0, {"augmentation": Augmentation(noise=0.1)}, 4),
    ],
    ids=str,
)
def test_random_numbers_differ_between_batches_and_epochs(
    batch_size: int, rate: float, regularization: dict[str, Any], different: int
) -> None:
    inputs = squares(1).inputs.repeat(2 * batch_size, axis=0)
    examples = Examples(inputs, np.zeros(len(inputs), np.int64))
    losses = []
    for steps in (1, 2, 3, 4):
        *_, done, _ = make_training(
            *(with_dropout(classifier(), rate, 0.0, 0.0), examples, 0.0),
            epochs=2,
            steps=steps,
            batch_size=batch_size,
            **regularization,
        )
        assert isinstance(done, EpochDone)
        losses.append(done.train_loss)
    assert 1 + np.count_nonzero(np.diff(sorted(losses)) > 1e-5) == different


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "regularization",
    [
        {"adversarial": 0.3},
        {"label_smoothing": 0.2},
        {"class_weights": np.array([0.5, 1.0, 2.5], np.float32)},
        {"input_dropout": 0.4, "adversarial": 0.3},  # dropped inputs are not moved
    ],
    ids=str,
)
def test_a_step_uses_adversarial_examples_smoothed_targets_and_weights(
    regularization: dict[str, Any], threads: int
) -> None:
    network, examples = classifier(), squares(30)
    order = np.random.default_rng(5).permutation(30)  # as `make_training` shuffles
    dropout = Dropout(16, regularization.get("input_dropout", 0.0), network.layers, 30, np.float32)
    dropout.draw(slice(None), stream(3, "dropout", 0, 0))
    mask = np.ones((30, 16), np.float32) if dropout.of_inputs is None else dropout.of_inputs
    inputs, targets = scaled(examples.inputs[order]), one_hot(examples.labels[order], 3)
    if "label_smoothing" in regularization:
        targets = 0.8 * targets + 0.2 / 3
    backprop, gradient = passes_over(network, 30)
    weights = regularization.get("class_weights", np.ones(3, np.float32))[examples.labels[order]]
    loss = run_passes(backprop, inputs * mask, targets, weights)
    if "adversarial" in regularization:
        fast_gradient_step(inputs, backprop.input_gradient() * mask, 0.3)
        loss = run_passes(backprop, inputs * mask, targets, weights)
    backprop.backward(inputs * mask)
    before = network.parameters.vector.copy()
    given: dict[str, Any] = {"threads": threads, "seed": 3, **regularization}
    *_, done, _ = make_training(network, examples, 0.1, batch_size=30, **given)
    assert isinstance(done, EpochDone)
    step = network.parameters.vector - before
    assert relative_error(-0.1 * gradient.vector / 30, step) < 1e-4
    assert done.train_loss == pytest.approx(loss, rel=1e-5)


def test_balanced_weights_give_each_class_the_same_share_of_the_loss() -> None:
    labels = np.repeat([0, 1, 3], [10, 2, 8])
    weights = balanced_weights(labels, 5)
    assert weights.dtype == np.float32
    shares = [weights[labels[labels == label]].sum() for label in (0, 1, 3)]
    np.testing.assert_allclose(shares, len(labels) / 3, rtol=1e-6)
    assert weights[[2, 4]].tolist() == [0, 0]
