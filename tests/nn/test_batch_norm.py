"""Batch normalization: gradients, running statistics, threads, resuming and folding."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from nnctl.nn.activations import Activation, Maxout, PReLU, Sigmoid, Step, Tanh
from nnctl.nn.backprop import Backpropagation
from nnctl.nn.events import Finished
from nnctl.nn.gradient_check import check_gradient
from nnctl.nn.initializers import Normal
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import one_hot
from nnctl.nn.network import BatchNorm, Layer, Network, Parameters
from nnctl.nn.optimizers import Adam
from nnctl.nn.types import Array
from tests.nn.helpers import (
    DIFFERENTIABLE,
    HIDDEN,
    bits,
    check_resuming,
    clouds,
    differences,
    make_network,
    make_training,
    normal,
    relative_error,
    rows_of,
)

BEFORE, AFTER = BatchNorm(position="before"), BatchNorm(position="after", momentum=0.8)
BOTH = pytest.mark.parametrize("batch_norm", [BEFORE, AFTER], ids=["before", "after"])


def measured(network: Network) -> Network:
    """Set the running statistics of a network to some values."""
    network.statistics[...] = np.random.default_rng(7).uniform(0.2, 2, network.statistics.size)
    return network


@BOTH
@pytest.mark.parametrize("hidden", [f for f in HIDDEN if f in DIFFERENTIABLE], ids=str)
def test_the_gradient_agrees_with_central_differences(
    hidden: Activation, batch_norm: BatchNorm
) -> None:
    network = make_network([6, 5, 5, 4], [hidden, hidden, "softmax"], batch_norm=batch_norm)
    loss = make_loss("cross_entropy", network.layers[-1].activation)
    inputs, targets = normal(7, 6, seed=3) / 2, one_hot(np.arange(7) % 4, 4, np.float64)
    rng = np.random.default_rng(0)
    errors = check_gradient(network, loss, inputs, targets, samples=10**6, rng=rng)
    assert max(error.largest for error in errors) < 1e-6
    compared = sum(error.checked + error.skipped for error in errors)
    assert compared == network.parameters.vector.size
    if not isinstance(hidden, Step):
        assert min(error.steepest for error in errors) > 1e-3
        assert sum(error.checked for error in errors) > 0.9 * compared


@BOTH
def test_the_gradient_is_correct_with_dropout(batch_norm: BatchNorm) -> None:
    network = make_network([6, 5, 5, 4], [PReLU(), Maxout(), "softmax"], batch_norm=batch_norm)
    layers = [*network.layers]
    layers[0] = Layer(5, PReLU(), dropout=0.4, batch_norm=batch_norm)
    dropping = Network(6, layers, np.float64)
    dropping.parameters.vector[...] = network.parameters.vector
    loss = make_loss("cross_entropy", layers[-1].activation)
    inputs, targets = normal(7, 6, seed=3) / 2, one_hot(np.arange(7) % 4, 4, np.float64)
    masks = [(np.random.default_rng(1).random((7, 5)) > 0.4) / 0.6, None, None]
    gradient, logits = Parameters(6, layers, np.float64), np.empty((7, 4))
    backprop = Backpropagation(dropping, gradient, 7, dropout=True)

    def mean_loss() -> float:
        backprop.forward(inputs, logits, masks)
        return float(loss.values(logits, targets).mean())

    expected = differences(mean_loss, dropping.parameters.vector)
    outputs = backprop.forward(inputs, logits, masks)
    loss.gradient(logits, outputs, targets, out=backprop.output_deltas)
    backprop.output_deltas[...] /= 7
    assert relative_error(backprop.backward(inputs), expected) < 1e-7


def test_training_uses_the_statistics_of_the_batch() -> None:
    for settings in (BEFORE, AFTER):
        network = measured(make_network([6, 5, 4], ["tanh", "softmax"], batch_norm=settings))
        parameters, inputs = network.parameters, normal(7, 6)
        z = inputs @ parameters.weights[0] + parameters.biases[0]
        x = z if settings.position == "before" else np.tanh(z)
        y = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5) * parameters.gains[0]
        y += parameters.shifts[0]
        expected = np.tanh(y) if settings.position == "before" else y
        backprop = Backpropagation(network, Parameters(6, network.layers, np.float64), 7)
        backprop.forward(inputs, np.empty((7, 4)))
        np.testing.assert_allclose(backprop.outputs[0], expected, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(network.propagate(0, inputs, of_batch=True), expected, atol=1e-9)
        np.testing.assert_allclose(backprop.activations[0], np.tanh(y if x is z else z), atol=1e-9)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_running_statistics_are_averages_over_batches_of_two_or_more(threads: int) -> None:
    examples = clouds(21)
    network = make_network([12, 5, 3], ["tanh", "softmax"], batch_norm=AFTER)
    network.statistics[...] = [*[0] * 5, *[1] * 5]
    training = make_training(network, examples, 0.0, epochs=2, threads=threads)
    list(training)
    a = np.tanh(
        examples.inputs / 255 @ network.parameters.weights[0] + network.parameters.biases[0]
    )
    mean, variance = np.zeros(5), np.ones(5)
    shuffle = np.random.default_rng(5)
    for _ in range(2):
        order = shuffle.permutation(21)
        for chosen in (order[:10], order[10:20]):  # the last batch has one example
            mean = 0.8 * mean + 0.2 * a[chosen].mean(axis=0)
            variance = 0.8 * variance + 0.2 * a[chosen].var(axis=0)
    np.testing.assert_allclose(network.statistics, [*mean, *variance], rtol=1e-12)
    assert np.isfinite(network.parameters.vector).all()


def test_evaluation_uses_running_statistics_and_folding_keeps_the_outputs() -> None:
    inputs = normal(9, 6)
    for first, second in ((BEFORE, BEFORE), (AFTER, AFTER), (AFTER, BEFORE), (None, AFTER)):
        layers = [
            Layer(5, PReLU(), batch_norm=first),
            Layer(4, Maxout(), batch_norm=second),
            Layer(3, Sigmoid()),
        ]
        network = Network(6, layers, np.float64)
        network.initialize(np.random.default_rng(0))
        measured(network)
        network.parameters.vector += normal(network.parameters.vector.size, seed=2) / 9
        logits = network.logits(inputs)
        np.testing.assert_allclose(logits[:1], network.logits(inputs[:1]), rtol=1e-12)
        plain = network.folded()
        assert not any(layer.batch_norm for layer in plain.layers)
        assert plain is plain.folded()
        np.testing.assert_allclose(logits, plain.logits(inputs), rtol=1e-12)
        np.testing.assert_allclose(logits, network.as_float64().logits(inputs), rtol=1e-12)
        np.testing.assert_array_equal(network.scaled(1).logits(inputs), plain.logits(inputs))
        for i in range(3):  # the z of a layer are the same, too
            a, b = ([inputs, *one.activations(inputs)][i] for one in (network, plain))
            z = network.weighted_inputs(i, a)
            np.testing.assert_allclose(z, plain.weighted_inputs(i, b), rtol=1e-12)


EVERYTHING: dict[str, Any] = {
    "momentum": 0.9,
    "weight_decay": 1e-3,
    "clip_norm": 1.0,
    "max_norm": 3.0,
    "average": 0.99,
    "adversarial": 0.3,
    "epochs": 2,
}


def classifier(batch_norm: BatchNorm, dtype: Any = np.float32) -> Network:
    return make_network([12, 8, 7, 3], ["relu", "prelu", "softmax"], dtype, batch_norm)


@BOTH
def test_threads_give_the_same_result_up_to_rounding_and_always_the_same_bits(
    batch_norm: BatchNorm,
) -> None:
    outcomes: dict[int, Array] = {}
    for threads in (1, 2, 3):
        trainings = []
        for _ in range(2):
            network = classifier(batch_norm, np.float64)
            training = make_training(
                network, clouds(203), 0.1, threads=threads, validation=clouds(50), **EVERYTHING
            )
            trainings.append((rows_of(list(training)), bits(training)))
        assert trainings[0] == trainings[1]
        outcomes[threads] = np.concatenate([network.parameters.vector, network.statistics])
    np.testing.assert_allclose(outcomes[2], outcomes[1], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(outcomes[3], outcomes[1], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_resumed_training_gives_the_same_bits(threads: int) -> None:
    check_resuming(
        lambda: make_training(
            classifier(AFTER),
            clouds(603),
            0.05,
            threads=threads,
            optimizer=Adam(),
            average=0.9,
            epochs=2,
            validation=clouds(50),
        )
    )


def test_averaged_weights_are_evaluated_with_the_statistics_of_the_trained_network() -> None:
    network = classifier(BEFORE)
    training = make_training(network, clouds(300), 0.1, average=0.9)
    list(training)
    evaluated = training.eval_network
    assert evaluated is not network
    np.testing.assert_array_equal(evaluated.statistics, network.statistics)
    assert not np.array_equal(evaluated.parameters.vector, network.parameters.vector)


def test_weight_decay_changes_neither_gain_nor_shift() -> None:
    outcomes = []
    for decay in (0.0, 0.5):
        network = classifier(BEFORE)
        list(make_training(network, clouds(10), 1e-9, weight_decay=decay * 1e8))
        outcomes.append(np.concatenate([*network.parameters.gains, *network.parameters.shifts]))
        assert outcomes[-1].size == 2 * (8 + 7)
    np.testing.assert_array_equal(outcomes[0], outcomes[1])


@pytest.mark.parametrize("position", ["before", "after"])
def test_five_layers_with_small_initial_weights_learn_only_with_batch_normalization(
    position: Literal["before", "after"],
) -> None:
    """From Scratch, 6.3.2: 1,000 examples, and initial weights of standard deviation 0.01."""
    examples, accuracies = clouds(1000, noise=60), []
    for batch_norm in (None, BatchNorm(position=position)):
        hidden = Layer(30, Tanh(), Normal(std=0.01), batch_norm=batch_norm)
        output = make_network([1, 3], ["softmax"]).layers[0]
        network = Network(12, [*[hidden] * 5, output])
        network.initialize(np.random.default_rng(0))
        training = make_training(
            network, examples, 0.05, batch_size=100, epochs=5, validation=clouds(300, noise=60)
        )
        *_, last = rows_of(list(training))
        assert last.val_accuracy is not None
        accuracies.append(last.val_accuracy)
        assert (last.health[2].std > 0.1) == (batch_norm is not None)
    assert accuracies[0] < 0.5 < 0.95 < accuracies[1]


@BOTH
@pytest.mark.parametrize("threads", [1, 2])
def test_inputs_too_large_for_their_squares_end_the_training(
    threads: int, batch_norm: BatchNorm
) -> None:
    network = make_network([12, 5, 4, 3], ["linear", "linear", "softmax"], np.float32, batch_norm)
    network.parameters.weights[1][...] *= 1e25
    training = make_training(network, clouds(50), 0.1, threads=threads)
    *_, last = training
    assert isinstance(last, Finished)
    assert last.reason == "diverged"
    assert last.divergence is not None
    assert (last.divergence.layer, last.divergence.what) == (2, "outputs")


def test_batches_of_one_example_learn_only_above_the_normalization() -> None:
    network = classifier(BEFORE)
    weights = network.parameters.weights[0].copy()
    statistics = network.statistics.copy()
    list(make_training(network, clouds(9), 0.1, batch_size=1))
    np.testing.assert_array_equal(weights, network.parameters.weights[0])
    np.testing.assert_array_equal(statistics, network.statistics)
