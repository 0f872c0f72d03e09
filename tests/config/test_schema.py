"""The JSON Schemas for editors, the configurations that ship, and the way back to YAML."""

from __future__ import annotations

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

from nnctl.config import Config, from_mapping, json_schema, load, to_mapping, to_yaml
from nnctl.config.reader import read, read_file
from nnctl.config.schema import MAX_UNITS, MAX_WHOLE
from nnctl.config.sweeps import SweepConfig
from nnctl.errors import ConfigError
from nnctl.nn.activations import ACTIVATIONS
from nnctl.nn.initializers import INITIALIZERS
from nnctl.nn.schedules import SCHEDULES
from tests.config.helpers import sweep_of
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


# The files that ship -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["schema.json", "sweep-schema.json"])
def test_the_committed_schemas_are_current(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["nnctl.config", str(tmp_path)])
    runpy.run_module("nnctl.config", run_name="__main__")
    written = (tmp_path / name).read_text(encoding="utf-8")
    assert written == (CONFIGS / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("validator", [TRAINING_SCHEMA, SWEEP_SCHEMA])
def test_the_schemas_are_schemas(validator: Draft202012Validator) -> None:
    Draft202012Validator.check_schema(validator.schema)
    assert Draft202012Validator.META_SCHEMA["$id"] == validator.schema["$schema"]


@pytest.mark.parametrize("path", TRAININGS, ids=lambda path: path.name)
def test_a_configuration_that_ships_is_right(path: Path) -> None:
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=schema.json"
    assert [error.message for error in TRAINING_SCHEMA.iter_errors(read_file(path).data)] == []
    config = load(path)
    assert config == read_back(config)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_a_sweep_that_ships_is_right(path: Path) -> None:
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
        mapping({"init": {"weights": "zeros"}}),
        mapping({"init": {"weights": {"name": "normal", "std": 0.5}, "biases": {"name": "zeros"}}}),
        mapping({"init": {}}),
        mapping({"init": None}),
        mapping(optimizer={"schedule": "cosine"}),
        mapping(optimizer={"schedule": {"name": "step", "every": 3, "warmup": 1}}),
        mapping(optimizer={"learning_rate": 1}),
        mapping(data={"validation": "auto", "subset": None, "fallback": "mini"}),
        mapping(training={"early_stopping": {"patience": 1}, "threads": 2}),
    ],
)
def test_what_the_schema_allows_loads(good: dict[str, Any]) -> None:
    assert [error.message for error in TRAINING_SCHEMA.iter_errors(good)] == []
    assert isinstance(from_mapping(good, "given"), Config)


def test_the_schema_allows_an_initializer_with_parameters_for_the_weights() -> None:
    short = mapping({"init": {"name": "normal", "std": 0.5}})
    assert from_mapping(short, "given").network.layers[0].init is not None
    assert [error.message for error in TRAINING_SCHEMA.iter_errors(short)] == []


@pytest.mark.parametrize(
    "bad",
    [
        {},
        mapping({"units": True}),
        mapping({"units": 0}),
        mapping({"units": MAX_UNITS + 1}),
        mapping({"units": "5"}),
        mapping({"unit": 5}),
        mapping({"activation": "relou"}),
        mapping({"activation": {"name": "relu", "slope": 1}}),
        mapping({"activation": None}),
        mapping({"init": 3}),
        mapping(optimizer={"momentum": 1}),
        mapping(optimizer={"learning_rate": 0}),
        mapping(optimizer={"nesterov": "no"}),
        mapping(optimizer={"schedule": {"every": 3}}),
        mapping(network={"layers": []}),
        mapping(loss="mse"),
        mapping(data={"validation": -1}),
        mapping(data={"validation": 0.5}),
        mapping(training={"early_stopping": True}),
        mapping(epochs=3),
    ],
)
def test_what_the_loader_refuses_is_refused_by_the_schema(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        from_mapping(bad, "given")
    assert not TRAINING_SCHEMA.is_valid(bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"base": "a.yaml"},
        {"base": "a.yaml", "parameters": {}},
        {"base": "a.yaml", "parameters": {"x": []}},
        {"base": "a.yaml", "parameters": {"x": [1]}, "trails": 1},
        {"base": "a.yaml", "parameters": {"x": {"distribution": "uniform", "min": 0}}},
    ],
)
def test_a_sweep_that_the_loader_refuses_is_refused_by_the_schema(
    bad: dict[str, Any], scratch: Path
) -> None:
    path = scratch / "sweep.yaml"
    path.write_text(to_yaml(bad), encoding="utf-8")
    with pytest.raises(ConfigError):
        sweep_of(path)
    assert not SWEEP_SCHEMA.is_valid(bad)


@pytest.mark.parametrize(
    "good",
    [
        {"name": "mine", "program": "train.py", "parameters": {"x": {"value": {"y": 1}}}},
        {"parameters": {"x": {"parameters": {"y": {"values": [1, {"z": {"min": 1, "max": 2}}]}}}}},
        {"parameters": {"x": {"min": 1, "max": 2}}, "method": "random", "run_cap": 3},
        {"parameters": {"x": {"distribution": "normal"}}, "method": "tpe", "trials": 3},
        {"parameters": {"x": [1]}, "metric": {"name": "val_loss"}},
    ],
)
def test_a_sweep_that_the_loader_takes_is_taken_by_the_schema(
    good: dict[str, Any], scratch: Path
) -> None:
    path = scratch / "sweep.yaml"
    path.write_text(to_yaml(good), encoding="utf-8")
    assert sweep_of(path)
    assert SWEEP_SCHEMA.is_valid(good)


# An entry of a table is enough -------------------------------------------------------------------


def both_forms(table: Mapping[str, type[Any]]) -> list[Any]:
    """Return all names of a table, as names and as mappings."""
    return [form for name in table for form in (name, {"name": name})]


def name_of(form: Any) -> str:
    """Return the name in either form."""
    return str(form["name"] if isinstance(form, dict) else form)


@pytest.mark.parametrize("form", both_forms(ACTIVATIONS), ids=str)
def test_every_activation_is_accepted_by_name_and_as_a_mapping(form: Any) -> None:
    given = mapping(loss="quadratic")
    kind = ACTIVATIONS[name_of(form)]
    layer = 1 if kind.place == "output" else 0
    given["network"]["layers"][layer]["activation"] = form
    config = from_mapping(given, "given")
    assert TRAINING_SCHEMA.is_valid(given)
    assert kind() == config.network.layers[layer].activation
    assert kind.name == to_mapping(config)["network"]["layers"][layer]["activation"]


@pytest.mark.parametrize("form", both_forms(INITIALIZERS), ids=str)
def test_every_initializer_is_accepted_by_name_and_as_a_mapping(form: Any) -> None:
    given = mapping({"init": {"weights": form, "biases": form}})
    written = to_mapping(from_mapping(given, "given"))["network"]["layers"][0]["init"]
    assert TRAINING_SCHEMA.is_valid(given)
    assert {"weights": name_of(form), "biases": name_of(form)} == written


@pytest.mark.parametrize("form", both_forms(SCHEDULES), ids=str)
def test_every_schedule_is_accepted_by_name_and_as_a_mapping(form: Any) -> None:
    given = mapping(optimizer={"schedule": form})
    config = from_mapping(given, "given")
    assert TRAINING_SCHEMA.is_valid(given)
    assert SCHEDULES[name_of(form)]() == config.optimizer.schedule
    assert name_of(form) == to_mapping(config)["optimizer"]["schedule"]


# There and back ----------------------------------------------------------------------------------


ODD_TEXTS = [
    "no", "on", "1e-3", "010", "0x1F", "null", "~", ".5", ".inf", "1_000", "<<", "#a", "'", '"',
    "!a", "&a", "*a", "%a", "@a", "`a", "?", "|", ">", "[", "{", "}", "- a", "a: b", "---", "...",
    " a ", "a\n b", "\t", "\0", "\u2028", "\ufeff", "é/数字", "\U0001f600", "a " * 90,
]  # fmt: skip
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x85")
texts = st.sampled_from(ODD_TEXTS) | st.text(characters, min_size=1, max_size=200)
counts = st.integers(1, 1000)
PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "std": st.floats(0, 1e300),
    "mean": st.floats(-1e300, 1e300),
    "low": st.floats(-1e300, -0.05),
    "high": st.floats(0.05, 1e300),
    "value": st.floats(-1e300, 1e300),
    "warmup": st.integers(0, 9) | st.floats(0, 9),
    "every": counts,
    "gamma": st.floats(0, 1, exclude_min=True),
    "final": st.floats(0, 1),
    "at_zero": st.sampled_from([0, 1]),
    "surrogate": st.sampled_from([None, "sigmoid"]),
    "gain": st.floats(0, 1e300, exclude_min=True),
    "negative_slope": st.floats(0, 1),
    "initial_slope": st.floats(-1e300, 1e300),
    "alpha": st.floats(0, 1e300),
    "approximate": st.sampled_from([None, "tanh"]),
    "beta": st.floats(0, 1e300, exclude_min=True),
    "pieces": st.integers(2, 100),
}
"""Of all entries of the tables, by name."""


def entries(table: Mapping[str, type[Any]]) -> st.SearchStrategy[Any]:
    """Entries of a table, by name or as mappings with some parameters."""
    mappings = [
        st.fixed_dictionaries(
            {"name": st.just(name)},
            optional={field.name: PARAMETERS[field.name] for field in dataclasses.fields(kind)},
        )
        for name, kind in table.items()
    ]
    return st.sampled_from(sorted(table)) | st.one_of(mappings)


initializers = entries(INITIALIZERS)
inits = initializers | st.fixed_dictionaries(
    {}, optional={"weights": initializers, "biases": initializers}
)


def layers(table: Mapping[str, type[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Layers with one of these activations."""
    return st.fixed_dictionaries(
        {"units": st.integers(2, MAX_UNITS), "activation": entries(table)},
        optional={"init": st.none() | inits},
    )


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Valid configurations, as one may write them."""
    hidden = {name: kind for name, kind in ACTIVATIONS.items() if kind.place != "output"}
    anything = tuple(name for name, kind in ACTIVATIONS.items() if kind.place != "hidden")
    loss, outputs = draw(
        st.sampled_from([("cross_entropy", ("softmax", "sigmoid")), ("quadratic", anything)])
    )
    stopping = st.fixed_dictionaries(
        {"patience": counts}, optional={"metric": st.sampled_from(["val_accuracy", "val_loss"])}
    )
    values: dict[str, dict[str, st.SearchStrategy[Any]]] = {
        "data": {
            "dataset": texts,
            "fallback": st.sampled_from([None, "mini"]),
            "validation": st.just("auto") | counts,
            "subset": st.none() | counts,
            "positive_digit": st.none() | st.integers(0, 9),
        },
        "network": {
            "layers": st.tuples(
                st.lists(layers(hidden), max_size=3), layers({k: ACTIVATIONS[k] for k in outputs})
            ).map(lambda drawn: [*drawn[0], drawn[1]]),
            "init": inits,
        },
        "optimizer": {
            "learning_rate": counts | st.floats(5e-324, 1e3),
            "momentum": st.floats(0, 1, exclude_min=True, exclude_max=True),
            "nesterov": st.booleans(),
            "weight_decay": st.just(0) | st.floats(0, 9e-4),
            "schedule": entries(SCHEDULES),
        },
        "training": {
            "epochs": st.just("auto") | counts,
            "steps": st.none() | counts,
            "batch_size": counts,
            "sampling": st.sampled_from(["shuffle", "with_replacement"]),
            "seed": st.integers(0, MAX_WHOLE),
            "early_stopping": st.none() | stopping,
            "threads": st.just("auto") | counts,
        },
    }
    drawn = {name: draw(st.fixed_dictionaries(section)) for name, section in values.items()}
    return {"loss": loss, **drawn}


@settings(deadline=None)
@given(given_values=configurations())
def test_a_configuration_reads_back_as_it_was(given_values: dict[str, Any]) -> None:
    config = from_mapping(given_values, "given")
    assert config == read_back(config)
    assert to_mapping(config) == to_mapping(read_back(config))
    assert [error.message for error in TRAINING_SCHEMA.iter_errors(to_mapping(config))] == []


@settings(deadline=None)
@given(name=texts)
def test_a_text_is_written_as_a_text(name: str) -> None:
    assert {"a": [name], name: "b"} == read(to_yaml({"a": [name], name: "b"}), "back.yaml").data


def test_a_next_line_character_is_written_as_text() -> None:
    assert read(to_yaml({"a": "b\x85c"}), "back.yaml").data == {"a": "b\x85c"}


def test_a_comment_stands_above_what_is_written() -> None:
    assert to_yaml({"a": {"b": 1.5}}, "one\ntwo") == "# one\n# two\na: {b: 1.5}\n"


def test_an_interrupt_while_values_are_written_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    config = load(CONFIGS / "smoke.yaml")
    monkeypatch.setattr(dataclasses, "asdict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        to_mapping(config)
