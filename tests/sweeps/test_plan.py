"""Sweep files and ``-p`` options: reading them, and checking all points."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nnctl.config import Config, Override
from nnctl.config.schema import MAX_WHOLE
from nnctl.config.sweeps import Choice, Range
from nnctl.errors import ConfigError, DamagedFileError, DataError, UsageError
from nnctl.sweeps.parameter_option import read_values
from nnctl.sweeps.plan import Plan, TrialFactory, read_plan, trial_id
from nnctl.sweeps.space import Params
from tests.runs.helpers import SMALL, ignore
from tests.sweeps.helpers import planned

pytestmark = pytest.mark.usefixtures("scratch")

BASE = """\
data: {dataset: mini}
network: {layers: [{units: 5, activation: relu}, {units: 10, activation: softmax}]}
optimizer: {learning_rate: 0.1}
"""
GRID = "base: base.yaml\nparameters: {loss: [quadratic]}\n"
WIDE = "{min: 0, max: 9007199254740992}"
RATE = "optimizer.learning_rate"
UNITS = "network.layers.0.units"


@pytest.fixture(autouse=True)
def base(scratch: Path) -> Path:
    """A training configuration in the current folder."""
    (scratch / "base.yaml").write_text(BASE, encoding="utf-8", newline="\n")
    return Path("base.yaml")


def varied(*parameters: str, **options: Any) -> Plan:
    """Return the plan of ``nnctl sweep base.yaml -p ...``."""
    return read_plan(Path("base.yaml"), parameters, **options)


def written(text: str, *parameters: str, base: str = "base: base.yaml\n", **options: Any) -> Plan:
    """Return the plan of ``nnctl sweep s.yaml -p ...``, and a sweep file with this text."""
    Path("s.yaml").write_text(f"{base}{text}\n", encoding="utf-8", newline="\n")
    return read_plan(Path("s.yaml"), parameters, **options)


def points(plan: Plan) -> list[Params]:
    """Return the points of a plan that are trained."""
    return [point for point, _ in plan.checked_points()]


def mistakes_of(plan: Plan) -> list[str]:
    """Return the error messages of all points."""
    with pytest.raises(ConfigError) as caught:
        plan.checked_points()
    return list(caught.value.mistakes)


# KEY=V1,V2,... -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        ([1, 0.5, 1e-3], "1,0.5,1e-3"),
        ([None, True, "no", "a b"], "null,true,no,a b"),
        ([[1, 2], 3], "[1,2],3"),
        ([1], "1,"),
        ([{"units": 64, "a": "x"}, {"units": 128}], "{units: 64, a: x},{units: 128}"),
        ([{"name": "constant", "value": 0}, "auto"], "{name: constant, value: 0},auto"),
        (["1"], "'1'"),
        ([0.001, 0.01, 0.1, 1.0], "log:0.001:1:4"),
        ([0.1, 0.2, 0.3, 0.4], "lin:0.1:0.4:4"),
        ([-1.0, 0.0, 1.0], "lin:-1:1:3"),
        ([10, 55, 100], "int:10:100:3"),
        ([1, 2, 3], "int:1:3:10"),
        ([0.0, 1.0, 5], "lin:0:1:2,5"),
        ([1.0, 1.00000005, 1.0000001], "lin:1:1.0000001:3"),
        (["lin", "logarithm:1:2"], "lin,logarithm:1:2"),
    ],
)
def test_a_parameter_can_have_any_value_of_a_yaml_list(expected: list[Any], values: str) -> None:
    assert read_values(f"x={values}") == ("x", expected)


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        (("log_uniform_values", 0.001, 1.0), "log:0.001:1"),
        (("uniform", -1.0, 2.0), "lin:-1:2"),
        (("int_uniform", 1.0, 100.0), "int:1:1e2"),
    ],
)
def test_values_are_drawn_from_a_range_without_a_count(
    expected: tuple[str, float, float], values: str
) -> None:
    _, values_read = read_values(f"x={values}")
    assert isinstance(values_read, Range)
    assert expected == (values_read.distribution, *values_read.bounds)


def test_a_value_on_the_command_line_may_contain_a_choice() -> None:
    _, values_read = read_values("x={units: {values: [1, 2]}},{units: {min: 3, max: 9}}")
    assert isinstance(values_read, list)
    assert values_read[0] == {"units": Choice(values=[1, 2])}
    assert isinstance(values_read[1]["units"], Range)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("expected KEY=V1,V2,...", "nonsense"),
        ("expected KEY=V1,V2,...", "=1"),
        ("expected KEY=V1,V2,...", " =1"),
        ("got an empty list of values", "x="),
        ("expected the node content, but found ','", "x=,"),
        ("expected the node content, but found ','", "x=1,,2"),
        ("expected ',' or ']'", "x=[1"),
        ("but found ']'", "x=]"),
        ("but found ','", "x=1], [2"),
        ("a key must be text", "x={1: 2}"),
        ("expected a finite number of at most 64 bits", "x=.inf"),
        ("nested too deeply", "x=&a [*a]"),
        ("expected a COUNT from 2 to 100,000, got 1", "x=int:1:2:1"),
        ("expected a COUNT from 2 to 100,000, got 100001", "x=lin:1:2:100001"),
        ("expected lin:LOW:HIGH or lin:LOW:HIGH:COUNT, two numbers and an", "x=lin:0"),
        ("expected log:LOW:HIGH", "x=log:a:1:3"),
        ("expected log:LOW:HIGH", "x=log:0.1:1:2.5"),
        ("expected log:LOW:HIGH", "x=log:0.1:1:3:4"),
        ("expected log:LOW:HIGH", f"x=log:0.1:1:{'9' * 5000}"),
        ("a range in a list needs a count, such as log:0.1:1:5", "x=log:0.1:1,5"),
        ("parameters.x: min must be above 0", "x=log:1e-400:1:3"),
        ("parameters.x: min must be above 0", "x=log:-1:1"),
        ("parameters.x: min (2) must be below max (1)", "x=lin:2:1:3"),
        ("parameters.x: min (1) must be below max (1)", "x=int:1:1:2"),
        ("parameters.x: min and max must be whole numbers", "x=int:0.5:3:2"),
        ("parameters.x: min and max must be between", "x=lin:0:1e300:3"),
        ("parameters.x.min: expected a finite number, got nan", "x=lin:nan:1:3"),
        ("parameters.x.max: expected a finite number, got inf", "x=lin:0:inf"),
        ("parameters.x.1.a: min (3) must be below max (1)", "x=1,{a: {min: 3, max: 1}}"),
        ("parameters.x.0.values: expected 1 or more items, got", "x={values: []}"),
    ],
)
def test_a_wrong_parameter_is_reported_as_it_was_typed(expected: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_values(text)
    last_line = caught.value.message.splitlines()[-1]
    assert last_line.strip().startswith(f"-p {text}: ")
    assert expected in last_line.removeprefix(f"-p {text}: ")


def test_a_parameter_of_thousands_of_digits_is_reported_briefly() -> None:
    with pytest.raises(UsageError, match=r"parameters\.x\.max: expected a finite number, got inf"):
        read_values(f"x=log:0:{'9' * 5000}")


# From a configuration or a sweep file to a plan --------------------------------------------------


def test_parameters_over_a_configuration_are_a_grid() -> None:
    plan = varied(f"{RATE}=0.1,0.5", f"{UNITS}=3,4")
    assert plan.sweep.method == "grid"
    assert [tuple(point.values()) for point in points(plan)] == [
        (0.1, 3),
        (0.1, 4),
        (0.5, 3),
        (0.5, 4),
    ]


@pytest.mark.parametrize("values", ["log:0.01:1", "{distribution: uniform, min: 0.1, max: 0.2}"])
def test_ranges_over_a_configuration_are_drawn_from(values: str) -> None:
    plan = varied(f"{RATE}={values}", f"{UNITS}=3,4", trials=20)
    assert plan.sweep.method == "random"
    assert len(points(plan)) == 20
    with pytest.raises(UsageError, match="needs the number of points") as caught:
        varied(f"{RATE}={values}")
    assert caught.value.hint is not None
    assert "--trials N" in caught.value.hint


def test_overrides_are_applied_to_the_base() -> None:
    overrides = [Override("training.epochs", 3, "--epochs 3"), Override(RATE, 0.3, "--set")]
    (_, config), *_ = varied(f"{RATE}=0.1", overrides=overrides).checked_points()
    assert (config.training.epochs, config.optimizer.learning_rate) == (3, 0.3)
    with pytest.raises(UsageError, match=f"--set: the sweep already varies {RATE}"):
        varied(f"{RATE}=0.1,0.5", overrides=overrides)


def test_the_path_of_a_base_is_relative_to_its_sweep_file(scratch: Path) -> None:
    folder = scratch / "folder"
    folder.mkdir()
    (folder / "base.yaml").write_text(BASE.replace("5", "7"), encoding="utf-8")
    (folder / "s.yaml").write_text(f"base: base.yaml\nparameters: {{{RATE}: [1]}}", "utf-8")

    def units(**options: Any) -> int:
        ((_, config),) = read_plan(folder / "s.yaml", **options).checked_points()
        return config.network.layers[0].units

    assert units() == 7
    assert units(base=Path("base.yaml")) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
@pytest.mark.timeout(60)
def test_a_pipe_is_read_only_if_the_user_names_it() -> None:
    os.mkfifo("pipe")
    Path("s.yaml").write_text(f"base: pipe\nparameters: {{{RATE}: [1]}}", "utf-8")
    with pytest.raises(ConfigError, match="it is a directory, a pipe or a device"):
        read_plan(Path("s.yaml"))
    with ThreadPoolExecutor(1) as writer:
        writer.submit(Path("pipe").write_text, BASE)
        plan = read_plan(Path("s.yaml"), base=Path("pipe"))
        assert len(points(plan)) == 1
        writer.submit(Path("pipe").write_text, BASE)
        assert len(points(read_plan(Path("pipe"), [f"{RATE}=0.1,0.2"]))) == 2


@pytest.mark.parametrize(
    ("expected", "text", "trials"),
    [
        (2, "trials: 2", None),
        (2, "run_cap: 2", None),
        (3, "trials: 2", 3),
        (3, "run_cap: 2", 3),
        (3, "method: random", 3),
        (3, "method: random\nrun_cap: 9", 3),
        (2, "method: random\nrun_cap: 2", None),
    ],
)
def test_the_number_of_points_on_the_command_line_replaces_that_of_the_file(
    expected: int, text: str, trials: int | None
) -> None:
    plan = written(f"{text}\nparameters: {{{RATE}: {{values: [1, 2, 3, 4]}}}}", trials=trials)
    assert len(list(plan.points())) == expected


def test_parameters_replace_those_of_the_sweep_file_or_add_to_them() -> None:
    text = "parameters: {optimizer: {parameters: {learning_rate: [1], momentum: [0.5]}}, loss: [a]}"
    plan = written(text, f"{RATE}=0.1,0.2", f"{UNITS}=3")
    assert {
        key: spec.values for key, spec in plan.sweep.space.items() if isinstance(spec, Choice)
    } == {
        RATE: [0.1, 0.2],
        "optimizer.momentum": [0.5],
        "loss": ["a"],
        UNITS: [3],
    }


def test_the_method_of_the_file_determines_which_parameters_are_valid() -> None:
    assert len(points(written(GRID, f"{UNITS}=int:2:5", base=""))) == 4
    random = "method: random\ntrials: 3\nparameters: {loss: [quadratic, cross_entropy]}"
    assert len(points(written(random, f"{RATE}=log:0.01:1"))) == 3


@pytest.mark.parametrize(
    ("expected", "text", "parameters"),
    [
        (f"-p {RATE}: method grid needs a list of values", GRID, [f"{RATE}=log:0.01:1"]),
        (
            "-p loss: probabilities need method random",
            GRID,
            ["loss={values: [a, b], probabilities: [1, 0]}"],
        ),
        (
            "-p training.seed: seeds also varies training.seed",
            f"{GRID}seeds: 2",
            ["training.seed=1,2"],
        ),
        ("x is given twice", GRID, ["x=1", "x=2"]),
        ("s.yaml:1:1: 'base' is missing", "parameters: {x: [1]}", []),
        ("s.yaml:3:7: seed: expected a whole number", f"{GRID}seed: x", []),
        ("nowhere.yaml: file not found", GRID.replace("base.yaml", "nowhere.yaml"), []),
        ("is not a sweep file", "method: grid", []),
        ("the top level must be a mapping", "- 1", []),
    ],
)
def test_an_invalid_sweep_is_refused_before_its_points_are_generated(
    expected: str, text: str, parameters: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        written(text, *parameters, base="")
    assert expected in caught.value.message


@pytest.mark.parametrize(
    ("expected", "parameters", "options"),
    [
        ("is not a sweep file: it has neither 'base' nor 'parameters'", [], {}),
        ("--base needs a sweep file", ["x=1"], {"base": Path("base.yaml")}),
        ("training is not a list", ["x=1"], {"overrides": [Override("training.0", 1, "--set")]}),
    ],
)
def test_a_configuration_without_parameters_is_refused(
    expected: str, parameters: list[str], options: dict[str, Any]
) -> None:
    with pytest.raises(UsageError) as caught:
        varied(*parameters, **options)
    assert expected in caught.value.message


# Points ------------------------------------------------------------------------------------------


def test_points_with_the_same_configuration_are_merged() -> None:
    plan = varied(
        f"{RATE}=0.1,1e-1,0.2",
        "network.layers.0.activation=relu,{name: relu}",
        f"{UNITS}=5,5",
    )
    assert [point[RATE] for point in points(plan)] == [0.1, 0.2]


def test_the_errors_of_all_points_are_reported_at_once() -> None:
    plan = written(
        "parameters:\n"
        "  optimizer:\n"
        "    parameters:\n"
        "      learning_rate: [0, 1]\n"
        "      schedule: {parameters: {name: {values: [cosin, step]}}}\n"
        "  training.epochs: {values: [0, 1]}",
        f"{UNITS}=0,3",
    )
    assert sorted(
        line.split(": expected")[0].split(": unknown")[0] for line in mistakes_of(plan)
    ) == [
        f"-p {UNITS}=0: {UNITS}",
        f"s.yaml:5:7: {RATE}=0: {RATE}",
        "s.yaml:6:31: optimizer.schedule.name=cosin: optimizer.schedule",
        "s.yaml:7:3: training.epochs=0: training.epochs",
    ]


def test_the_last_of_several_seeds_must_be_a_valid_seed() -> None:
    largest = Override("training.seed", MAX_WHOLE, "--seed")
    assert len(points(varied(f"{UNITS}=3", overrides=[largest]))) == 1
    message = mistakes_of(varied(f"{UNITS}=3", overrides=[largest], seeds=2))
    assert message == [
        f"base.yaml: the last of 2 seeds would be above {MAX_WHOLE}; set training.seed"
    ]


def test_an_error_in_the_base_is_reported_once() -> None:
    (message,) = mistakes_of(
        varied(f"{RATE}=1,2,3", overrides=[Override("training.epochs", 0, "-e")])
    )
    assert message.startswith("-e: training.epochs: expected")
    plan = varied(f"{RATE}=1,2,3", "data.validation=0,100")
    (message,) = mistakes_of(plan)
    assert "trials are ranked by val_accuracy, but no examples are held out" in message


@pytest.mark.parametrize(
    ("expected", "key"),
    [
        ("unknown key 'lerning_rate'; did you mean 'learning_rate'?", "optimizer.lerning_rate"),
        ("network.layers is a list without an item '7'", "network.layers.7.units"),
        ("has no key 'x'", "network.layers.0.units.x"),
        ("unknown key ''", "training..epochs"),
    ],
)
def test_an_unknown_key_is_reported(expected: str, key: str) -> None:
    (message,) = mistakes_of(varied(f"{key}=1"))
    assert message.startswith(f"-p {key}=1: ")
    assert expected in message


@pytest.mark.parametrize("order", [1, -1])
def test_a_nested_key_is_applied_after_its_parent(order: int) -> None:
    layers = "network.layers=[{units: 3, activation: relu}, {units: 10, activation: softmax}]"
    plan = varied(*[layers, f"{UNITS}=7,8"][::order])
    checked = plan.checked_points()
    assert [config.network.layers[0].units for _, config in checked] == [7, 8]
    assert [point["network.layers"][0]["units"] for point, _ in checked] == [3, 3]


def test_tpe_is_checked_at_the_ends_of_its_ranges_and_at_each_choice() -> None:
    text = "method: tpe\ntrials: 3\nparameters:\n"
    kinds = "{activation: relu, units: 9}, {activation: tanh, units: {values: [3, 0]}}"
    wrong = (
        f"  network.layers.0: [{kinds}]\n"
        f"  {RATE}: {{min: -0.5, max: 0.5}}\n"
        "  loss: [quadratic, quadrtic]\n"
        "  training.batch_size: {min: 0, max: 9}"
    )
    message = [line.split(": ")[1] for line in mistakes_of(written(text + wrong))]
    wrong_keys = {line.split("=")[0] for line in message}
    assert wrong_keys == {"network.layers.0", RATE, "loss", "training.batch_size"}
    right = written(f"{text}  {RATE}: {{min: 0, max: 0.5}}\n  loss: [quadratic, cross_entropy]")
    assert len(right.checked_points()) == 4
    assert list(right.points()) == []


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("1,000,000", "parameters: {a: {min: 1, max: 1000}, b: {min: 1, max: 1000}}"),
        ("more than 10^15", f"parameters: {{a: [[{', '.join([WIDE] * 300)}]]}}"),
        ("100,001", "method: random\ntrials: 100001\nparameters: {a: [1]}"),
        ("100,001", "method: tpe\ntrials: 100001\nparameters: {a: [1]}"),
    ],
    ids=["grid", "nested", "random", "tpe"],
)
def test_too_many_points_are_refused_at_once(expected: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        written(text).checked_points()
    assert caught.value.message == (f"the sweep has {expected} points; the maximum is 100,000")


def test_the_first_points_of_too_many_can_be_tried() -> None:
    plan = varied(f"{RATE}=lin:0.1:1:1000", "training.seed=int:0:999:1000", trials=5)
    assert [point["training.seed"] for point in points(plan)] == [0, 1, 2, 3, 4]


def test_a_grid_that_is_too_large_to_count_is_refused() -> None:
    assert len(points(varied(f"{RATE}=0.1,0.2", trials=10**50))) == 2


# Trials ------------------------------------------------------------------------------------------


def config_of(*parameters: str) -> Config:
    """Return the configuration of a sweep with a single point."""
    ((_, config),) = varied(*parameters).checked_points()
    return config


@pytest.mark.parametrize(
    "parameters",
    [
        [f"{RATE}=0.1"],
        ["optimizer={learning_rate: 1e-1, name: sgd, momentum: 0}"],
        ["training.threads=1"],
        ["data.validation=833"],
        ["data.fallback=mini"],
        ["network.layers.0.activation={name: relu}"],
    ],
)
def test_the_id_of_a_trial_depends_on_its_resolved_configuration(parameters: list[str]) -> None:
    factory = TrialFactory(ignore)

    def id_of(*parameters: str, seed: int = 0) -> str:
        return trial_id(factory.resolve(config_of(*parameters), seed))

    usual = id_of("training.seed=0")
    assert id_of(*parameters) == usual
    assert id_of(f"{RATE}=0.2") != usual
    assert id_of("training.seed=0", seed=1) != usual


def test_a_trial_has_a_seed_and_a_directory() -> None:
    factory = TrialFactory(ignore)
    (point, config), *_ = varied(f"{UNITS}=3,4").checked_points()
    resolved = factory.resolve(config, 7)
    trial = factory.make(Path("sweep"), planned(12, point, resolved))
    assert trial.directory == Path("sweep/trial-012")
    assert (trial.seed, resolved["training"]["seed"], trial.point) == (7, 7, point)
    assert (resolved["training"]["threads"], resolved["data"]["validation"]) == (1, 833)
    assert json.loads(trial.config) == resolved


def test_a_trial_has_one_thread_unless_the_configuration_sets_another_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nnctl.system.cores", lambda: 8)
    factory = TrialFactory(ignore)

    def threads(*parameters: str) -> int:
        config = config_of(f"{UNITS}=4000", "training.batch_size=500", *parameters)
        return int(factory.resolve(config, 0)["training"]["threads"])

    assert threads() == 1
    assert threads("training.threads=2") == 2


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ([f"{RATE}=0.1,0.2"], "parameters: {loss: [quadratic]}"),
        (
            ["network.layers.0={units: {values: [3, {min: 4, max: 9}]}, activation: relu}"],
            "method: random\nseed: 5\ntrials: 4\nmetric: {name: val_loss}\n"
            "parameters: {optimizer: {parameters: {learning_rate: {min: 0.1, max: 1}}}, "
            "loss: {values: [quadratic, cross_entropy], probabilities: [0.9, 0.1]}, "
            "training.epochs: {value: 3}}",
        ),
        (
            [],
            "method: random\ntrials: 3\nparameters:\n"
            "  optimizer.schedule:\n"
            "    - {distribution: constant, value: {name: constant}}\n"
            "    - {name: step, every: {min: 1, max: 5}, gamma: {values: [0.1, 0.5]}}",
        ),
        ([], f"method: tpe\nrun_cap: 3\nparameters: {{{RATE}: {{distribution: normal, mu: 5}}}}\n"
             "early_terminate: {type: hyperband, min_iter: 2}"),
    ],
)  # fmt: skip
def test_a_plan_reads_back_from_json_as_it_was(parameters: list[str], text: str) -> None:
    plan = written(text, *parameters)
    again = Plan.from_json(json.loads(json.dumps(plan.to_json(), allow_nan=False)))
    assert again.sweep == plan.sweep
    assert again.base.data == plan.base.data
    assert list(again.points()) == list(plan.points())
    assert points(again) == points(plan)


@pytest.mark.parametrize(
    "change",
    [{"sweep": {"parameters": {}}}, {"sweep": None}, {"base": 3}, {"base": None}, {"source": ...}],
)
def test_a_damaged_plan_is_refused(change: dict[str, Any]) -> None:
    data = {**varied(f"{RATE}=1").to_json(), **change}
    data = {key: value for key, value in data.items() if value is not ...}
    with pytest.raises(DamagedFileError, match="the plan in the sweep's journal is damaged"):
        Plan.from_json(data)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_trial_directory_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trial-001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="trial-001 is a symbolic link"):
        TrialFactory(ignore).make(tmp_path, planned(1, {}, SMALL))
