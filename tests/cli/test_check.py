"""``nnctl check``: configurations, gradients, activation functions, and runs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from nnctl.analysis.inspection import (
    GradientReport,
    LayerStatistics,
    inspect,
    layer_statistics,
    report_gradients,
)
from nnctl.build import build_network
from nnctl.config import from_mapping
from nnctl.data.dataset import open_dataset
from nnctl.diagnosis.base import TITLES
from nnctl.nn.activations import ACTIVATIONS, Sigmoid
from nnctl.nn.events import EpochDone
from nnctl.nn.gradient_check import GradientError
from nnctl.nn.initializers import INITIALIZERS
from nnctl.nn.types import Array
from nnctl.runs.resolve import resolve_auto
from nnctl.runs.run import Run
from nnctl.runs.training_run import TrainingRun
from nnctl.views.check import show_gradients, show_statistics
from nnctl.views.plots import draw_curve
from tests.conftest import CONFIGS, Nnctl

SMOKE = CONFIGS / "smoke.yaml"
KINDS = list(dict.fromkeys(ACTIVATIONS.values()))
BRAILLE = re.compile("[\u2800-\u28ff]")


def mapping(*activations: Any, **sections: Any) -> dict[str, Any]:
    """Return a configuration with layers of 12 units and a last layer of 10."""
    units = [*[12] * (len(activations) - 1), 10]
    layers = [
        {"units": count, "activation": activation}
        for count, activation in zip(units, activations, strict=True)
    ]
    network = {"layers": layers, **sections.pop("network", {})}
    plain = {"data": {"dataset": "mini"}, "optimizer": {"learning_rate": 0.1}}
    return {"network": network, **plain, **sections}


def write(config: Mapping[str, Any], path: str = "c.yaml") -> str:
    """Write a configuration into the working folder."""
    Path(path).write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def test_the_table_describes_every_layer(nnctl: Nnctl) -> None:
    init = {"biases": {"name": "normal", "std": 0.5}}
    config = mapping("tanh", {"name": "maxout", "pieces": 3}, "softmax")
    config["network"]["layers"][1]["init"] = {"weights": "lecun_uniform", **init}
    lines = nnctl("check", write(config), env={"COLUMNS": "120"}).stdout.splitlines()
    assert lines[0] == "c.yaml: 784-12-12-10"
    begin = next(number for number, line in enumerate(lines) if "shape" in line) + 2
    table = [line.split() for line in lines[begin : begin + 6]]
    expected = [
        "1 784 x 12 9,420 tanh auto: glorot_uniform zeros",
        f"tanh(z) std {(2 / 796) ** 0.5:.3g} std 0",
        "2 12 x 12 468 maxout lecun_uniform normal",
        f"max(z_1, ..., z_3) std {12**-0.5:.3g} std 0.5",
        "3 12 x 10 130 softmax auto: glorot_uniform zeros",
        f"exp(z) / Σ exp(z) std {(2 / 22) ** 0.5:.3g} std 0",
    ]
    assert [line.split() for line in expected] == table
    assert any(line.startswith("10,018 parameters") for line in lines)
    assert "biases" not in nnctl("check", SMOKE).stdout


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        *((name, "relu") for name in INITIALIZERS),
        *((name, "maxout") for name in ("auto", "glorot_uniform", "normal")),
        ("auto", "selu"),
    ],
)
def test_the_predicted_standard_deviation_is_the_real_one(name: str, activation: str) -> None:
    init = {"weights": name, "biases": name}
    config = mapping(activation, "softmax", network={"init": init})
    config["network"]["layers"][0]["units"] = 200
    checked = from_mapping(config, "test")
    plan = inspect(checked).layers[0]
    network = build_network(checked, 784)
    network.initialize(np.random.default_rng(0))
    assert float(network.parameters.weights[0].std()) == pytest.approx(plan.weights_std, rel=0.01)
    biases = float(network.parameters.biases[0].std())
    assert biases == pytest.approx(plan.biases_std, rel=0.15)
    assert (name == "auto") == plan.auto
    assert (plan.weights == name) != plan.auto
    assert network.parameters.vector.size == inspect(checked).parameters


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        (0, "1 weight layer, 0 hidden layers: not a deep network"),
        (1, "2 weight layers, 1 hidden layer: not a deep network"),
        (2, "3 weight layers, 2 hidden layers: a deep network"),
    ],
)
def test_two_hidden_layers_are_deep(nnctl: Nnctl, hidden: int, message: str) -> None:
    path = write(mapping(*["relu"] * hidden, "softmax"))
    assert f"\n{message}" in nnctl("check", path).stdout
    assert (hidden > 1) == json.loads(nnctl("check", path, "--json").stdout)["deep"]


@pytest.mark.parametrize(
    ("training", "data"),
    [
        ({"epochs": 2, "batch_size": 30}, {"subset": 2500}),
        ({"epochs": 2, "batch_size": 9999}, {}),
        ({"epochs": 3, "steps": 100}, {"validation": 2500}),
        ({"steps": 200}, {"validation": 0}),
        ({"epochs": 1, "steps": 999}, {"validation": "auto"}),
    ],
    ids=str,
)
def test_the_predicted_number_of_steps_equals_that_of_the_training(
    tmp_path: Path, training: dict[str, int], data: dict[str, Any]
) -> None:
    config = mapping("softmax", training=training, data={"dataset": "mini", **data})
    checked, dataset = from_mapping(config, "test"), open_dataset("mini", notify=lambda _: None)
    plan = inspect(checked)
    directory = Run.create_at(tmp_path / "run")
    run = TrainingRun.create(directory, resolve_auto(checked, dataset), dataset)
    ends, batches = [], 0
    for event in run.events(lambda: False):
        if isinstance(event, EpochDone):
            ends.append(batches)
        batches = getattr(event, "batches", 0)
    assert sum(ends) == plan.steps
    assert ends[0] == min(plan.steps_per_epoch, plan.steps)
    assert plan.epochs == len(ends)
    assert run.dataset.training == plan.examples
    assert run.dataset.validation == plan.held_out


def test_the_size_and_the_length_of_a_training_are_printed(nnctl: Nnctl) -> None:
    printed = nnctl("check", CONFIGS / "relu.yaml", "--epochs", 3).stdout
    plan = json.loads(nnctl("check", CONFIGS / "relu.yaml", "--epochs", 3, "--json").stdout)
    assert 50e6 < plan["memory"] < 500e6  # the images alone are 47 MB
    needs = f"109,386 parameters; training needs about {plan['memory'] / 1e6:,.0f} MB\n"
    assert needs in printed
    assert "mnist: 50,000 examples, 10,000 held out\n" in printed
    assert "2,346 steps in 3 epochs: 782 per epoch\n" in printed
    assert (plan["steps_per_epoch"], plan["steps"], plan["epochs"]) == (782, 2346, 3)
    assert "No problems found before training." in printed


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        (
            mapping(
                "step",
                "exponential",
                *["sigmoid"] * 5,
                "softmax",
                network={"init": "zeros"},
                optimizer={"learning_rate": 1e4},
            ),
            [
                "step",
                "vanishing gradients",
                "exponential",
                "equal units",
                "learning rate",
                "dead units",
                "faint activations",
            ],
        ),
        (mapping("linear", "linear", "softmax"), ["linear collapse"]),
    ],
    ids=["all", "linear"],
)
def test_warnings_are_printed_before_training(
    nnctl: Nnctl, config: dict[str, Any], kinds: list[str]
) -> None:
    path = write(config)
    printed = nnctl("check", path).stdout
    results = json.loads(nnctl("check", path, "--json").stdout)["diagnoses"]
    assert kinds == [one["kind"] for one in results]
    lines = printed.splitlines()
    begin = lines.index("Warnings:") + 1
    for i, one in enumerate(results):
        what, why, cure = lines[begin + 3 * i : begin + 3 * i + 3]
        assert what == f"  {TITLES.get(one['kind'], one['kind'])}: {one['evidence']}"
        assert why.strip().lower() == f"{one['reason']}.".lower()
        assert cure == f"    Try: {one['cure']}."
    assert len(lines) == begin + 3 * len(results)


@pytest.mark.parametrize(
    ("hidden", "init", "kind", "cure", "settings"),
    [
        (["tanh"] * 2, 1.0, "saturation", "set network.init: auto", {"network.init": "auto"}),
        (
            # Of four layers of sigmoids, all initializations make the gradients vanish.
            ["sigmoid"] * 4,
            0.3,
            "vanishing gradients",
            "set network.init: auto and use relu in all hidden layers of network.layers",
            {"network.init": "auto"} | {f"network.layers.{i}.activation": "relu" for i in range(4)},
        ),
        (
            ["linear"] * 9,
            0.1,
            "faint activations",
            "set network.init: auto",
            {"network.init": "auto"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_a_cure_before_training_removes_the_problem_of_this_network(
    nnctl: Nnctl, hidden: list[str], init: float, kind: str, cure: str, settings: dict[str, str]
) -> None:
    weights = {"init": {"weights": {"name": "normal", "std": init}}}
    path = write(mapping(*hidden, "softmax", network=weights))
    problems = {
        one["kind"]: one for one in json.loads(nnctl("check", path, "--json").stdout)["diagnoses"]
    }
    assert problems[kind]["cure"] == cure
    cured = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    left = json.loads(nnctl("check", path, *cured, "--json").stdout)["diagnoses"]
    assert kind not in [one["kind"] for one in left]
    assert {one["kind"] for one in left} <= problems.keys()


def test_options_override_the_configuration(nnctl: Nnctl, mini_folder: Path) -> None:
    options = ("--set", "network.layers.0.units=17", "--subset", 90, "--epochs", 5, "--seed", 3)
    plan = json.loads(nnctl("check", SMOKE, *options, "--dataset", mini_folder, "--json").stdout)
    assert plan["sizes"] == [784, 17, 10]
    assert (plan["examples"], plan["epochs"], plan["dataset"]) == (90, 5, str(mini_folder))
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a CONFIG, a RUN"),
        ((SMOKE, "--activations"), "--activations alone"),
        (("--activations", "--layers"), "--activations alone"),
        ((SMOKE, "--one-scale"), "--one-scale needs --activations"),
        (("nowhere.yaml",), "nowhere.yaml"),
        (("folder",), "folder is not a run directory: it has no config.yaml"),
        (("run", "--epochs", 3), "the configuration of a RUN is fixed"),
        (("run", "--set", "training.seed=3"), "the configuration of a RUN is fixed"),
        ((CONFIGS / "sweep-learning-rate.yaml",), "is a sweep file"),
        ((SMOKE, "--set", "nonsense"), "nonsense"),
        ((SMOKE, "--samples", 0), "--samples"),
        (("--activations", "--samples", 1), "--activations alone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_usage_error_exits_with_2(
    nnctl: Nnctl, arguments: tuple[object, ...], message: str
) -> None:
    Path("folder").mkdir()
    Path("run").mkdir()
    write(mapping("softmax"), "run/config.yaml")
    done = nnctl("check", *arguments, code=2)
    assert "Error" in done.stderr
    assert message in done.stderr


def test_quiet_prints_nothing_without_problems(nnctl: Nnctl) -> None:
    assert nnctl("check", SMOKE, "--gradients", "--quiet").stdout == ""


def test_the_gradients_of_every_layer_are_checked(nnctl: Nnctl) -> None:
    surrogate = {"name": "step", "surrogate": "sigmoid"}
    path = write(mapping("tanh", "maxout", surrogate, "softmax"))
    (line,) = nnctl("check", path, "--gradients", "--json").stdout.splitlines()
    checked = json.loads(line)["gradients"]
    assert checked["is_right"]
    assert checked["surrogates"] == [3]
    assert [error["layer"] for error in checked["errors"]] == [1, 2, 3, 4]
    assert all(error["largest"] < 1e-5 for error in checked["errors"])
    assert all(error["checked"] > 0 for error in checked["errors"])
    printed = nnctl("check", path, "--gradients").stdout
    assert "Backpropagation against central differences, in float64" in printed
    assert "layer 3 is checked with the surrogate of its activation" in printed


def test_batch_normalization_is_shown_counted_and_checked(nnctl: Nnctl) -> None:
    config = mapping("tanh", {"name": "maxout", "pieces": 2}, "prelu", "softmax")
    layers = config["network"]["layers"]
    layers[0]["batch_norm"], layers[1]["batch_norm"] = True, {"position": "after"}
    layers[2] |= {"batch_norm": True, "dropout": 0.5, "init": {"name": "normal", "std": 0.001}}
    found = json.loads(nnctl("check", write(config), "--gradients", "--json").stdout)
    assert [layer["batch_norm"] for layer in found["layers"]] == ["before", "after", "before", None]
    counts = [785 * 12 + 24, 13 * 24 + 24, 13 * 12 + 12 + 24, 13 * 10]
    assert [layer["parameters"] for layer in found["layers"]] == counts
    compared = [error["checked"] + error["skipped"] for error in found["gradients"]["errors"]]
    assert compared == [150 + 12 + 24, 150 + 24 + 24, 144 + 12 + 12 + 24, 120 + 10]
    assert found["gradients"]["is_right"]
    assert max(error["largest"] for error in found["gradients"]["errors"]) < 1e-6
    printed = nnctl("check", "c.yaml", "--layers").stdout
    assert "batch norm after" in printed
    assert "Layer 3: 12 prelu with batch norm" in printed


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_gradient_of_every_activation_is_correct(kind: Any) -> None:
    first = ["tanh"] if kind.place == "output" else ["tanh", kind.name]
    last = kind.name if kind.place == "output" else "softmax"
    report = report_gradients(from_mapping(mapping(*first, last), "test"))
    assert report.is_right
    assert max(error.largest for error in report.errors) < 1e-6


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]], ids=str)
def test_a_wrong_gradient_exits_with_1_and_names_the_layers(
    nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.setattr(Sigmoid, "backward", lambda *arguments: arguments[-1].fill(0.1))
    path = write(mapping("tanh", "sigmoid", "softmax"))
    done = nnctl("check", path, "--gradients", *options, code=1)
    assert "the gradients of layer 1, 2 are wrong" in done.stdout + done.stderr
    if options == ["--json"]:
        assert not json.loads(done.stdout)["gradients"]["is_right"]


def test_half_of_a_change_has_a_quarter_of_the_residual(nnctl: Nnctl) -> None:
    path = write(mapping("tanh", "softmax"))
    printed = nnctl("check", path, "--gradients").stdout
    assert len(re.findall(r"e-\d\d +(?:4\.0\d|3\.9\d)\s*\n", printed)) == 4
    assert "\nHalving Δw divides the residual by 4 or more: " in printed
    linear = write(mapping("linear", loss="quadratic"))
    printed = nnctl("check", linear, "--gradients").stdout
    assert (
        "\nThe residuals are 0: here the outputs are linear in the weights, or constant.\n"
        in printed
    )


@pytest.mark.parametrize(
    ("residuals", "message"),
    [
        ([1e-3, 2.5e-4, 6e-5], "Halving Δw divides the residual by 4"),
        ([1e-3, 4e-4, 1e-4], "an activation has a kink within Δw"),
        ([1e-3, 1.2e-4, 1.5e-5], "Halving Δw divides the residual by 4 or more"),
        ([1e-16, 0.0, 1e-17], "The residuals are 0"),
    ],
)
def test_the_last_sentence_interprets_the_residuals(
    capsys: pytest.CaptureFixture[str], residuals: list[float], message: str
) -> None:
    pairs = [(0.5**i, residual) for i, residual in enumerate(residuals)]
    show_gradients(GradientReport([GradientError(1, 1.0, 1e-9, 5, 3)], [], pairs))
    assert message in capsys.readouterr().out.splitlines()[-1]


def test_a_trained_run_is_checked_with_its_weights(nnctl: Nnctl, trained_run: Path) -> None:
    assert "No problems found after " in nnctl("check", trained_run).stdout
    fresh, trained = (
        json.loads(nnctl("check", source, "--gradients", "--json").stdout)
        for source in (trained_run / "config.yaml", trained_run)
    )
    assert trained["gradients"]["is_right"]
    assert fresh["gradients"]["residuals"] != trained["gradients"]["residuals"]
    assert (fresh["epochs_done"], trained["epochs_done"]) == (None, 2)
    same = fresh.keys() - {"gradients", "epochs_done"}
    assert {key: fresh[key] for key in same} == {key: trained[key] for key in same}


def test_the_statistics_of_the_layers_begin_with_the_initial_weights(
    nnctl: Nnctl, trained_run: Path
) -> None:
    checked = json.loads(nnctl("check", trained_run, "--layers", "--json").stdout)
    initial, *epochs = checked["statistics"]
    lines = (trained_run / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [
        {"epoch": one["epoch"], "layers": one["health"]} for one in map(json.loads, lines)
    ] == epochs
    planned = json.loads(nnctl("check", SMOKE, "--layers", "--json").stdout)["statistics"]
    assert planned == [initial]
    first, second = initial["layers"]
    assert (initial["epoch"], first["update_ratio"]) == (0, None)
    assert first["error_ratio"] == pytest.approx(first["error"] / second["error"])
    assert second["mean"] == pytest.approx(0.1)  # of a softmax with ten outputs
    printed = nnctl("check", trained_run, "--layers", env={"COLUMNS": "80"}).stdout
    rows = re.findall(r"^ +(initial|\d+)  .* %  .* %  .*", printed, re.MULTILINE)
    assert rows == 2 * ["initial", "1", "2"]
    assert max(map(len, printed.splitlines()[1:])) <= 80


def test_of_many_epochs_some_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    config = from_mapping(mapping("relu", "softmax"), "test")
    (initial,) = layer_statistics(config)
    many = [LayerStatistics(epoch, initial.layers) for epoch in range(101)]
    show_statistics(config, many)
    printed = capsys.readouterr().out
    first = printed[: printed.index("Layer 2")]
    rows = re.findall(r"^ +(initial|\d+)  ", first, re.MULTILINE)
    assert (rows[:3], rows[-2:]) == (["initial", "1", "7"], ["97", "100"])
    assert "One of 6 recorded epochs is shown" in printed


def test_a_run_that_diverged_in_its_first_epoch_is_diagnosed(nnctl: Nnctl) -> None:
    nnctl("train", CONFIGS / "lessons" / "divergence.yaml", "--run-dir", "run", code=4)
    assert not list(Path("run").glob("*.npz"))
    printed = nnctl("check", "run", "--gradients").stdout
    assert "Problems found:\n  divergence: the outputs of layer 2" in printed
    assert "in epoch 1, batch " in printed
    assert "at a kink" in printed


DEFORMED = ("--set", "data.augment.rotate=20", "--set", "data.augment.elastic={}")


def test_samples_are_shown_as_the_network_sees_them(nnctl: Nnctl) -> None:
    plain, deformed, again = (
        json.loads(nnctl("check", SMOKE, "--samples", 4, "--json", *more).stdout)["samples"]
        for more in ((), DEFORMED, DEFORMED)
    )
    digits = open_dataset("mini", notify=lambda _: None).training
    assert [sample["label"] for sample in plain] == [str(label) for label in digits.labels[:4]]
    for i, sample in enumerate(plain):
        assert np.array_equal(sample["image"], digits.inputs[i].reshape(28, 28))
        moved = np.abs(np.array(deformed[i]["image"]) - sample["image"]).mean()
        assert 3 < moved < 60
    assert deformed == again
    printed = nnctl("check", SMOKE, "--samples", 4, *DEFORMED).stdout
    assert "Training images as the network will see them" in printed
    assert printed.rstrip().splitlines()[-1].split()[-1] in "0123456789"


def test_dropout_is_printed_and_shown_in_samples(nnctl: Nnctl) -> None:
    dropping = ("--set", "network.layers.0.dropout=0.4", "--set", "network.input_dropout=0.5")
    printed = nnctl("check", SMOKE, *dropping).stdout
    assert "dropout 0.4" in printed
    samples = json.loads(nnctl("check", SMOKE, "--samples", 50, "--json", *dropping).stdout)
    images = np.array([sample["image"] for sample in samples["samples"]])
    whole = open_dataset("mini", notify=lambda _: None).training.inputs[:50].reshape(-1, 28, 28)
    ink = whole > 0
    assert 0.45 < (images[ink] > 0).mean() < 0.55
    assert np.array_equal(images[images > 0], whole[images > 0])


def test_samples_name_the_settings_that_they_do_not_show(nnctl: Nnctl, tmp_path: Path) -> None:
    absent = {"NNCTL_DATA_DIR": str(tmp_path / "empty")}
    printed = nnctl("check", CONFIGS / "invariant.yaml", "--samples", 1, env=absent).stdout
    assert "from mini: mnist has not been downloaded yet" in printed
    assert "without the adversarial step of length 1" in printed
    assert "adversarial" not in nnctl("check", SMOKE, "--samples", 1).stdout


def test_samples_of_a_folder_with_a_relative_path_are_not_called_missing(
    nnctl: Nnctl, mini_folder: Path
) -> None:
    relative = Path("..") / mini_folder.name
    printed = nnctl("check", SMOKE, "--dataset", relative, "--samples", 1).stdout
    assert "Training images" in printed
    assert "downloaded" not in printed


def test_regularization_is_printed(nnctl: Nnctl) -> None:
    on = {"network.input_dropout": 0.2, "optimizer.max_norm": 2.0, "training.average": 0.99}
    settings = [word for key, value in on.items() for word in ("--set", f"{key}={value}")]
    settings += ["--set", "data.augment={rotate: 10, elastic: {}}"]
    printed = nnctl("check", SMOKE, *settings).stdout
    assert "  data.augment: {rotate: 10, elastic: {alpha: 34, sigma: 4}}\n" in printed
    for line in ("network.input_dropout: 0.2", "optimizer.max_norm: 2", "training.average: 0.99"):
        assert f"  {line}\n" in printed
    results = json.loads(nnctl("check", SMOKE, *settings, "--json").stdout)["regularization"]
    assert results.pop("data.augment") == {"rotate": 10, "elastic": {"alpha": 34, "sigma": 4}}
    assert results == on
    assert "regularization" not in nnctl("check", SMOKE).stdout


def test_samples_that_cannot_be_drawn_are_an_error(nnctl: Nnctl) -> None:
    gate = nnctl("check", CONFIGS / "gates" / "and.yaml", "--samples", 2, code=2)
    assert "not images" in gate.stderr
    relu = CONFIGS / "relu.yaml"
    missing = nnctl("check", relu, "--samples", 2, "--set", "data.fallback=null", code=3)
    assert "nnctl download mnist" in missing.stderr


def test_all_activations_are_listed(nnctl: Nnctl) -> None:
    printed = nnctl("check", "--activations", env={"COLUMNS": "200"}).stdout
    listed = json.loads(nnctl("check", "--activations", "--json").stdout)["activations"]
    assert [kind.name for kind in KINDS] == [one["name"] for one in listed]
    blocks = re.split(r"\n(?=\w)", printed)[1:]
    assert len(blocks) == len(listed)
    for block, one, kind in zip(blocks, listed, KINDS, strict=True):
        title, *lines = block.rstrip().splitlines()
        assert title.split()[0] == one["name"]
        assert all(alias in title for alias in one["aliases"])
        assert kind(**one["parameters"]) == kind()
        assert json.dumps(one["parameters"]).strip("{}") in title
        for about, key in zip(lines, ("formula", "derivative", "outputs", "advice"), strict=False):
            assert one[key] in about
        drawn = [BRAILLE.sub("", line) != line for line in lines]
        assert drawn == [True] * 4 + [False] * (len(lines) - 4)
        assert any(set(BRAILLE.findall(line)) - {"\u2800"} for line in lines)
    slopes = {one["name"]: one["largest_slope"] for one in listed}
    known: dict[str, float | None] = {
        "sigmoid": 0.25,
        "hard_sigmoid": 0.1667,
        "tanh": 1,
        "swish": 1.1,
        "gelu": 1.129,
    }
    known |= {"step": 0, "relu": 1, "selu": 1.758, "softmax": 0.25, "exponential": None}
    assert known.items() <= slopes.items()
    assert "f (1 - f); at most 0.25" in printed
    assert "f; unbounded" in printed
    names = [name for one in listed for name in (one["name"], *one["aliases"])]
    assert sorted(names) == sorted(ACTIVATIONS)


def test_softmax_subtracts_the_maximum_because_exp_overflows(nnctl: Nnctl) -> None:
    example = json.loads(nnctl("check", "--activations", "--json").stdout)["softmax"]
    assert (example["z"], example["naive"]) == ([1010, 1000, 990], [None] * 3)
    assert example["shifted"] == pytest.approx([9.99954600e-01, 4.53978686e-05, 2.06106005e-09])
    printed = nnctl("check", "--activations").stdout
    assert "exp(z) is inf, inf, inf; divided by the sum: nan, nan, nan" in printed
    assert "divided by the sum: 1, 4.54e-05, 2.061e-09" in " ".join(printed.split())


def test_function_and_derivative_are_drawn_on_one_scale_when_asked(nnctl: Nnctl) -> None:
    separate, common = (
        nnctl("check", "--activations", *options, env={"COLUMNS": "200"}).stdout.splitlines()
        for options in ((), ("--one-scale",))
    )
    # The derivative of the sigmoid, at most 1/4, reaches the top line only on its own scale.
    for lines, is_empty in ((separate, False), (common, True)):
        top = lines[next(i for i, line in enumerate(lines) if line.startswith("sigmoid")) + 1]
        assert (set(top[19:35]) <= {" ", "\u2800"}) == is_empty


@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize(
    "arguments",
    [("--activations",), (CONFIGS / "mixed.yaml", "--gradients")],
    ids=["list", "check"],
)
def test_the_output_fits_the_window(
    nnctl: Nnctl, arguments: tuple[object, ...], columns: int
) -> None:
    printed = nnctl("check", *arguments, env={"COLUMNS": str(columns)}).stdout
    lines = [line for line in printed.splitlines() if " steps in " not in line]
    assert max(map(len, lines)) <= columns
    assert "…" not in printed


@pytest.mark.parametrize(
    "arguments", [("--activations",), (SMOKE, "--gradients")], ids=["list", "check"]
)
def test_a_terminal_with_only_ascii_gets_ascii(
    nnctl_process: Nnctl, arguments: tuple[object, ...]
) -> None:
    env = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    printed = nnctl_process("check", *arguments, env=env).stdout
    assert printed.isascii()
    assert len(printed) > 500
    assert ("***" in printed) == (arguments == ("--activations",))


def dots(lines: list[str]) -> Array:
    """Return the dots of a drawing as rows."""
    bits = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
    codes = np.array([[ord(letter) - 0x2800 for letter in line] for line in lines])
    cells = (codes[:, :, None, None] & bits) > 0
    rows, columns = codes.shape
    drawn: Array = cells.transpose(0, 2, 1, 3).reshape(4 * rows, 2 * columns)
    return drawn


@pytest.mark.parametrize(("rows", "columns"), [(4, 16), (1, 1), (3, 7)])
@pytest.mark.parametrize("braille", [True, False])
def test_a_drawing_has_the_requested_size(rows: int, columns: int, braille: bool) -> None:
    lines = draw_curve(np.linspace(0, 1, 2 * columns), rows, columns, braille=braille)
    assert [columns] * rows == [len(line) for line in lines]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_line_goes_from_corner_to_corner(sign: int) -> None:
    drawn = dots(draw_curve(sign * np.arange(16.0), 4, 8))
    assert np.array_equal(np.eye(16, dtype=bool)[::-sign], drawn)
    stars = draw_curve(sign * np.arange(16.0), 4, 8, braille=False)
    assert ["      **", "    **  ", "  **    ", "**      "][::sign] == stars


def test_a_constant_is_a_level_line() -> None:
    for value in (0.0, -3.0, 1e300):
        drawn = dots(draw_curve(np.full(8, value), 4, 4))
        assert [int(count) for count in drawn.sum(axis=1) if count] == [8]
        assert drawn[8].all()


def test_a_jump_has_no_holes() -> None:
    drawn = dots(draw_curve(np.repeat([0.0, 1.0], 4), 4, 4))
    assert drawn[-1, :4].all()
    assert drawn[0, 4:].all()
    assert drawn[:, 3:5].any(axis=1).all()
    assert drawn.sum() == 4 + 4 + 14


def test_a_run_is_checked_without_its_dataset(nnctl: Nnctl, mini_folder: Path) -> None:
    nnctl("train", SMOKE, "--dataset", mini_folder, "--run-dir", "run", "--epochs", 1)
    before = json.loads(nnctl("check", "run", "--gradients", "--json").stdout)
    shutil.rmtree(mini_folder)
    after = json.loads(nnctl("check", "run", "--gradients", "--json").stdout)
    assert before == after


def test_a_configuration_is_checked_for_its_fallback(nnctl: Nnctl) -> None:
    Path("empty").mkdir()
    data = {"dataset": "empty", "fallback": "mini"}
    assert "3,930 steps" in nnctl("check", write(mapping("softmax", data=data))).stdout
    wrong = mapping("softmax", data=data)
    wrong["network"]["layers"][-1]["units"] = 2
    for command in ("check", "train"):
        assert "10 classes need 10" in nnctl(command, write(wrong), code=2).stderr


def test_overflow_is_a_diagnosis_and_null_in_json(nnctl: Nnctl) -> None:
    init = {"weights": {"name": "uniform", "low": -1e308, "high": 1e308}}
    path = write(mapping("relu", "softmax", network={"init": init}))
    done = nnctl("check", path, "--gradients", "--json", code=1)
    printed = json.loads(done.stdout, parse_constant=pytest.fail)
    assert [diagnosis["kind"] for diagnosis in printed["diagnoses"]] == ["overflow"]
    assert not printed["gradients"]["is_right"]
    assert "Warning" not in done.stderr


def test_strict_exits_with_1_if_a_problem_is_found_and_quiet_prints_the_problems(
    nnctl: Nnctl,
) -> None:
    assert nnctl("check", "smoke", "--strict", "--quiet").stdout == ""
    done = nnctl("check", "lessons/vanishing-gradients", "--strict", "--quiet", code=1)
    assert done.stdout.startswith("Problems found:\n  vanishing gradients: ")
    assert "1 problem found in lessons/vanishing-gradients" in done.stderr
    nnctl("train", "lessons/vanishing-gradients", "--epochs", 1, "--run-dir", "run")
    run = nnctl("check", "run", "--strict", "--quiet", code=1)
    assert run.stdout.startswith("Problems found:\n  vanishing gradients: ")


def test_layers_of_a_run_that_began_with_other_weights_have_no_row_of_the_seed(
    nnctl: Nnctl,
) -> None:
    nnctl("train", "smoke", "--epochs", 1, "--subset", 100, "--run-dir", "first")
    words = ("--epochs", 1, "--subset", 100, "--run-dir", "second", "--init-from", "first")
    nnctl("train", "smoke", *words)
    statistics = json.loads(nnctl("check", "second", "--layers", "--json").stdout)["statistics"]
    assert [one["epoch"] for one in statistics] == [1]
