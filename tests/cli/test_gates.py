"""Logic gates: one perceptron learns all but XOR, which needs a second layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnctl as face
from nnctl.data.gates import GATES, INPUTS
from nnctl.nn.activations import Step
from nnctl.nn.metrics import logits_of
from nnctl.nn.network import Layer, Network
from tests.conftest import CONFIGS, Nnctl

PRESETS = CONFIGS / "gates"
ONE_LAYER = [("and", "and"), ("and", "or"), ("nand", "nand")]  # presets and datasets
SEEDS = range(6)


def right_answers(config: str | Path | dict[str, Any], **changes: Any) -> int:
    """Train a network, and return how many of the four examples it classifies correctly."""
    evaluation = face.evaluate(face.train(config, **changes))
    assert evaluation.n == 4
    return round(4 * evaluation.accuracy)


# By hand -----------------------------------------------------------------------------------------


def perceptrons(*layers: tuple[list[list[float]], list[float]]) -> Network:
    """Return a network of step units with these weights, one row per unit, and thresholds."""
    network = Network(2, [Layer(len(thresholds), Step()) for _, thresholds in layers])
    for i, (weights, thresholds) in enumerate(layers):
        network.parameters.weights[i][...] = np.transpose(weights)
        network.parameters.biases[i][...] = np.negative(thresholds)
    return network


def answers(network: Network) -> tuple[int, ...]:
    """Return the outputs of a network for the four inputs of a gate."""
    return tuple(network.predict_classes(logits_of(network, INPUTS)).tolist())


AND, OR, NAND = ([0.5, 0.5], 0.7), ([0.5, 0.5], 0.2), ([-0.5, -0.5], -0.7)


@pytest.mark.parametrize(("gate", "unit"), [("and", AND), ("or", OR), ("nand", NAND)])
def test_a_perceptron_fires_if_its_weighted_inputs_exceed_its_threshold(
    gate: str, unit: tuple[list[float], float]
) -> None:
    weights, threshold = unit
    network = perceptrons(([weights], [threshold]))
    assert GATES[gate] == answers(network)
    assert -threshold == pytest.approx(float(network.parameters.biases[0][0]))


def test_a_weighted_input_equal_to_the_threshold_does_not_fire() -> None:
    assert answers(perceptrons(([[0.5, 0.5]], [1.0]))) == (0, 0, 0, 0)
    assert answers(perceptrons(([[0.5, 0.5]], [0.5]))) == GATES["and"]


def test_xor_is_the_and_of_or_and_nand() -> None:
    (or_weights, or_threshold), (nand_weights, nand_threshold) = OR, NAND
    and_weights, and_threshold = AND
    network = perceptrons(
        ([or_weights, nand_weights], [or_threshold, nand_threshold]),
        ([and_weights], [and_threshold]),
    )
    assert GATES["xor"] == answers(network)


# Learned -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "gate", "right"),
    [
        *((preset, gate, [4]) for preset, gate in ONE_LAYER),
        ("xor-one-layer", "xor", [0, 1, 2, 3]),
        ("xor", "xor", [4]),
    ],
)
def test_a_preset_learns_its_gate_or_cannot(
    nnctl: Nnctl, preset: str, gate: str, right: list[int]
) -> None:
    arguments = [] if preset.startswith(gate) else ["--dataset", gate]
    run = nnctl("train", PRESETS / f"{preset}.yaml", *arguments).stdout.splitlines()[-1]
    result = json.loads(nnctl("eval", run, "--json").stdout)
    assert (result["dataset"], result["n"]) == (gate, 4)
    assert 4 * result["accuracy"] in right


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(("preset", "gate"), [*ONE_LAYER, ("xor", "xor")])
def test_a_preset_does_not_depend_on_the_seed(preset: str, gate: str) -> None:
    path = PRESETS / f"{preset}.yaml"
    right = [right_answers(path, dataset=gate, seed=seed) for seed in SEEDS]
    assert right.count(4) >= 5, right


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(
    "activation",
    [{"name": "step", "surrogate": "sigmoid"}, "relu", "softmax"],
)
def test_one_layer_never_learns_xor(activation: str | dict[str, str]) -> None:
    layer = {"activation": activation, "units": 2 if activation == "softmax" else 1}
    config: dict[str, Any] = {
        "data": {"dataset": "xor"},
        "network": {"layers": [layer]},
        "loss": "quadratic",
        "optimizer": {"learning_rate": 0.3},
        "training": {"epochs": 30, "batch_size": 1},
    }
    assert max(right_answers(config, seed=seed) for seed in range(3)) <= 3
    learnable = {**config, "data": {"dataset": "and"}}
    assert max(right_answers(learnable, seed=seed) for seed in range(3)) == 4


@pytest.mark.usefixtures("scratch")
def test_two_output_units_also_learn_a_gate() -> None:
    layers = [{"units": 2, "activation": "softmax"}]
    settings = {"network.layers": layers, "loss": "cross_entropy"}
    assert right_answers(PRESETS / "nand.yaml", settings=settings, epochs=50) == 4


@pytest.mark.usefixtures("scratch")
def test_all_four_examples_are_trained_on() -> None:
    run = face.train(PRESETS / "and.yaml")
    summary = json.loads(run.summary_path.read_text("utf-8"))
    assert (summary["dataset"]["training"], summary["dataset"]["validation"]) == (4, 0)
    assert (summary["best_epoch"], summary["best_val_accuracy"]) == (20, None)


# Output ------------------------------------------------------------------------------------------


def test_the_truth_table_is_printed(nnctl: Nnctl) -> None:
    face.train(PRESETS / "xor-one-layer.yaml", run_dir="run")
    done = nnctl("eval", "run", env={"COLUMNS": "80"})
    result = json.loads(nnctl("eval", "run", "--json").stdout)
    lines = done.stdout.splitlines()
    rows = [line.split() for line in lines if line.endswith(("right  ", "wrong  "))]
    assert [[int(x1), int(x2), int(expected)] for x1, x2, expected, *_ in rows] == [
        [0, 0, 0],
        [0, 1, 1],
        [1, 0, 1],
        [1, 1, 0],
    ]
    printed = [(float(row[3]), int(row[4]), row[5]) for row in rows]
    assert printed == [
        (row["outputs"][0], row["answer"], ("wrong", "right")[row["answer"] == row["expected"]])
        for row in result["truth_table"]
    ]
    assert 4 * result["accuracy"] == [row[5] for row in rows].count("right")
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert max(map(len, lines)) <= 80
    for noise in ("recall", "Confusion", "mistakes"):
        assert noise not in done.stdout


def test_a_gate_is_evaluated_on_gates_only(nnctl: Nnctl) -> None:
    face.train(PRESETS / "and.yaml", run_dir="run")
    done = nnctl("eval", "run", "--dataset", "mini", code=2)
    assert done.stderr == "Error: the images of mini have 784 pixels; this network takes 2\n"
    done = nnctl("eval", "run", "--dataset", "or", "--json")
    assert done.stderr == "Warning: run was trained on and, not on or\n"
    assert json.loads(done.stdout)["accuracy"] == 0.5
    assert (
        "has no validation examples" in nnctl("eval", "run", "--split", "validation", code=2).stderr
    )


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key", "expected"),
    [
        (
            ["data.dataset=and"],
            "network.layers.0.units",
            "3 units, but 2 classes need 1 unit with sigmoid, or 2 with softmax",
        ),
        (
            ["data.positive_digit=9", "network.layers.0.units=10"],
            "network.layers.0.units",
            "10 units, but 2 classes need 1 unit with sigmoid, or 2 with softmax",
        ),
        (["network.layers.0.units=1"], "network.layers.0.units", "1 unit, but 10 classes need 10"),
        (
            ["data.dataset=and", "data.positive_digit=1", "network.layers.0.units=1"],
            "data.positive_digit",
            "'and' does not consist of digits; its classes are 0 and 1",
        ),
        (["data.positive_digit=10"], "data.positive_digit", "at most 9, got 10"),
        (["data.positive_digit=-1"], "data.positive_digit", "at least 0, got -1"),
        (["data.positive_digit=x"], "data.positive_digit", "a whole number, got the text 'x'"),
        (
            ["data.dataset=xor", "network.layers.0.units=1", "data.augment={rotate: 3}"],
            "data.augment",
            "only square images can be augmented; the examples of 'xor' have 2 inputs",
        ),
        (["data.dataset=xr"], "data.dataset", "unknown dataset 'xr'; did you mean 'xor'?"),
        (
            ["data.dataset=xor", "network.layers.0.units=1", "data.subset=5"],
            "data.subset",
            "5 examples are more than the 4 left for training: 0 of 4 are held out for validation",
        ),
        (
            ["data.dataset=xor", "network.layers.0.units=1", "data.validation=4"],
            "data.validation",
            "cannot hold out 4 of the 4 examples of xor; auto holds out 0",
        ),
    ],
)
def test_a_setting_that_does_not_fit_the_dataset_is_an_error_with_its_position(
    nnctl: Nnctl, scratch: Path, settings: list[str], key: str, expected: str
) -> None:
    (scratch / "wrong.yaml").write_text(
        "data: {dataset: mini}\n"
        "network: {layers: [{units: 3, activation: sigmoid}]}\n"
        "optimizer: {learning_rate: 0.1}\n",
        encoding="utf-8",
    )
    arguments = [word for setting in settings for word in ("--set", setting)]
    done = nnctl("train", "wrong.yaml", *arguments, code=2)
    (line,) = done.stderr.splitlines()
    assert expected in line
    by_setting = [setting for setting in settings if setting.startswith(f"{key}=")]
    place = f"--set {by_setting[0]}: " if by_setting else "wrong.yaml:2:28: "
    assert line.startswith(f"Error: {place}{key}: ")
    assert list(scratch.iterdir()) == [scratch / "wrong.yaml"]
