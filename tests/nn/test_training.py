"""The training loop agrees with a textbook; its events, early stopping and divergence."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from nnctl.data.dataset import hold_out, open_dataset
from nnctl.nn.activations import Activation, Linear, Step
from nnctl.nn.events import BatchesDone, Divergence, EpochDone, Event, Finished
from nnctl.nn.examples import Examples, scaled
from nnctl.nn.gradient_check import backpropagated_gradient
from nnctl.nn.health import Probe
from nnctl.nn.losses import Quadratic, make_loss
from nnctl.nn.metrics import make_targets, mean_loss_and_accuracies
from nnctl.nn.network import Network, Parameters
from nnctl.nn.optimizers import Adam
from nnctl.nn.schedules import CosineSchedule, ExponentialSchedule, PlateauSchedule
from nnctl.nn.state import Best, EarlyStopping
from nnctl.nn.types import Array
from tests.nn.helpers import (
    HIDDEN,
    bits,
    check_resuming,
    clouds,
    make_network,
    make_training,
    normal,
    rows_of,
    textbook_training,
)

NESTEROV: dict[str, Any] = {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}
RULES: list[dict[str, Any]] = [{}, {"momentum": 0.9}, {"weight_decay": 0.1}, NESTEROV]
EVERYTHING: dict[str, Any] = {
    **NESTEROV,
    "epochs": 3,
    "batch_size": 30,
    "schedule": CosineSchedule(warmup=1.5),
}
"""Settings with a state to resume: velocity, schedule, shuffling, a smaller last batch."""

NOISY = clouds(60, noise=150, seed=1)
"""Validation examples so noisy that accuracy and loss go up and down."""


def classifier(hidden: str | Activation = "sigmoid", dtype: type = np.float32) -> Network:
    network = make_network([12, 8, 6, 3], [hidden, hidden, "softmax"], dtype)
    network.parameters.vector[...] = normal(network.parameters.vector.size) / 6
    return network


def copied(network: Network) -> tuple[list[Array], list[Array]]:
    """Return copies of a network's weights and biases."""
    parameters = copy.deepcopy((network.parameters.weights, network.parameters.biases))
    return parameters[0], parameters[1]


PRECISIONS = [(np.float64, 1e-10, 1), (np.float64, 1e-10, 20), (np.float32, 1e-4, 2)]
"""Data type, tolerance and number of threads."""


@pytest.mark.parametrize(
    ("rule", "hidden", "precision", "steps"),
    [
        *itertools.product(RULES, ["sigmoid", "relu"], PRECISIONS, [None]),
        *itertools.product([{"momentum": 0.5}], ["sigmoid"], PRECISIONS[:1], [1, 62, 63, 150, 999]),
    ],
    ids=str,
)
def test_training_agrees_with_a_textbook_implementation(
    rule: dict[str, Any], hidden: str, precision: tuple[type, float, int], steps: int | None
) -> None:
    dtype, tolerance, threads = precision
    end = min(steps or 999, 3 * 62)
    schedule = ExponentialSchedule(warmup=1.5, gamma=0.7) if steps is None else CosineSchedule()

    def rate(time: float) -> float:
        if steps is None:
            return 0.1 * min(1, time / 1.5) * 0.7 ** math.floor(time)
        return 0.1 * (1 + math.cos(math.pi * time * 62 / end)) / 2

    examples, network = clouds(1237), classifier(hidden, dtype)
    shape: dict[str, Any] = {"epochs": 3, "batch_size": 20, **rule}
    given = {"schedule": schedule, "threads": threads, "steps": steps, **shape}
    events = list(make_training(network, examples, 0.1, **given))
    weights, biases = copied(classifier(hidden, np.float64))
    textbook = textbook_training(weights, biases, examples, rate, hidden=hidden, **shape)
    textbook_steps = list(itertools.islice(textbook, end))
    trained = network.parameters
    for expected, actual in zip(
        [*weights, *biases], [*trained.weights, *trained.biases], strict=True
    ):
        np.testing.assert_allclose(expected, actual, rtol=tolerance, atol=tolerance)
    rows = rows_of(events)
    assert math.ceil(end / 62) == len(rows)
    for i, row in enumerate(rows):
        losses, hits = zip(*textbook_steps[62 * i : 62 * (i + 1)], strict=True)
        examples_seen = len(np.concatenate(losses))
        assert np.concatenate(losses).mean() == pytest.approx(row.train_loss, rel=tolerance)
        assert sum(hits) == pytest.approx(row.train_accuracy * examples_seen, abs=0.5)
        assert rate(i + (len(hits) // 2 + 0.5) / 62) == pytest.approx(row.learning_rate)
    last = end - 62 * (len(rows) - 1)
    assert (events[-3], events[-1]) == (BatchesDone(len(rows), last, last), Finished("finished"))


def test_measuring_health_does_not_change_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = make_training(classifier(), clouds(500), 0.1, **EVERYTHING, validation=NOISY)
    unmeasured = make_training(classifier(), clouds(500), 0.1, **EVERYTHING, validation=NOISY)
    rows = rows_of(list(measured))
    monkeypatch.setattr(Probe, "measure", lambda *_: [])
    rows_without_health = rows_of(list(unmeasured))
    assert bits(measured) == bits(unmeasured)
    assert [dataclasses.replace(row, health=[]) for row in rows] == rows_without_health
    assert all(len(row.health) == 3 for row in rows)


@dataclass(frozen=True)
class _Recording(Quadratic):
    """A loss that records the example numbers of each batch; the outputs are these numbers."""

    batches: list[list[int]] = field(default_factory=list)

    def gradient(self, logits: Array, outputs: Array, targets: Array, out: Array) -> Array:
        self.batches.append(outputs[:, 0].round().astype(int).tolist())
        return super().gradient(logits, outputs, targets, out)


@pytest.mark.parametrize(
    "hidden", [f for f in HIDDEN if f not in (Step(), Step(at_zero=1))], ids=str
)
def test_every_hidden_activation_learns(hidden: Activation) -> None:
    network = make_network([12, 10, 3], [hidden, "softmax"], np.float32)
    examples = clouds(500, noise=40)
    *_, last = rows_of([*make_training(network, examples, 0.1, epochs=10, momentum=0.5)])
    assert last.train_loss < math.log(3) / 2
    assert last.train_accuracy > 0.9


def test_slopes_are_learned_and_do_not_decay() -> None:
    examples, rule = clouds(50), {"batch_size": 50, "weight_decay": 0.5}
    network = make_network([12, 8, 3], ["prelu", "softmax"])
    before = copy.deepcopy(network.parameters.slopes[0])
    targets = make_targets(examples.labels, 3, np.float64)
    loss = make_loss("cross_entropy", network.layers[-1].activation)
    inputs = scaled(examples.inputs, np.float64)
    gradient = backpropagated_gradient(network, loss, inputs, targets).slopes[0]
    list(make_training(network, examples, 0.1, **rule))
    assert np.linalg.norm(gradient) > 1e-3
    np.testing.assert_allclose(before - 0.1 * gradient, network.parameters.slopes[0], rtol=1e-12)


def test_a_single_output_learns_a_binary_task() -> None:
    examples = clouds(500, noise=40)
    examples = Examples(examples.inputs, examples.labels % 2)
    network = make_network([12, 8, 1], ["tanh", "sigmoid"], np.float32)
    given: dict[str, Any] = {"epochs": 20, "validation": examples}
    *_, last = rows_of([*make_training(network, examples, 0.3, **given)])
    assert last.train_accuracy > 0.95
    assert last.val_accuracy is not None
    assert last.val_accuracy > 0.95


def orders_of(**given: Any) -> list[list[list[int]]]:
    """Return the example numbers of each batch in three epochs with 2503 examples."""
    numbers = np.arange(2503)
    examples = Examples(np.stack([numbers // 256, numbers % 256], 1).astype(np.uint8), numbers * 0)
    network = make_network([2, 1], ["linear"])
    network.parameters.vector[...] = [256 * 255, 255, 0]
    loss = _Recording(Linear())
    list(make_training(network, examples, 0.0, loss=loss, epochs=3, **given))
    batches = [batch for batch in loss.batches if len(batch) <= 10]  # not those of the probe
    assert len(batches) == 3 * 251
    assert {10, 3} == {len(batch) for batch in batches}
    return [batches[i : i + 251] for i in (0, 251, 502)]


def test_every_epoch_uses_every_example_once_in_a_different_order() -> None:
    epochs, numbers = orders_of(), list(range(2503))
    orders = [[number for batch in epoch for number in batch] for epoch in epochs]
    assert [numbers] * 3 == [sorted(order) for order in orders]
    assert all(orders[i] != order for i in range(3) for order in (*orders[:i], numbers))
    batches = [batch for epoch in epochs for batch in epoch]
    assert all(np.ptp(batch) > 100 for batch in batches if len(batch) == 10)


def test_draws_with_replacement_repeat_examples() -> None:
    seen = [
        {number for batch in epoch for number in batch}
        for epoch in orders_of(with_replacement=True)
    ]
    assert all(numbers <= set(range(2503)) for numbers in seen)
    assert [1 - 1 / math.e] * 3 == pytest.approx([len(s) / 2503 for s in seen], abs=0.03)
    assert seen[0] != seen[1] != seen[2] != seen[0]


def test_events_come_in_order() -> None:
    events = list(make_training(classifier(), clouds(2503), 0.1, epochs=2))
    expected: list[Any] = []
    for epoch in (1, 2):
        expected += [BatchesDone(epoch, batch, 251) for batch in (51, 102, 153, 204, 251)]
        expected.append(epoch)
    actual = [event.epoch if isinstance(event, EpochDone) else event for event in events]
    assert [*expected, Finished("finished")] == actual


def test_a_batch_size_above_the_data_set_size_is_reduced_to_it() -> None:
    trainings = [
        make_training(classifier(), clouds(100), 0.1, epochs=2, batch_size=size)
        for size in (100, 5000)
    ]
    exact, larger = [list(training) for training in trainings]
    assert BatchesDone(1, 1, 1) == larger[0]
    assert rows_of(exact) == rows_of(larger)
    assert bits(trainings[0]) == bits(trainings[1])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(threads: int) -> None:
    def outcome(seed: int) -> tuple[Any, ...]:
        shuffle = np.random.default_rng(seed)
        training = make_training(
            classifier(), clouds(500), 0.1, shuffle=shuffle, threads=threads, **EVERYTHING
        )
        return rows_of(list(training)), bits(training)

    assert outcome(5) == outcome(5)
    assert outcome(5) != outcome(6)


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 3},
        {**EVERYTHING, "validation": NOISY},
        {**EVERYTHING, "epochs": 9, "validation": NOISY, "early_stopping": EarlyStopping(2)},
        {**EVERYTHING, "steps": 90, "with_replacement": True, "validation": NOISY},
    ],
    ids=["plain", "everything", "early_stopping", "steps_with_replacement"],
)
def test_resuming_after_any_event_gives_the_same_bits(given: dict[str, Any]) -> None:
    check_resuming(lambda: make_training(classifier(), clouds(1003), 0.05, **given))


@pytest.mark.parametrize("patience", [2, 3, 4])
@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_early_stopping_ends_training_when_patience_runs_out(
    metric: Literal["val_accuracy", "val_loss"], patience: int
) -> None:
    def train(stopping: EarlyStopping | None) -> list[Event]:
        given = {"epochs": 40, "validation": NOISY, "early_stopping": stopping}
        return list(make_training(classifier(), clouds(200, noise=150), 1.0, **given))

    rows, events = rows_of(train(None)), train(EarlyStopping(patience, metric))
    scores = [getattr(row, metric) * (1 if metric == "val_accuracy" else -1) for row in rows]
    expected = next(
        epoch
        for epoch in range(patience + 1, 41)
        if max(scores[epoch - patience : epoch]) <= max(scores[: epoch - patience])
    )
    assert Finished("stopped_early") == events[-1]
    assert rows[:expected] == rows_of(events)


@pytest.mark.parametrize("patience", [2, 4, 7])
def test_patience_is_counted_in_epochs_even_if_only_some_of_them_are_validated(
    patience: int,
) -> None:
    def train(**rules: Any) -> list[EpochDone]:
        given = {"epochs": 60, "validation": NOISY, "validate_every": 3, **rules}
        return rows_of([*make_training(classifier(), clouds(200, noise=150), 1.0, **given)])

    best, best_epoch, expected = -1.0, 0, 60
    for row in train():
        assert row.val_accuracy is not None
        if row.val_accuracy > best:
            best, best_epoch = row.val_accuracy, row.epoch
        elif row.epoch - best_epoch >= patience:
            expected = row.epoch
            break
    assert [row.epoch for row in train()] == [*range(3, 61, 3)]
    assert train(early_stopping=EarlyStopping(patience))[-1].epoch == expected < 60
    schedule = PlateauSchedule(gamma=0.5, patience=patience, stop=1 / 2)
    assert train(schedule=schedule)[-1].epoch == expected


def test_the_plateau_schedule_halves_the_rate_and_ends_training_at_its_fraction() -> None:
    schedule = PlateauSchedule(gamma=0.5, patience=2, stop=1 / 8)
    given = {"epochs": 99, "validation": NOISY, "schedule": schedule}
    events = list(make_training(classifier(), clouds(200, noise=150), 1.0, **given))
    expected, rate, best, wait = [], 1.0, -1.0, 0
    for row in rows_of(events):
        expected.append(rate)
        assert row.val_accuracy is not None
        best, wait = (row.val_accuracy, 0) if row.val_accuracy > best else (best, wait + 1)
        if wait == schedule.patience:
            rate, wait = rate / 2, 0
    assert [row.learning_rate for row in rows_of(events)] == expected
    assert rate == 1 / 8
    assert Finished("stopped_early") == events[-1]


def test_the_best_epoch_has_the_highest_accuracy_and_among_ties_the_lowest_loss() -> None:
    training = make_training(classifier(), clouds(200, noise=150), 1.0, epochs=30, validation=NOISY)
    rows = rows_of(list(training))
    keys = [(row.val_accuracy or 0, -(row.val_loss or 0)) for row in rows]
    records = [all(key > before for before in keys[:i]) for i, key in enumerate(keys)]
    ties = [i > 0 and keys[i][0] == max(keys[:i])[0] for i in range(30)]
    best = rows[keys.index(max(keys))]
    assert {(True, True), (True, False), (False, True)} <= set(zip(records, ties, strict=True))
    assert records == [row.is_best for row in rows]
    assert Best(best.epoch, best.val_accuracy, best.val_loss) == training.progress.best


def test_without_validation_every_epoch_is_the_best_so_far() -> None:
    rows = rows_of(list(make_training(classifier(), clouds(100), 0.1, epochs=3)))
    assert [(r.is_best, r.val_loss, r.val_accuracy) for r in rows] == [(True, None, None)] * 3


def test_validation_measures_the_network_as_it_is_after_the_epoch() -> None:
    training = make_training(classifier(), clouds(500), 0.5, validation=NOISY)
    (row,) = rows_of(list(training))
    expected = mean_loss_and_accuracies(training.network, training.loss, NOISY)
    assert expected == (row.val_loss, row.val_accuracy, row.val_class_accuracies)
    values = (row.epoch, row.train_accuracy, row.val_loss, row.val_accuracy, row.is_best)
    assert [int, float, float, float, bool] == [type(value) for value in values]
    inputs, targets = scaled(NOISY.inputs[:32]), make_targets(NOISY.labels[:32], 3)
    gradient = Parameters(12, training.network.layers)
    probe = Probe(training.network, training.loss, inputs, targets, gradient)
    assert probe.measure(0.5) == row.health


@pytest.mark.parametrize(
    ("network", "loss", "rate", "what"),
    [
        (make_network([12, 3], ["linear"], np.float32), "quadratic", 1e25, "gradient"),
        (make_network([12, 3], ["linear"], np.float32), "quadratic", 1e38, "outputs"),
        (classifier("relu"), "cross_entropy", 1e15, "gradient"),
    ],
)
def test_an_overflow_in_the_last_step_of_an_epoch_is_a_divergence(
    network: Network, loss: str, rate: float, what: str
) -> None:
    given: dict[str, Any] = {"loss": loss, "batch_size": 100, "epochs": 2, "validation": NOISY}
    events = list(make_training(network, clouds(100), rate, **given))
    assert rows_of(events) == []
    assert isinstance(events[-1], Finished)
    divergence = events[-1].divergence
    assert divergence is not None
    assert (divergence.epoch, divergence.batch, divergence.layer, divergence.what) == (
        1,
        1,
        1,
        what,
    )


@pytest.mark.parametrize(
    ("hidden", "rate", "rule", "layer", "what"),
    [
        ("relu", 1e15, {}, 3, "outputs"),
        ("relu", 1e15, {"momentum": 0.9}, 3, "outputs"),
        ("relu", 1e30, {}, 2, "outputs"),
        ("relu", 1e45, {}, 3, "gradient"),
        ("sigmoid", 0.1, {"weight_decay": 30}, 3, "outputs"),  # doubles the weights: third epoch
        ("sigmoid", 0.1, {"weight_decay": 67}, 3, "outputs"),  # at the first step of a block
        ("sigmoid", 0.1, {"weight_decay": 100}, 3, "parameters"),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_divergence_is_reported_at_the_batch_where_it_happens(
    hidden: str,
    rate: float,
    rule: dict[str, Any],
    layer: int,
    what: Literal["outputs", "gradient", "parameters"],
    threads: int,
) -> None:
    shape: dict[str, Any] = {"epochs": 5, "batch_size": 20, **rule}
    weights, biases = copied(classifier(hidden))
    steps = textbook_training(weights, biases, clouds(1237), lambda _: rate, hidden=hidden, **shape)
    losses: list[float] = []
    with np.errstate(all="ignore"):
        for batch_losses, _ in steps:
            if not all(np.isfinite(array).all() for array in (batch_losses, *weights, *biases)):
                break
            losses.append(float(batch_losses.mean(dtype=np.float64)))
    epoch, batch = divmod(len(losses), 62)
    *_, last = make_training(classifier(hidden), clouds(1237), rate, threads=threads, **shape)
    assert isinstance(last, Finished)
    assert last.divergence is not None
    loss = last.divergence.last_finite_loss
    expected = Divergence(epoch + 1, batch + 1, layer, what, last_finite_loss=loss)
    assert Finished("diverged", expected) == last
    assert losses[-1:] == pytest.approx([] if loss is None else [loss], rel=1e-3)


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("rate", [1e15, 1e37])
def test_divergence_is_detected_with_every_hidden_activation(
    hidden: Activation, rate: float
) -> None:
    network = make_network([12, 8, 6, 3], [hidden, hidden, "softmax"], np.float32)
    *_, last = make_training(network, clouds(1237), rate, epochs=2)
    assert isinstance(last, Finished)
    if not (hidden.saturation or isinstance(hidden, Step)):
        assert last.divergence is not None
        assert (last.divergence.epoch, last.divergence.batch) <= (1, 3)


@pytest.mark.parametrize(
    ("output", "loss", "rate"),
    [
        ("softmax", "cross_entropy", 0.5),
        ("sigmoid", "cross_entropy", 0.5),
        ("sigmoid", "quadratic", 3.0),
    ],
)
def test_the_network_learns_to_classify_digits(output: str, loss: str, rate: float) -> None:
    digits, held_out = hold_out(open_dataset("mini", notify=lambda _: None).training, 1000)
    assert held_out is not None
    network = make_network([784, 30, 10], ["sigmoid", output], np.float32)
    given: dict[str, Any] = {"loss": loss, "epochs": 3, "validation": held_out}
    rows = rows_of(list(make_training(network, digits, rate, **given)))
    assert rows[-1].val_accuracy is not None
    assert rows[-1].val_accuracy > 0.85
    assert rows[-1].train_loss < rows[0].train_loss / 1.5


@pytest.mark.parametrize("batch_size", [2, 200])
def test_the_velocity_of_a_black_pixel_decays_to_0_at_any_batch_size(batch_size: int) -> None:
    examples = clouds(200)
    examples.inputs[:, 0] = 0
    network = make_network([12, 8, 3], ["relu", "softmax"], np.float32)
    epochs = 1000 * batch_size // 200
    training = make_training(
        network, examples, 0.01, momentum=0.9, epochs=epochs, batch_size=batch_size
    )
    velocity_of_pixel = training.state["velocity"][:8]
    velocity_of_pixel[...] = 1e-3
    list(training)
    assert (velocity_of_pixel == 0).all()
    velocity = np.abs(training.state["velocity"])
    assert not ((velocity > 0) & (velocity < 1e-30)).any()  # denormal numbers are slow


def test_adam_counts_its_steps_from_one_through_all_epochs() -> None:
    one, rate = clouds(1), 1e-7
    examples = Examples(np.repeat(one.inputs, 40, axis=0), np.repeat(one.labels, 40))
    network = classifier("sigmoid", np.float64)
    training = make_training(network, examples, rate, epochs=3, optimizer=Adam())
    weights, biases = network.parameters.weights[-1], network.parameters.biases[-1]
    before, steps = biases.copy(), 0
    for event in training:
        if isinstance(event, EpochDone):
            steps += 4
            np.testing.assert_allclose(np.abs(biases - before), steps * rate, rtol=1e-3)
            reported = event.health[-1].update_ratio * float(np.linalg.norm(weights))
            assert reported == pytest.approx(rate * math.sqrt(weights.size), rel=1e-3)
    assert steps == 12


def test_an_optimizer_state_that_overflows_is_a_divergence() -> None:
    network = make_network([12, 8, 3], ["linear", "linear"], np.float32)
    network.parameters.vector *= 1e12
    *_, last = make_training(network, clouds(100), 1e-3, loss="quadratic", optimizer=Adam())
    assert isinstance(last, Finished)
    assert last.reason == "diverged"


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_infinite_initial_parameters_are_a_divergence_before_the_first_step(layer: int) -> None:
    network = classifier("relu", np.float32)
    network.parameters.weights[layer - 1][0, 0] = np.inf
    (last,) = make_training(network, clouds(100), 0.1)
    assert Finished("diverged", Divergence(1, 1, layer, "parameters", None)) == last
