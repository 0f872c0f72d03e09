"""Sweep files: the keys to vary, their values, and the mistakes that are reported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nnctl.config.reader import read_config, read_value
from nnctl.config.sweeps import Choice, Constant, Range, SweepConfig
from nnctl.errors import ConfigError
from tests.config.helpers import mistake, mistakes, sweep_of, written

pytestmark = pytest.mark.usefixtures("scratch")

RANDOM = "base: a.yaml\nmethod: random\ntrials: 3\nparameters:\n  x: "
PLAIN = "base: a.yaml\nparameters: {x: [1]}\n"


def random_space(parameter: str) -> dict[str, Choice | Range]:
    """Return the space of a random sweep in which `parameter` is the YAML of the key x."""
    return sweep_of(written(f"{RANDOM}{parameter}\n")).space


def drawn_from(**fields: Any) -> Range:
    return Range.model_validate(fields)


def test_a_grid_is_a_list_of_values_for_each_key() -> None:
    text = "base: a.yaml\nparameters:\n  optimizer.learning_rate: [0.1, 1]\n  loss: [x, {y: 1}]\n"
    parameters: dict[str, Any] = {"optimizer.learning_rate": [0.1, 1], "loss": ["x", {"y": 1}]}
    assert SweepConfig(base="a.yaml", parameters=parameters) == sweep_of(written(text))
    assert sweep_of(written(text)).method == "grid"


@pytest.mark.parametrize(
    ("limits", "shape", "bounds"),
    [
        ("distribution: uniform, min: -1, max: 8", "uniform", (-1, 8)),
        ("distribution: int_uniform, min: 1, max: 8.0", "int_uniform", (1, 8)),
        ("distribution: log_uniform_values, min: 0.5, max: 8", "log_uniform_values", (0.5, 8)),
        ("distribution: log_uniform, min: -5, max: 0", "log_uniform", (-5, 0)),
        ("distribution: q_uniform, min: 0, max: 8, q: 0.5", "uniform", (0, 8)),
        ("distribution: q_log_uniform, min: -5, max: 0", "log_uniform", (-5, 0)),
        ("distribution: q_log_uniform_values, min: 1, max: 8", "log_uniform_values", (1, 8)),
        ("min: 1, max: 8", "int_uniform", (1, 8)),
        ("min: 1, max: 8.0", "uniform", (1, 8)),
    ],
)
def test_a_range_has_bounds_and_a_shape(
    limits: str, shape: str, bounds: tuple[float, float]
) -> None:
    parameter = random_space(f"{{{limits}}}")["x"]
    assert isinstance(parameter, Range)
    assert (parameter.shape, parameter.bounds) == (shape, bounds)


@pytest.mark.parametrize(
    ("expected", "limits"),
    [
        ((0.0, 1.0, False), "distribution: normal"),
        ((2.0, 3.0, False), "distribution: log_normal, mu: 2, sigma: 3"),
        ((-1.0, 1.0, True), "distribution: q_normal, mu: -1"),
        ((0.0, 0.5, True), "distribution: q_log_normal, sigma: 0.5, q: 2"),
    ],
)
def test_a_gaussian_range_has_a_mean_and_a_deviation(
    expected: tuple[float, float, bool], limits: str
) -> None:
    parameter = random_space(f"{{{limits}}}")["x"]
    assert isinstance(parameter, Range)
    assert expected == (parameter.mu, parameter.sigma, parameter.is_quantized)


@pytest.mark.parametrize(
    ("expected", "parameter"),
    [
        ({"x": [1, "a"]}, "[1, a]"),
        ({"x": [1, "a"]}, "{values: [1, a]}"),
        ({"x": [1, "a"]}, "{values: [1, a], probabilities: [0.25, 0.75]}"),
        ({"x": [1]}, "{distribution: categorical, values: [1]}"),
        ({"x": [{"values": [1, 2]}]}, "{value: {values: [1, 2]}}"),
        ({"x": [None]}, "{distribution: constant, value: null}"),
        ({"x.y": [1], "x.z.a": [2, 3]}, "{parameters: {y: {value: 1}, z.a: {values: [2, 3]}}}"),
        ({"x.y.z": [1]}, "{parameters: {y: {parameters: {z: [1]}}}}"),
    ],
)
def test_a_choice_is_written_in_any_of_the_ways_of_weights_and_biases(
    expected: dict[str, list[Any]], parameter: str
) -> None:
    space = random_space(parameter)
    assert expected == {
        key: choice.values for key, choice in space.items() if isinstance(choice, Choice)
    }


def test_a_value_may_contain_choices_and_ranges() -> None:
    layers = (
        "[[{units: {values: [10, {distribution: int_uniform, min: 20, max: 30}]}}, "
        "{units: {min: 1, max: 5}}], {distribution: constant, value: {values: []}}]"
    )
    (choice,) = random_space(layers).values()
    assert isinstance(choice, Choice)
    inner = Choice(values=[10, drawn_from(distribution="int_uniform", min=20, max=30)])
    units = drawn_from(distribution="int_uniform", min=1, max=5)
    assert choice.values == [
        [{"units": inner}, {"units": units}],
        Constant(distribution="constant", value={"values": []}),
    ]


@pytest.mark.parametrize(
    "value",
    [
        "{weights: {name: constant, value: 0}}",
        "{name: x, values: 3}",
        "{parameters: {y: [1]}}",
        "{min: 3}",
    ],
)
def test_a_mapping_among_the_values_is_a_value_unless_it_describes_a_choice(value: str) -> None:
    text = PLAIN.replace("[1]", f"[{value}]")
    assert sweep_of(written(text)).parameters["x"] == [read_value(value, "test")]


def test_a_file_of_weights_and_biases_is_read_unchanged() -> None:
    text = """\
program: train.py
name: my sweep
description: of rates
project: digits
entity: us
method: random
run_cap: 20
metric: {name: val_accuracy, goal: maximize}
early_terminate: {type: hyperband, max_iter: 27, s: 2, strict: false}
parameters:
  optimizer:
    parameters:
      learning_rate: {distribution: log_uniform, min: -9.2, max: 0}
      momentum: {value: 0.9}
  training.batch_size: {distribution: q_log_uniform_values, q: 8, min: 8, max: 256}
  loss: {values: [cross_entropy, quadratic], probabilities: [0.9, 0.1]}
"""
    sweep = sweep_of(written(text))
    assert (sweep.method, sweep.most, sweep.ranked_by) == ("random", 20, "val_accuracy")
    assert sweep.early_terminate is not None
    assert (sweep.early_terminate.first_epoch, sweep.early_terminate.eta) == (3, 3)
    assert list(sweep.space) == [
        "optimizer.learning_rate",
        "optimizer.momentum",
        "training.batch_size",
        "loss",
    ]
    assert sweep.base is None


@pytest.mark.parametrize(
    ("expected", "early"),
    [
        (1, "{type: median}"),
        (4, "{type: median, min_iter: 4}"),
        (1, "{type: successive_halving, eta: 2}"),
        (5, "{type: hyperband, min_iter: 5}"),
        (2, "{type: hyperband, max_iter: 8, s: 2, eta: 2}"),
        (1, "{type: hyperband, max_iter: 8, s: 100}"),
    ],
)
def test_the_first_epoch_of_early_termination_is_given_in_several_ways(
    expected: int, early: str
) -> None:
    rule = sweep_of(written(f"{PLAIN}early_terminate: {early}")).early_terminate
    assert rule is not None
    assert expected == rule.first_epoch


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("method: random needs 'trials', the number of combinations", "method: random"),
        ("method: tpe needs 'trials', the number of combinations", "method: tpe"),
        ("trials: expected a number of at least 1, got 0", "method: random\ntrials: 0"),
        ("seeds: expected a number of at most 1000, got 1001", "seeds: 1001"),
        ("run_cap: run_cap and trials mean the same; remove one of them", "trials: 1\nrun_cap: 2"),
        ("method: nnctl does not support bayes", "method: bayes"),
        ("command: unknown key 'command'; valid keys: base, method", "command: [python]"),
        ("controller: unknown key 'controller'; valid keys", "name: x\ncontroller: {type: local}"),
        ("metric: expected 'val_accuracy', 'val_loss' or 'train_loss', got 3", "metric: 3"),
        ("metric.name: 'name' is missing", "metric: {goal: minimize}"),
        ("metric.name: expected 'val_acc", "metric: {name: accuracy, goal: maximize}"),
        ("metric.goal: expected 'maximize' or 'mini", "metric: {name: val_loss, goal: min}"),
        (
            "metric: use goal: minimize for val_loss, not",
            "metric: {name: val_loss, goal: maximize}",
        ),
        ("metric: use goal: maximize for val_accuracy,", "metric: {name: val_accuracy}"),
        (
            "metric.target: unknown key 'target'; valid keys",
            "metric: {name: val_loss, target: 0.1}",
        ),
        ("early_terminate: expected a mapping (key: value), got", "early_terminate: hyperband"),
        ("early_terminate.type: 'type' is missing", "early_terminate: {min_iter: 3}"),
        ("early_terminate.type: expected 'median', 'succ", "early_terminate: {type: envelope}"),
        ("early_terminate: median does not use eta", "early_terminate: {type: median, eta: 3}"),
        ("early_terminate: median does not use s;", "early_terminate: {type: median, s: 3}"),
        (
            "early_terminate: hyperband needs either min_iter, or max_iter and s",
            "early_terminate: {type: hyperband, min_iter: 3, max_iter: 9}",
        ),
        (
            "early_terminate.strict: nnctl does not support strict hyperband; remove this key",
            "early_terminate: {type: hyperband, min_iter: 3, strict: true}",
        ),
        ("early_terminate: early_terminate cannot", "seeds: 3\nearly_terminate: {type: median}"),
        (
            "early_terminate: early_terminate cannot be used with folds",
            "folds: 3\nearly_terminate: {type: median}",
        ),
        ("folds: expected a number of at least 2, got 1", "folds: 1"),
    ],
)
def test_a_mistake_in_a_sweep_is_reported_once(expected: str, text: str) -> None:
    message = mistake(f"{text} \nparameters: {{x: [1]}}", read=sweep_of)
    assert message.split(": ", 1)[1].startswith(expected)


@pytest.mark.parametrize("kind", ["log_uniform", "q_log_uniform"])
def test_bounds_of_log_uniform_that_are_no_exponents_are_a_mistake(kind: str) -> None:
    limits = f"{{distribution: {kind}, min: 1e-4, max: 1e-1}}"
    message = mistake(f"{RANDOM}{limits}\n", read=sweep_of)
    assert message.endswith(
        f"min and max of {kind} are natural logarithms, so values would be from 1 to 1.105; for "
        f"values from 0.0001 to 0.1, use {kind}_values"
    )
    assert "1.105" in mistake(f"{RANDOM}[{{y: {limits}}}]\n", read=sweep_of)


@pytest.mark.parametrize("limits", ["min: -9.2, max: -2.3", "min: 0, max: 5", "min: 2, max: 5"])
def test_exponents_are_bounds_of_log_uniform(limits: str) -> None:
    assert random_space(f"{{distribution: log_uniform, {limits}}}")


def test_all_mistakes_in_a_sweep_are_reported() -> None:
    text = (
        "bas: a.yaml\nmethod: gird\nmetric: acc\nseed: -1\ntrails: 3\nparameters: {x: [1]}\n"
        "early_terminate: {type: hyperband, max_iter: 3, s: 1000000000, eta: 1}"
    )
    assert sorted(line.split(": ", 1)[1] for line in mistakes(text, read=sweep_of)) == [
        "bas: unknown key 'bas'; did you mean 'base'?",
        "early_terminate.eta: expected a number of at least 2, got 1",
        "early_terminate.s: expected a number of at most 100, got 1000000000",
        "method: expected 'grid', 'random' or 'tpe', got the text 'gird'; did you mean 'grid'?",
        "metric: expected 'val_accuracy', 'val_loss' or 'train_loss', got the text 'acc'",
        "seed: expected a number of at least 0, got -1",
        "trails: unknown key 'trails'; did you mean 'trials'?",
    ]


def test_mistakes_in_a_sweep_are_reported_at_their_positions() -> None:
    text = f"{RANDOM}{{min: 3, max: 1}}\n  y: []\n  z: {{parameters: {{a: [.nan]}}}}\n"
    assert mistakes(text, read=sweep_of) == [
        "c.yaml:7:24: expected a finite number of at most 64 bits, got .nan"
    ]
    assert mistakes(text.replace("[.nan]", "1"), read=sweep_of) == [
        "c.yaml:5:6: parameters.x: min (3) must be below max (1)",
        "c.yaml:6:6: parameters.y: expected 1 or more items, got a list of length 0",
        "c.yaml:7:23: parameters.z.parameters.a: expected a list, got 1",
    ]


@pytest.mark.parametrize(
    ("expected", "parameter"),
    [
        ("6: expected a list, got 3", "3"),
        ("6: expected a list, got nothing", "null"),
        ("6: expected 1 or more items, got a list of length 0", "[]"),
        ("6.distribution: 'distribution' is missing", "{}"),
        ("6.distribution: 'distribution' is missing", "{mu: 0, sigma: 1}"),
        ("6: min (2) must be below max (2)", "{min: 2, max: 2}"),
        ("6: 'max' is missing", "{min: 1}"),
        ("6: 'min' and 'max' are missing", "{distribution: uniform}"),
        ("12.min: expected a number, got true", "{min: true, max: 2}"),
        ("22.max: expected a number, got the text 'x'", "{min: 1.5, max: x}"),
        ("6: min must be above 0 for a log", "{distribution: log_uniform_values, min: 0, max: 2}"),
        ("6: min and max of log_uniform are", "{distribution: log_uniform, min: 0, max: 1000}"),
        ("6: min and max must be whole numbers", "{distribution: int_uniform, min: 0, max: 1.5}"),
        ("6: min and max must be between -2^53 and 2^53", "{min: 0, max: 1e300}"),
        ("6: normal does not use min", "{distribution: normal, min: 0}"),
        ("6: uniform does not use mu", "{min: 0.5, max: 1, mu: 0}"),
        ("6: int_uniform does not use q; use q_uniform", "{min: 0, max: 9, q: 2}"),
        ("6: log_normal does not use q; use q_log_normal", "{distribution: log_normal, q: 2}"),
        ("34.q: expected a number above 0.0, got 0", "{distribution: q_normal, q: 0}"),
        ("36.sigma: expected a number above 0.0, got -1", "{distribution: normal, sigma: -1}"),
        ("33.mu: expected a number of at most", "{distribution: normal, mu: 1e308}"),
        ("21.distribution: expected 'uniform'", "{distribution: inv_log_uniform, min: 0, max: 1}"),
        ("21.distribution: expected 'uniform', 'int_uniform', 'log", "{distribution: beta}"),
        ("15.mx: unknown key 'mx'; did you mean 'max'?", "{min: 0, mx: 1}"),
        ("6.values: 'values' is missing", "{distribution: categorical}"),
        ("6.value: 'value' is missing", "{distribution: constant}"),
        ("15.values: expected a list, got 3", "{values: 3}"),
        ("15.values: expected 1 or more items, got a list", "{values: []}"),
        ("22.min: unknown key 'min'; valid keys: distribution,", "{values: [1,2], min: 3}"),
        ("17.name: unknown key 'name'; valid keys:", "{value: 1, name: constant}"),
        ("21.distribution: expected 'categorical' or", "{distribution: uniform, values: [1]}"),
        (
            "6: expected 2 probabilities, one per value, got 1",
            "{values: [1, 2], probabilities: [1]}",
        ),
        ("6: probabilities must sum to 1, got 0.9", "{values: [1, 2], probabilities: [0.5, 0.4]}"),
        ("39.probabilities.0: expected a number", "{values: [1, 2], probabilities: [-0.5, 1.5]}"),
        ("19.parameters: expected 1 or more items, got a", "{parameters: {}}"),
        ("19.parameters: expected a mapping (key: value)", "{parameters: [1]}"),
        ("35.q: unknown key 'q'; valid keys: parameters", "{parameters: {y: [1, 2, 3]}, q: 1}"),
        ("23.1.a.values: expected 1 or more items", "[1, {a: {values: []}}]"),
        ("27.0.0.a.distribution: expected", "[[{a: {distribution: unifrom, min: 1, max: 2}}]]"),
        (
            "29.1.a.0.values.0.b: normal does not use min",
            "[1, {a: [{values: [{b: {distribution: normal, min: 3}}]}]}]",
        ),
        ("18.0.a.2: min (3) must be below max (1)", "[{a: [1, 2, {min: 3, max: 1}]}]"),
    ],
)
def test_a_wrong_parameter_is_reported_once_at_its_position(expected: str, parameter: str) -> None:
    column, rest = re.fullmatch(r"(\d+)(.*)", expected).groups()  # type: ignore[union-attr]
    message = mistake(f"{RANDOM}{parameter}", read=sweep_of)
    assert message.startswith(f"c.yaml:5:{column}: parameters.x{rest}")


@pytest.mark.parametrize(
    ("expected", "method", "parameters"),
    [
        ("x: method grid needs a list of values or a range", "grid", "x: {min: 0.5, max: 1}"),
        (
            "x: method grid needs a list of values or a range",
            "grid",
            "x: [{y: {min: 0.5, max: 1}}]",
        ),
        (
            "x.parameters.y: method grid needs a list of values or a range of whole numbers",
            "grid",
            "x: {parameters: {y: {distribution: q_uniform, min: 1, max: 8, q: 2}}}",
        ),
        (
            "x: probabilities need method random",
            "tpe",
            "x: [1, {y: {values: [1, 2], probabilities: [0.5, 0.5]}}]",
        ),
        ("a.b: duplicate parameter a.b", "grid", "a: {parameters: {b: [1]}}\n  a.b: [2]"),
        (
            "a.parameters.b: duplicate parameter a.b",
            "grid",
            "a.b: [2]\n  a: {parameters: {b: [1]}}",
        ),
        ("training.seed: seeds also varies training.seed", "grid", "training.seed: [1, 2]"),
        (
            "training.seed: seeds also varies training.seed",
            "random",
            "training.seed: {min: 1, max: 9}",
        ),
    ],
)
def test_contradictions_are_reported_at_the_parameter(
    expected: str, method: str, parameters: str
) -> None:
    text = f"base: a\nmethod: {method}\ntrials: 3\nseeds: 2\nparameters:\n  {parameters}"
    message = mistake(text, read=sweep_of)
    assert message.split(": ", 1)[1].startswith(f"parameters.{expected}")


def test_a_grid_may_have_a_range_of_whole_numbers_and_a_fixed_training_seed() -> None:
    text = "base: a\nseeds: 2\nparameters: {x: {min: 1, max: 9}, training.seed: {value: 5}}"
    assert list(sweep_of(written(text)).space) == ["x", "training.seed"]


def test_the_error_for_a_missing_sweep_file_lists_the_available_files() -> None:
    Path("sweep.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        read_config(Path("swep.yaml"))
    assert caught.value.hint == "Available files: sweep.yaml"
