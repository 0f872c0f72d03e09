"""Each diagnosis, on both sides of its threshold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nnctl.build import build_network
from nnctl.config import Config, from_mapping, replaced
from nnctl.diagnosis import network as network_diagnosis
from nnctl.diagnosis.base import Diagnosis
from nnctl.diagnosis.network import check_config, health_label
from nnctl.nn.events import Divergence, EpochMetrics
from nnctl.nn.health import LayerHealth
from nnctl.nn.network import Network
from nnctl.runs.resolve import load_config
from tests.conftest import CONFIGS

Layers = Sequence[dict[str, Any]]

ALIVE = LayerHealth(
    mean=0.2, std=0.3, dead=0.0, saturated=0.0, error=1.0, error_ratio=1.0, update_ratio=0.01
)


def config_of(*activations: Any, rate: float = 0.1, **settings: Any) -> Config:
    """Return a configuration of layers of 10 units that ends with a softmax layer."""
    layers = [{"units": 10, "activation": name} for name in (*activations, "softmax")]
    network = {"layers": layers, **settings.pop("network", {})}
    optimizer = {"learning_rate": rate, **settings.pop("optimizer", {})}
    return from_mapping({"network": network, "optimizer": optimizer, **settings}, "test")


def row(*changes: dict[str, float], layers: int = 3, **metrics: Any) -> EpochMetrics:
    """Return the metrics of an epoch; each change makes one of the first layers unhealthy."""
    health = [replace(ALIVE, **change) for change in (*changes, *[{}] * (layers - len(changes)))]
    values: dict[str, Any] = {
        "train_loss": 0.2,
        "train_accuracy": 0.95,
        "val_loss": 0.3,
        "val_accuracy": 0.9,
        "val_class_accuracies": None,
    }
    values |= {"epoch": 1, "learning_rate": 0.1, "seconds": 1.0, **metrics}
    return EpochMetrics(**values, health=health)


def diagnose(
    config: Config,
    history: Sequence[EpochMetrics],
    network: Network | None,
    divergence: Divergence | None = None,
    *,
    steps_per_epoch: int = 1000,
) -> list[Diagnosis]:
    """Diagnose a training that is long enough, unless the test gives a number of steps."""
    return network_diagnosis.diagnose(
        config, history, network, divergence, steps_per_epoch=steps_per_epoch
    )


def one(diagnoses: list[Diagnosis]) -> Diagnosis:
    assert len(diagnoses) == 1, diagnoses
    return diagnoses[0]


def keys_in(cure: str) -> list[str]:
    """Return the dotted keys that a cure names."""
    keys = re.findall(r"\b(?:data|network|optimizer|training|loss)\.[\w.]*\w", cure)
    assert keys, cure
    return keys


def assert_has_keys(config: Config, cure: str) -> None:
    """Check that each key of a cure exists."""
    for key in keys_in(cure):
        value: Any = config
        for step in key.split("."):
            if step.isdigit():
                value = value[int(step)]
            else:
                assert step in type(value).model_fields, cure
                value = getattr(value, step)


TANHS, RELUS = config_of("tanh", "tanh"), config_of("relu", "relu")
FLAT: dict[str, Any] = {"train_loss": 2.3, "train_accuracy": 0.1, "val_accuracy": None}
FAINT = {"mean": 0.001, "std": 0.001}
SATURATED = row({"saturated": 0.95})


@pytest.mark.parametrize(
    ("config", "rows", "kinds"),
    [
        pytest.param(RELUS, [], [], id="no epoch"),
        pytest.param(RELUS, [row(train_loss=2.0), row(epoch=2)], [], id="healthy"),
        pytest.param(TANHS, [row(), SATURATED], [], id="confident after training"),
        pytest.param(TANHS, [SATURATED, row()], [], id="saturated at first"),
        pytest.param(TANHS, [SATURATED] * 2, ["saturation"], id="always saturated"),
        pytest.param(TANHS, [row({"mean": 1.0, "std": 0.3})], [], id="activations of both signs"),
        pytest.param(TANHS, [row({"error": 0.0})], ["vanishing gradients"], id="no error"),
        pytest.param(RELUS, [row({"error": 0.0, "dead": 1.0})], ["dead units"], id="dead"),
        pytest.param(TANHS, [row({}, {}, {"error": 0.0})], [], id="no error at all"),
        pytest.param(
            TANHS, [row({**FAINT, "error": 1e-4}, **FLAT)] * 2, ["flat loss"], id="faint errors"
        ),
        pytest.param(
            RELUS, [row({"dead": 0.9}, **FLAT)] * 2, ["dead units"], id="flat because of dead units"
        ),
        pytest.param(
            RELUS,
            [row(FAINT, {"std": 0, "dead": 0.9}, **FLAT)] * 2,
            ["flat loss"],
            id="dead because of faint inputs",
        ),
    ],
)
def test_only_the_cause_is_reported(
    config: Config, rows: list[EpochMetrics], kinds: list[str]
) -> None:
    assert [diagnosis.kind for diagnosis in diagnose(config, rows, None)] == kinds


@pytest.mark.parametrize(
    ("config", "below", "above", "kind", "layer", "evidence", "reason", "keys", "label"),
    [
        (
            RELUS,
            [{}, {"dead": 0.399}],
            [{}, {"dead": 0.4}],
            "dead units",
            2,
            "layer 2: 40 % of the relu units output 0 for every image",
            "a unit that outputs 0 for every image has no gradient",
            ["optimizer.learning_rate", "network.layers.1.activation"],
            "40 % dead",
        ),
        (
            RELUS,
            [{"dead": 0.3}, {"dead": 0.1}],
            [{"dead": 0.5}, {"dead": 1.0, "std": 0.0, "mean": 0.0}],
            "dead units",
            2,
            "layer 2: 100 % of the relu units output 0 for every image; also in layer 1",
            "cannot recover",
            ["optimizer.learning_rate", "network.layers.1.activation"],
            "all dead",
        ),
        (
            TANHS,
            [{"saturated": 0.799}],
            [{"saturated": 0.8}],
            "saturation",
            1,
            "layer 1: 80 % of the outputs are within 5 % of their bounds",
            "the derivative of tanh is nearly 0",
            ["optimizer.learning_rate"],
            "80 % sat.",
        ),
        (
            TANHS,
            [{"error": 0.0101}],
            [{"error": 0.0099}],
            "vanishing gradients",
            1,
            "the backpropagated error of layer 1 is 101 times smaller than that of layer 3: a "
            "factor of 0.099 per layer",
            "the derivative of tanh, so the first layers learn very slowly",
            ["network.layers"],
            "vanishing",
        ),
        (
            TANHS,
            [{"error": 99.0}],
            [{"error": 101.0}],
            "exploding gradients",
            1,
            "the backpropagated error of layer 1 is 101 times larger than that of layer 3: a "
            "factor of 10 per layer",
            "its weights, which are too large",
            ["optimizer.learning_rate"],
            "exploding",
        ),
        (
            RELUS,
            [{}, {"mean": 0.9, "std": 0.301}],
            [{"mean": 1.0, "std": 0.33}, {"mean": 1.0, "std": 0.3}],
            "shifted activations",
            2,
            "layer 2: the activations have mean 1 and standard deviation 0.3, and none is negative;"
            " also in layer 1",
            "the inputs of layer 3 are similar for all images",
            ["network.layers.1.activation"],
            "shifted",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value and len(value) < 20 else "",
)
def test_unhealthy_layers_are_diagnosed_from_a_threshold_on(
    config: Config,
    below: Layers,
    above: Layers,
    kind: str,
    layer: int,
    evidence: str,
    reason: str,
    keys: list[str],
    label: str,
) -> None:
    assert diagnose(config, [row(*below)], None) == []
    assert health_label(config, row(*below).health) == "ok"
    diagnosis = one(diagnose(config, [row(*above)], None))
    assert (kind, layer) == (diagnosis.kind, diagnosis.layer)
    assert diagnosis.evidence.startswith(evidence)
    assert reason in diagnosis.reason
    assert keys == keys_in(diagnosis.cure)
    assert_has_keys(config, diagnosis.cure)
    assert label == health_label(config, row(*above).health)


def test_the_output_layer_may_be_confident() -> None:
    last = {"dead": 0.9, "saturated": 1.0, "mean": 1.0, "std": 0.001}
    assert diagnose(TANHS, [row({}, {}, last)], None) == []
    assert health_label(TANHS, row({}, {}, last).health) == "ok"


@pytest.mark.parametrize(
    ("activation", "health", "metrics", "kind"),
    [
        ("tanh", {"saturated": 0.9}, {}, "saturation"),
        ("tanh", {"error": 1e-3}, {}, "vanishing gradients"),
        ("relu", {"error": 1e3}, {}, "exploding gradients"),
        ("relu", {"mean": 0.001, "std": 0.001}, FLAT, "flat loss"),
    ],
)
def test_the_cure_is_init_auto_only_where_it_is_not_set_yet(
    activation: str, health: dict[str, float], metrics: dict[str, Any], kind: str
) -> None:
    other = {"weights": {"name": "normal", "std": 1.0}}
    for network, key in (({}, None), ({"init": other}, "network.init")):
        config = config_of(activation, activation, network=network)
        diagnosis = one(diagnose(config, [row(health, **metrics)] * 2, None))
        assert (kind, key is not None) == (diagnosis.kind, "init: auto" in diagnosis.cure)
        assert_has_keys(config, diagnosis.cure)
    own = replaced(config_of(activation, activation), {"network.layers.0.init": other})
    diagnosis = one(diagnose(own, [row(health, **metrics)] * 2, None))
    assert "set network.layers.0.init: auto" in diagnosis.cure


def test_adversarial_training_and_high_dropout_are_lowered_before_the_learning_rate() -> None:
    config = config_of("relu", "relu")
    strong = {
        "training.adversarial": 1.0,
        "network.input_dropout": 0.2,
        "network.layers.1.dropout": 0.9,
    }
    for settings, cure in (
        ({}, "lower optimizer.learning_rate (now 0.1), or use"),
        (
            strong,
            "lower training.adversarial (now 1), or network.layers.1.dropout (now 0.9), or optim",
        ),
    ):
        diagnosis = one(diagnose(replaced(config, settings), [row({"dead": 0.9})], None))
        assert diagnosis.cure.startswith(cure)


def test_outputs_of_0_for_every_image_are_reported_with_the_quadratic_loss() -> None:
    silent = [row({}, {"dead": 0.2}, layers=2)]
    quadratic = replaced(
        config_of("sigmoid", loss="quadratic"), {"network.layers.1.activation": "sigmoid"}
    )
    diagnosis = one(diagnose(quadratic, silent, None))
    assert diagnosis.evidence == "layer 2: 2 of 10 outputs are near 0 for every image"
    assert diagnosis.cure == "set loss: cross_entropy, or try another training.seed"
    assert diagnose(config_of("sigmoid"), silent, None) == []


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(3.0, 6.95, True), (3.0, 6.9, False), (80.0, 41.0, True), (80.0, 39.0, False)],
)
def test_a_loss_far_above_that_of_guessing_blames_the_learning_rate(
    first: float, last: float, expected: bool
) -> None:
    losses = [row(**{**FLAT, "train_loss": loss}) for loss in (first, last)]
    rates = [one for one in diagnose(RELUS, losses, None) if one.kind == "learning rate"]
    assert len(rates) == expected
    for rate in rates:
        assert "guessing gives 2.3" in rate.evidence
        assert rate.cure == "lower optimizer.learning_rate (now 0.1)"


def test_the_initial_weights_are_blamed_only_if_they_saturate_the_units() -> None:
    layer = {"init": {"weights": {"name": "normal", "std": 0.05}}}
    config = config_of("tanh", "tanh", network=layer)
    network = build_network(config, 784)
    diagnosis = one(diagnose(config, [row({"saturated": 0.9})] * 2, network))
    assert "the steps were too large" in diagnosis.reason
    assert diagnosis.cure == "lower optimizer.learning_rate (now 0.1)"


def test_initial_weights_that_saturate_most_outputs_are_blamed_at_any_rate() -> None:
    """Nielsen's first network: three quarters of its outputs are saturated at the start."""
    layer = {"init": {"weights": {"name": "normal", "std": 1}}}
    config = config_of("sigmoid", "sigmoid", network=layer, rate=3, loss="quadratic")
    network = build_network(config, 784)
    diagnosis = one(diagnose(config, [row({"saturated": 0.9})] * 2, network))
    assert "its initial weights are too large" in diagnosis.reason
    assert diagnosis.cure == "set network.init: auto"


@pytest.mark.parametrize(
    ("settings", "evidence"),
    [
        ({"optimizer.weight_decay": 0.19}, None),
        ({"optimizer.weight_decay": 0.21}, "weight_decay is 0.21, and the learning rate 0.1"),
        ({"optimizer.l1": 5.0}, "l1 is 5, and the learning rate 0.1"),
    ],
)
def test_regularization_that_no_gradient_can_hold_against_is_reported(
    settings: dict[str, float], evidence: str | None
) -> None:
    config = replaced(RELUS, settings)
    found = [one for one in check_config(config) if one.kind == "regularization"]
    assert [one.evidence for one in found] == ([f"optimizer.{evidence}"] if evidence else [])


def test_units_that_were_dead_before_training_blame_the_initial_biases() -> None:
    config = replaced(
        config_of("relu", "relu"),
        {"network.layers.1.init": {"biases": {"name": "constant", "value": -99}}},
    )
    network = build_network(config, 784)
    found = one(diagnose(config, [row({}, {"dead": 1.0})], network))
    assert found.evidence.endswith("output 0 for every image, already before training")
    assert found.cure.startswith("set network.layers.1.init: auto, or")


@pytest.mark.parametrize(
    ("train", "validation", "expected"),
    [
        (0.96, [0.85, 0.85, 0.85], True),
        (0.96, [0.94, 0.85, 0.85], False),  # two epochs can be bad luck
        (0.96, [0.85, 0.85], False),
        (0.949, [0.85, 0.85, 0.85], False),
        (0.96, [0.9, 0.9, 0.9], False),
        (0.995, [0.935, 0.935, 0.935], True),  # nothing more to learn from the training images
        (0.995, [0.945, 0.945, 0.945], False),
        (0.899, [0.7, 0.7, 0.7], False),  # the training images are not learned either
        (0.9, [0.95, 0.95, 0.95], False),
        (1.0, [None, None, None], False),
    ],
)
def test_overfitting_is_a_lasting_gap_between_the_accuracies(
    train: float, validation: list[float | None], expected: bool
) -> None:
    history = [row(train_accuracy=train, val_accuracy=accuracy) for accuracy in validation]
    diagnoses = diagnose(RELUS, history, None)
    assert len(diagnoses) == expected
    for diagnosis in diagnoses:
        assert (diagnosis.kind, diagnosis.layer) == ("overfitting", None)
        assert diagnosis.evidence == (
            f"the accuracy is {100 * train:.1f} % on the training images, but "
            f"{100 * (validation[-1] or 0):.1f} % on the validation images"
        )
        assert keys_in(diagnosis.cure) == [
            "optimizer.weight_decay",
            "network.layers.0.dropout",
            "data.augment",
            "training.early_stopping",
        ]
        assert_has_keys(RELUS, diagnosis.cure)


@pytest.mark.parametrize(
    ("settings", "epochs", "per_epoch", "cures"),
    [
        ({"training.batch_size": 100_000}, 2, 1, ["training.batch_size", "training.epochs"]),
        ({"training.steps": 3}, 1, 500, ["training.epochs", "training.steps"]),
    ],
)
def test_a_network_that_has_taken_few_steps_is_not_judged_by_its_layers(
    settings: dict[str, Any], epochs: int, per_epoch: int, cures: list[str]
) -> None:
    config = replaced(RELUS, settings)
    history = [row({"dead": 0.9}, **FLAT, epoch=epoch + 1) for epoch in range(epochs)]
    diagnosis = one(diagnose(config, history, None, steps_per_epoch=per_epoch))
    assert diagnosis.kind == "too few steps"
    steps = config.training.steps or epochs * per_epoch
    assert diagnosis.evidence.startswith(f"{steps} steps in all; the accuracy is 10.0 %")
    assert keys_in(diagnosis.cure) == cures
    assert_has_keys(RELUS, diagnosis.cure)
    learned = [row(train_accuracy=0.95, val_accuracy=0.95)] * epochs
    assert diagnose(config, learned, None, steps_per_epoch=per_epoch) == []


def test_the_cures_of_overfitting_omit_settings_in_use() -> None:
    metrics = row(train_accuracy=1.0, val_accuracy=0.8)
    in_use = {"data.augment": {"shift": 1}, "network.layers.0.dropout": 0.2}
    few = replaced(
        RELUS, {"data.subset": 300, "training.early_stopping": {"patience": 5}, **in_use}
    )
    diagnosis = one(diagnose(few, [metrics] * 3, None))
    assert keys_in(diagnosis.cure) == ["data.subset", "optimizer.weight_decay"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"train_loss": 2.186}, True),
        ({"train_loss": 2.184}, False),  # 5 % of log 10 is 0.115
        ({"train_loss": 3.0}, True),
        ({"train_loss": 3.0, "train_accuracy": 0.2}, True),
        ({"train_loss": 3.0, "train_accuracy": 0.201}, False),
    ],
    ids=str,
)
def test_a_loss_that_stays_at_that_of_guessing_is_a_plateau(
    change: dict[str, Any], expected: bool
) -> None:
    diagnoses = diagnose(RELUS, [row(**FLAT), row(**{**FLAT, **change})], None)
    assert len(diagnoses) == expected
    for diagnosis in diagnoses:
        assert (diagnosis.kind, diagnosis.layer) == ("flat loss", None)
        assert "gives the same answer for every image" in diagnosis.reason
        assert keys_in(diagnosis.cure) == ["optimizer.learning_rate", "network.layers"]
        assert_has_keys(RELUS, diagnosis.cure)


@pytest.mark.parametrize(
    ("change", "reason", "keys", "label"),
    [
        (
            [{}, {"std": 0.0099}],
            "activations of layer 2 are nearly equal for all images (standard deviation 0.01)",
            ["optimizer.learning_rate"],
            "tiny act.",
        ),
        (
            [{"update_ratio": 9e-6}] * 3,
            "a step changes the weights by less than 1/100,000 of their norm",
            ["optimizer.learning_rate"],
            "ok",
        ),
        ([{"update_ratio": 1e-7}] * 2, "gives the same answer", ["optimizer.learning_rate"], "ok"),
        ([{"update_ratio": 0.0}] * 3, "gives the same answer", ["optimizer.learning_rate"], "ok"),
    ],
    ids=["faint", "tiny updates", "one layer is updated", "no updates"],
)
def test_a_loss_plateau_has_a_reason(
    change: Layers, reason: str, keys: list[str], label: str
) -> None:
    diagnosis = one(diagnose(TANHS, [row(*change, **FLAT)] * 2, None))
    assert diagnosis.kind == "flat loss"
    assert reason in diagnosis.reason
    assert keys == keys_in(diagnosis.cure)[: len(keys)]
    assert_has_keys(TANHS, diagnosis.cure)
    assert label == health_label(TANHS, row(*change).health)


@pytest.mark.parametrize(
    ("config", "saturated", "reason"),
    [
        (config_of("tanh", "tanh", loss="quadratic"), 0.8, "80 % of the outputs are within 5 %"),
        (
            config_of("tanh", "tanh", loss="quadratic"),
            0.79,
            "gives the same answer for every image",
        ),
        (TANHS, 1.0, "gives the same answer for every image"),
    ],
    ids=["quadratic", "hardly saturated", "cross_entropy"],
)
def test_saturated_outputs_stop_only_the_quadratic_loss(
    config: Config, saturated: float, reason: str
) -> None:
    guessing = {**FLAT, "train_loss": 0.5}
    diagnosis = one(diagnose(config, [row({}, {}, {"saturated": saturated}, **guessing)] * 2, None))
    assert reason in diagnosis.reason
    assert "cross_entropy" not in diagnosis.cure  # it is not defined over tanh


def test_saturated_sigmoid_outputs_are_cured_by_the_cross_entropy() -> None:
    last = {"network.layers.1.activation": "sigmoid"}
    config = replaced(config_of("sigmoid", loss="quadratic"), last)
    diagnosis = one(diagnose(config, [row({}, {"saturated": 1.0}, layers=2, **FLAT)], None))
    assert "loss: cross_entropy" in diagnosis.cure


def test_a_single_layer_at_the_level_of_guessing_needs_a_hidden_layer() -> None:
    diagnosis = one(diagnose(config_of(), [row(layers=1, **FLAT)], None))
    assert diagnosis.evidence.startswith(
        "the training loss is 2.3 in epoch 1, with an accuracy of 10.0 %"
    )
    assert "a single layer separates two classes by a straight line" in diagnosis.reason
    assert diagnosis.cure == "add a hidden layer to network.layers"


def test_after_a_divergence_nothing_else_is_reported() -> None:
    where = Divergence(epoch=2, batch=7, layer=3, what="gradient", last_finite_loss=None)
    diagnosis = one(diagnose(RELUS, [row({"dead": 0.9})], None, where))
    assert (diagnosis.kind, diagnosis.layer) == ("divergence", 3)
    assert "the gradient of layer 3" in diagnosis.evidence
    assert diagnosis.evidence.endswith("not finite in epoch 2, batch 7")
    assert diagnosis.cure == "lower optimizer.learning_rate (now 0.1), for example to 0.01 or 0.001"
    assert_has_keys(RELUS, diagnosis.cure)


@pytest.mark.parametrize(("loss", "blamed"), [(None, "init"), (2.3, "learning_rate")])
def test_an_overflow_before_any_step_blames_the_initial_weights(
    loss: float | None, blamed: str
) -> None:
    config = config_of("relu", network={"init": {"name": "normal", "std": 1e30}}, rate=1e-30)
    divergence = Divergence(1, 1 if loss is None else 2, 2, "outputs", loss)
    assert blamed in one(diagnose(config, [], None, divergence)).cure


def test_the_matrices_of_linear_layers_are_multiplied() -> None:
    config = config_of("linear", "linear")
    network = build_network(config, 784)
    network.initialize(np.random.default_rng(0))
    diagnosis = one(diagnose(config, [row()], network))
    assert diagnosis.kind == "linear collapse"
    largest = re.search(
        r"one matrix of 784 x 10, .* 3 weight matrices, .* of ([\de.-]+)$", diagnosis.evidence
    )
    assert largest
    assert float(largest[1]) < 1e-5
    assert diagnose(config_of("linear", "relu"), [row()], network) == []


STEP = {"name": "step", "surrogate": "sigmoid"}
ZEROS, CONSTANT = {"init": "zeros"}, {"init": {"weights": {"name": "constant", "value": 0.1}}}


@pytest.mark.parametrize(
    ("config", "kind", "layer", "evidence"),
    [
        (config_of("relu", "step"), "step", 2, "layer 2 uses the step activation"),
        (config_of("linear"), "linear collapse", None, "the 2 layers are equivalent to one"),
        (
            config_of("linear", "linear"),
            "linear collapse",
            None,
            "the 3 layers are equivalent to one",
        ),
        (config_of(*["sigmoid"] * 5), "vanishing gradients", 1, "5 hidden layers"),
        (config_of(*["hard_sigmoid"] * 4), "vanishing gradients", 1, "at most 0.0008"),
        (
            config_of("relu", "exponential"),
            "exponential",
            2,
            "layer 2 is a hidden layer with the exponential",
        ),
        (config_of("tanh", network=ZEROS), "equal units", 1, "with weights: zeros, biases"),
        (config_of("tanh", network=CONSTANT), "equal units", 1, "with weights: constant, biases"),
        (config_of("relu", rate=5.01), "learning rate", None, "learning_rate is 5.01"),
        (config_of("relu", rate=9e-5), "learning rate", None, "learning_rate is 9e-05"),
        (
            config_of("relu", rate=0.6, optimizer={"momentum": 0.9}),
            "learning rate",
            None,
            "optimizer.learning_rate / (1 - optimizer.momentum) is 6",
        ),
        (config_of("relu", rate=31, loss="quadratic"), "learning rate", None, "is 31"),
        (config_of("relu", rate=0.009, loss="quadratic"), "learning rate", None, "is 0.009"),
        (config_of("relu", optimizer={"name": "adam"}, rate=0.11), "learning rate", None, "0.11"),
        (config_of("relu", optimizer={"name": "adagrad"}, rate=1.1), "learning rate", None, "1.1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_configuration_that_cannot_learn_is_diagnosed_before_training(
    config: Config, kind: str, layer: int | None, evidence: str
) -> None:
    diagnosis = one(check_config(config))
    assert (kind, layer) == (diagnosis.kind, diagnosis.layer)
    assert evidence in diagnosis.evidence
    assert_has_keys(config, diagnosis.cure)
    setting = re.match(r"set ([\w.]+): (\{.*?\}|\w+)", diagnosis.cure)
    if setting:
        assert check_config(replaced(config, {setting[1]: yaml.safe_load(setting[2])})) == []


@pytest.mark.parametrize(
    "config",
    [
        config_of(),
        config_of(STEP),
        config_of("linear", "relu"),
        config_of(*["sigmoid"] * 4),
        config_of(*[{"name": "sigmoid", "gain": 4}] * 9),
        config_of(*["hard_sigmoid"] * 3),
        config_of("tanh", network={"init": {"weights": "zeros", "biases": "normal"}}),
        config_of(network=ZEROS),
        config_of("relu", rate=5),
        config_of("relu", rate=1e-4),
        config_of("relu", rate=0.5, optimizer={"momentum": 0.9}),
        config_of("relu", rate=30, loss="quadratic"),
        config_of("relu", rate=1e-2, loss="quadratic"),
        config_of("relu", rate=1e-6, optimizer={"name": "adam"}),
        config_of("relu", rate=1, optimizer={"name": "adagrad"}),
    ],
    ids=[
        "one layer",
        "surrogate",
        "one nonlinear layer",
        "four sigmoids",
        "steep sigmoids",
        "three hard sigmoids",
        "random biases",
        "zeros without a hidden layer",
        *("high", "low", "momentum", "high quadratic", "low quadratic", "adam", "adagrad"),
    ],
)
def test_a_configuration_that_can_learn_has_no_warning(config: Config) -> None:
    assert check_config(config) == []


def presets() -> Iterator[str]:
    """Yield the names of the bundled training configurations."""
    for path in sorted(CONFIGS.glob("*.yaml")):
        if "parameters" not in yaml.safe_load(path.read_text("utf-8")):
            yield path.name


@pytest.mark.parametrize("name", list(presets()))
def test_a_preset_has_no_warning(name: str) -> None:
    assert check_config(load_config(CONFIGS / name)) == []


shares = st.floats(0, 1)
sizes = st.sampled_from([0.0, 1e-30, 1e-3, 0.3, 1.0, 7.5, 1e30])
LAYER = st.builds(
    LayerHealth,
    mean=sizes,
    std=sizes,
    dead=shares,
    saturated=shares,
    error=sizes,
    error_ratio=sizes,
    update_ratio=sizes,
)


@given(st.lists(LAYER, min_size=3, max_size=3))
def test_the_health_label_fits_its_column(health: list[LayerHealth]) -> None:
    assert 2 <= len(health_label(config_of("relu", "sigmoid"), health)) <= 9


@pytest.mark.parametrize(
    ("share", "dead", "saturated"),
    [
        (0.983, "98 % dead", "98 % sat."),
        (0.994, "99 % dead", "99 % sat."),
        (0.996, "all dead", "all sat."),
    ],
)
def test_the_health_label_shows_the_worst_layer(share: float, dead: str, saturated: str) -> None:
    assert dead == health_label(RELUS, row({"dead": 0.5}, {"dead": share}).health)
    assert saturated == health_label(TANHS, row({"saturated": share}, {}).health)
