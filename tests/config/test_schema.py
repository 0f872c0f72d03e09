"""The JSON Schemas for editors, the shipped configurations, and writing YAML."""

from __future__ import annotations

import contextlib
import dataclasses
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nnctl.config import Config, from_mapping, json_schema, to_mapping, to_yaml
from nnctl.config.reader import read, read_file
from nnctl.config.schema import MAX_UNITS, MAX_WHOLE
from nnctl.config.sweeps import SweepConfig
from nnctl.errors import ConfigError
from nnctl.nn.activations import ACTIVATIONS
from nnctl.nn.initializers import INITIALIZERS
from nnctl.nn.schedules import SCHEDULES
from tests.config.helpers import load, sweep_of, written
from tests.conftest import CONFIGS

TRAININGS = sorted(set(CONFIGS.glob("*.yaml")) - set(CONFIGS.glob("sweep-*.yaml")))
SWEEPS = sorted(CONFIGS.glob("sweep-*.yaml"))

TRAINING_SCHEMA = Draft202012Validator(json_schema())
SWEEP_SCHEMA = Draft202012Validator(json_schema(SweepConfig))


def mapping(
    hidden: dict[str, Any] | None = None, optimizer: dict[str, Any] | None = None, **sections: Any
) -> dict[str, Any]:
    """Return a small configuration with some of its values replaced."""
    layers = [
        {"units": 5, "activation": "relu"} | (hidden or {}),
        {"units": 10, "activation": "softmax"},
    ]
    rule = {"learning_rate": 0.1} | (optimizer or {})
    return {"network": {"layers": layers}, "optimizer": rule} | sections


def read_back(config: Config) -> Config:
    """Return a configuration that was written as YAML and read again."""
    return from_mapping(read(to_yaml(to_mapping(config)), "back.yaml").data, "back.yaml")


# Shipped files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["schema.json", "sweep-schema.json"])
def test_the_committed_schemas_are_current(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["nnctl.config", str(tmp_path)])
    runpy.run_module("nnctl.config", run_name="__main__")
    written = (tmp_path / name).read_text(encoding="utf-8")
    assert written == (CONFIGS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("validator", [TRAINING_SCHEMA, SWEEP_SCHEMA])
def test_the_schemas_are_valid_json_schemas(validator: Draft202012Validator) -> None:
    Draft202012Validator.check_schema(validator.schema)
    assert Draft202012Validator.META_SCHEMA["$id"] == validator.schema["$schema"]


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.name)
def test_a_shipped_configuration_is_valid(path: Path) -> None:
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=schema.json"
    assert [error.message for error in TRAINING_SCHEMA.iter_errors(read_file(path).data)] == []
    config = load(path)
    assert config == read_back(config)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_a_shipped_sweep_is_valid(path: Path) -> None:
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=sweep-schema.json"
    assert [error.message for error in SWEEP_SCHEMA.iter_errors(read_file(path).data)] == []
    assert load(CONFIGS / str(sweep_of(path).base))


# Schema and loader agree -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "good",
    [
        mapping(),
        mapping({"activation": {"name": "relu"}, "init": "he_normal"}),
        mapping({"init": {"name": "normal", "std": 0.5}}),
        mapping({"init": {"weights": "zeros"}}),
        mapping({"init": {"weights": {"name": "normal", "std": 0.5}, "biases": {"name": "zeros"}}}),
        mapping({"init": {}}),
        mapping({"init": None}),
        mapping({"batch_norm": True}),
        mapping({"batch_norm": False}),
        mapping({"batch_norm": None}),
        mapping({"batch_norm": {"position": "after", "momentum": 0}}),
        mapping(optimizer={"schedule": "cosine"}),
        mapping(optimizer={"schedule": {"name": "step", "every": 3, "warmup": 1}}),
        mapping(optimizer={"learning_rate": 1}),
        mapping(data={"validation": "auto", "subset": None, "fallback": "mini"}),
        mapping(training={"early_stopping": {"patience": 1}, "threads": 2}),
        mapping(training={"early_stopping": 10}),
    ],
)
def test_schema_and_loader_accept_short_forms(good: dict[str, Any]) -> None:
    assert [error.message for error in TRAINING_SCHEMA.iter_errors(good)] == []
    assert isinstance(from_mapping(good, "given"), Config)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        mapping({"units": MAX_UNITS + 1}),
        mapping({"unit": 5}),
        mapping({"activation": {"name": "relu", "slope": 1}}),
        mapping({"activation": None}),
        mapping({"batch_norm": "yes"}),
        mapping({"batch_norm": {"position": "between"}}),
        mapping({"batch_norm": {"epsilon": 0}}),
        mapping(optimizer={"momentum": 1}),
        mapping(optimizer={"schedule": {"every": 3}}),
        mapping(network={"layers": []}),
        mapping(data={"validation": 0.5}),
        mapping(training={"early_stopping": True}),
        mapping(training={"early_stopping": 0}),
        mapping(epochs=3),
    ],
)
def test_schema_and_loader_reject_the_same_configurations(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        from_mapping(bad, "given")
    assert not TRAINING_SCHEMA.is_valid(bad)


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(
    ("valid", "sweep"),
    [
        (False, {"base": "a.yaml"}),
        (False, {"parameters": {}}),
        (False, {"parameters": {"x": []}}),
        (False, {"parameters": {"x": [1]}, "trails": 1}),
        (False, {"parameters": {"x": {"distribution": "uniform", "min": 0}}}),
        (True, {"name": "a", "program": "b.py", "parameters": {"x": {"value": {"y": 1}}}}),
        (
            True,
            {
                "parameters": {
                    "x": {"parameters": {"y": {"values": [1, {"z": {"min": 1, "max": 2}}]}}}
                }
            },
        ),
        (True, {"parameters": {"x": {"min": 1, "max": 2}}, "method": "random", "run_cap": 3}),
        (True, {"parameters": {"x": {"distribution": "normal"}}, "method": "tpe", "trials": 3}),
        (True, {"parameters": {"x": [1]}, "metric": {"name": "val_loss"}}),
    ],
)
def test_schema_and_loader_accept_the_same_sweeps(valid: bool, sweep: dict[str, Any]) -> None:
    path = written(to_yaml(sweep))
    with contextlib.nullcontext() if valid else pytest.raises(ConfigError):
        sweep_of(path)
    assert valid == SWEEP_SCHEMA.is_valid(sweep)


# Entries of tables -------------------------------------------------------------------------------

ODD: dict[str, Any] = {
    "std": 1e300,
    "mean": -5e-324,
    "low": -0.1 - 0.2,
    "high": 1e22,
    "value": -1e-5,
    "warmup": 2.5,
    "every": 999,
    "gamma": 1 / 3,
    "final": 0.7,
    "at_zero": 1,
    "surrogate": "sigmoid",
    "gain": 5e-324,
    "negative_slope": 1e-17,
    "initial_slope": -1e16,
    "alpha": 123456789.123,
    "approximate": "tanh",
    "beta": 1.7976931348623157e308,
    "pieces": 100,
    "power": 0.1,
    "start": 1e-9,
    "rise": 0.9999,
    "patience": 7,
    "stop": 1 / 128,
    "metric": "val_loss",
}
"""A value other than the default for each parameter of the entries."""
TABLES: list[Mapping[str, type[Any]]] = [ACTIVATIONS, INITIALIZERS, SCHEDULES]


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in TABLES for name in table])
@pytest.mark.parametrize("form", ["name", "mapping", "parameters"])
def test_every_entry_is_accepted_in_all_forms_and_reads_back(
    table: Mapping[str, type[Any]], name: str, form: str
) -> None:
    kind = table[name]
    names = [field.name for field in dataclasses.fields(kind)] if form == "parameters" else []
    parameters = {parameter: ODD[parameter] for parameter in names}
    entry = name if form == "name" else {"name": name, **parameters}
    given, layer = mapping(loss="quadratic"), 0
    if table is ACTIVATIONS:
        layer = 1 if kind.place == "output" else 0
        given["network"]["layers"][layer]["activation"] = entry
    elif table is INITIALIZERS:
        given["network"]["init"] = {"weights": entry, "biases": entry}
    else:
        given["optimizer"]["schedule"] = entry
    assert [error.message for error in TRAINING_SCHEMA.iter_errors(given)] == []
    config = from_mapping(given, "given")
    init = config.network.init
    entries = [config.network.layers[layer].activation, init.weights, config.optimizer.schedule]
    assert kind(**parameters) == entries[TABLES.index(table)]
    assert config == read_back(config)
    written = to_mapping(config)
    assert [error.message for error in TRAINING_SCHEMA.iter_errors(written)] == []
    if not parameters:
        network = written["network"]
        if table is INITIALIZERS:
            assert kind() == init.biases
        shown = [network["layers"][layer]["activation"], network["init"]["weights"]]
        own_name = kind.name if table is ACTIVATIONS else name
        assert own_name == [*shown, written["optimizer"]["schedule"]][TABLES.index(table)]


# Writing and reading -----------------------------------------------------------------------------

EVERYTHING = """\
data: {dataset: '1e-3', fallback: mini, validation: 7, split: stratified, subset: 9,
       selection: first,
       positive_digit: 0,
       augment: {shift: 1, rotate: 2, scale: .3, shear: 4, noise: 1e-300,
                 elastic: {alpha: 5, sigma: 6}}}
network:
  layers:
    - {units: 1000000, activation: prelu, init: {biases: {name: normal, std: 2}}, dropout: 0.99,
       batch_norm: {momentum: 0, epsilon: 1e-3, position: after}}
    - {units: 2, activation: sigmoid}
  init: {weights: he_uniform, biases: {name: constant, value: -1}}
  input_dropout: 0.1
loss: quadratic
optimizer: {name: sgd, learning_rate: 5.0e-324, momentum: 0.9, nesterov: true, weight_decay: 3,
            l1: 4, clip_norm: 1, max_norm: 2, schedule: {name: step, every: 3, warmup: 1}}
training: {epochs: 1, steps: 2, batch_size: 3, sampling: with_replacement,
           seed: 9223372036854775807, label_smoothing: 0.4, adversarial: 5, average: 0.6,
           class_weights: balanced, early_stopping: {patience: 7, metric: val_loss}, threads: 8}
"""


@pytest.mark.usefixtures("scratch")
def test_a_configuration_reads_back_as_it_was() -> None:
    config = load(written(EVERYTHING))
    assert config == read_back(config)
    values, plain = to_mapping(config), to_mapping(from_mapping(mapping(), "plain"))
    for section in ("data", "network", "optimizer", "training"):
        ours, others = values[section], plain[section]
        differing = [key for key in ours if ours[key] != others.get(key)]
        assert len(differing) == len(ours) - (section == "optimizer")  # its name is sgd
    assert "batch_norm" not in plain["network"]["layers"][0]  # as in files of old versions


ODD_TEXTS = [
    "no", "on", "1e-3", "010", "0x1F", "null", "~", ".5", ".inf", "1_000", "<<", "#a", "'", '"',
    "!a", "&a", "*a", "%a", "@a", "`a", "?", "|", ">", "[", "{", "}", "- a", "a: b", "---", "...",
    " a ", "a\n b", "\t", "\0", "\x85", "b\x85c", "\u2028", "\ufeff", "é/数字", "\U0001f600",
    "a " * 90,
]  # fmt: skip
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x85")
texts = st.text(characters, min_size=1, max_size=200)
finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_an_odd_text_reads_back_as_it_was(text: str) -> None:
    assert {"a": [text], text: "b"} == read(to_yaml({"a": [text], text: "b"}), "back.yaml").data


@settings(max_examples=50)
@given(texts, texts | st.integers(-MAX_WHOLE, MAX_WHOLE) | finite)
def test_any_value_reads_back_as_it_was(key: str, value: object) -> None:
    assert repr({key: value}) == repr(read(to_yaml({key: value}), "back.yaml").data)


def test_a_comment_is_written_above_the_values() -> None:
    assert to_yaml({"a": {"b": 1.5}}, "one\ntwo") == "# one\n# two\na: {b: 1.5}\n"


def test_an_interrupt_at_any_time_during_serialization_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config, original, left = load(CONFIGS / "smoke.yaml"), dataclasses.asdict, [0]

    def interrupted(entry: Any) -> dict[str, Any]:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return original(entry)

    monkeypatch.setattr(dataclasses, "asdict", interrupted)
    to_mapping(config)
    calls = -left[0]
    assert calls >= 5  # two activations, two initializers, a schedule
    for number in range(1, calls + 1):
        left[0] = number
        with pytest.raises(KeyboardInterrupt):
            to_mapping(config)
