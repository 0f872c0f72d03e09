"""``nnctl eval`` as a user sees it, against scikit-learn's metrics."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn import metrics

import nnctl as face
from nnctl.data.dataset import open_dataset
from nnctl.errors import UsageError
from nnctl.nn.examples import scaled
from nnctl.views.terminal_images import print_side_by_side
from tests.conftest import CONFIGS, Nnctl
from tests.helpers import write_idx

GAINS = "1,10,100,1e6,inf"
TEST = open_dataset("mini", notify=lambda _: None).test


@pytest.fixture
def run(trained_run: Path) -> Path:
    """A run on the bundled digits with a good but not perfect network."""
    return trained_run


@pytest.fixture
def few(mini_folder: Path) -> Path:
    """A dataset with the 52 zeros, ones and twos of the first 180 test digits."""
    few = np.flatnonzero(TEST.labels < 3)[:52]
    write_idx(mini_folder / "t10k-images-idx3-ubyte", TEST.inputs[few].reshape(-1, 28, 28))
    write_idx(mini_folder / "t10k-labels-idx1-ubyte", TEST.labels[few])
    for packed in mini_folder.glob("t10k-*.gz"):
        packed.unlink()
    return mini_folder


def evaluated(nnctl: Nnctl, *arguments: object) -> dict[str, Any]:
    """Return the result of ``nnctl eval --json``."""
    result: dict[str, Any] = json.loads(nnctl("eval", *arguments, "--json").stdout)
    return result


def test_json_has_the_fixed_keys_and_agrees_with_scikit_learn(nnctl: Nnctl, run: Path) -> None:
    result = evaluated(nnctl, run)
    assert " ".join(result) == (
        "accuracy loss n per_class confusion dataset split checkpoint run_dir"
    )
    probabilities = face.load(run).predict(TEST.inputs).astype(np.float64)
    predictions = probabilities.argmax(axis=1)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    log_loss = metrics.log_loss(TEST.labels, probabilities)
    assert log_loss == pytest.approx(result["loss"], rel=1e-4)
    assert_agrees_with_scikit_learn(result, TEST.labels, predictions)
    assert [row["digit"] for row in result["per_class"]] == [*range(10)]
    info = (result["n"], result["dataset"], result["split"], result["checkpoint"])
    assert info == (1000, "mini", "test", "best")


def assert_agrees_with_scikit_learn(result: dict[str, Any], labels: Any, answers: Any) -> None:
    """Compare a result of ``eval --json`` with scikit-learn's metrics of the predictions."""
    assert metrics.accuracy_score(labels, answers) == pytest.approx(result["accuracy"])
    assert metrics.confusion_matrix(labels, answers).tolist() == result["confusion"]
    expected = metrics.precision_recall_fscore_support(labels, answers)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert values.tolist() == pytest.approx([row[name] for row in result["per_class"]])


def test_the_tables_show_the_mistakes(nnctl: Nnctl, run: Path) -> None:
    done = nnctl("eval", run, env={"COLUMNS": "80"})
    lines = done.stdout.splitlines()
    assert "of 1,000 correct" in lines[1]
    assert any("precision" in line and "recall" in line for line in lines)
    assert "most frequent mistakes: " in done.stdout
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in lines[1:] if "most frequent" not in line) <= 80


def test_there_are_always_ten_classes(nnctl: Nnctl, run: Path, few: Path) -> None:
    result = evaluated(nnctl, run, "--dataset", few)
    assert np.shape(result["confusion"]) == (10, 10)
    assert result["per_class"][9]["support"] == 0


def test_every_split_and_checkpoint_can_be_evaluated(nnctl: Nnctl, run: Path) -> None:
    for split, size in (("test", 1000), ("validation", 833), ("train", 4167)):
        assert evaluated(nnctl, run, "--split", split)["n"] == size
    assert "last" in nnctl("eval", run, "--checkpoint", "last").stdout


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_averaged_weights_are_evaluated(nnctl: Nnctl, scratch: Path, which: str) -> None:
    averaged = {"training.average": 0.99}
    run = face.train(CONFIGS / "smoke.yaml", epochs=1, settings=averaged, run_dir=scratch / "mean")
    (row,) = run.history
    found = evaluated(nnctl, run.directory, "--split", "validation", "--checkpoint", which)
    assert found["accuracy"] == pytest.approx(row.val_accuracy)
    assert found["loss"] == pytest.approx(row.val_loss, rel=1e-5)
    raw, mean = run.checkpoint("last").parameters, run.network("last").parameters.vector
    assert not np.allclose(raw, mean, rtol=1e-3)


def test_evaluating_on_another_dataset_prints_a_warning(nnctl: Nnctl, run: Path, few: Path) -> None:
    done = nnctl("eval", run, "--dataset", few, "--json")
    assert f"was trained on mini, not on {few}" in " ".join(done.stderr.split())
    assert json.loads(done.stdout)["n"] == 52
    assert nnctl("eval", run, "--dataset", "mini", "--json").stderr == ""
    nnctl("eval", run, "--dataset", few, "--split", "validation", code=2)


def test_fail_under_exits_with_5(nnctl: Nnctl, run: Path) -> None:
    nnctl("eval", run, "--fail-under", "0.5")
    done = nnctl("eval", run, "--fail-under", "0.9999", "--json", code=5)
    assert json.loads(done.stdout)["accuracy"] < 0.9999


def test_a_path_that_is_not_a_run_exits_with_2(nnctl: Nnctl, scratch: Path) -> None:
    (scratch / "empty").mkdir()
    (scratch / "file").write_text("", encoding="utf-8")
    assert "is not a run directory" in nnctl("eval", "empty", code=2).stderr
    assert "nowhere: run directory not found" in nnctl("eval", "nowhere", code=2).stderr
    nnctl("eval", "file", code=2)


def test_a_damaged_checkpoint_exits_with_3(nnctl: Nnctl, copied_run: Path) -> None:
    best = copied_run / "best.npz"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(content)
    done = nnctl("eval", copied_run, code=3)
    assert "best.npz is damaged" in done.stderr
    assert "--checkpoint" in done.stderr
    nnctl("eval", copied_run, "--checkpoint", "last")
    best.unlink()
    assert "no epoch of this run was completed" in nnctl("eval", copied_run, code=3).stderr


# Binary tasks ------------------------------------------------------------------------------------

IS_IT_A_NINE = CONFIGS / "is-it-a-nine.yaml"


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that classifies whether a digit is a nine, with one sigmoid output."""
    directory = tmp_path_factory.mktemp("nine") / "run"
    return face.train(IS_IT_A_NINE, dataset="mini", epochs=2, run_dir=directory).directory


def assert_a_binary_task_agrees_with_scikit_learn(result: dict[str, Any], answers: Any) -> None:
    """Compare a result of ``eval --json`` on mini with the binary predictions behind it."""
    yes = TEST.labels == 9
    assert 0 < np.count_nonzero(answers) < len(yes)
    assert_agrees_with_scikit_learn(result, yes, answers)
    for name in ("precision", "recall", "f1"):
        assert result[name] == result["per_class"][1][name]
    assert [row["class"] for row in result["per_class"]] == ["other", "9"]


def test_a_binary_task_agrees_with_scikit_learn(nnctl: Nnctl, nine: Path) -> None:
    result = evaluated(nnctl, nine)
    outputs = face.load(nine).predict(TEST.inputs).astype(np.float64)
    assert outputs.shape == (1000, 1)
    assert_a_binary_task_agrees_with_scikit_learn(result, outputs[:, 0] >= 0.5)
    log_loss = metrics.log_loss(TEST.labels == 9, outputs[:, 0])
    assert log_loss == pytest.approx(result["loss"], rel=1e-4)
    assert result["accuracy"] > 0.95
    assert "truth_table" not in result


def test_a_binary_task_may_have_two_outputs(nnctl: Nnctl, scratch: Path) -> None:
    settings = {"network.layers": [{"units": 2, "activation": "softmax"}]}
    run = face.train(
        IS_IT_A_NINE, dataset="mini", epochs=2, run_dir=scratch / "run", settings=settings
    )
    result = evaluated(nnctl, "run")
    outputs = run.predict(TEST.inputs)
    assert outputs.shape == (1000, 2)
    assert_a_binary_task_agrees_with_scikit_learn(result, outputs.argmax(axis=1) == 1)


def test_a_probability_of_one_half_is_the_positive_class(nnctl: Nnctl, scratch: Path) -> None:
    settings = {"network.init.weights": "zeros", "optimizer.learning_rate": 1e-30}
    run = face.train(
        IS_IT_A_NINE, dataset="mini", epochs=1, run_dir=scratch / "run", settings=settings
    )
    assert set(run.predict(TEST.inputs).ravel().tolist()) == {0.5}
    result = evaluated(nnctl, "run")
    assert result["recall"] == 1.0
    assert result["precision"] == result["accuracy"] == result["per_class"][1]["support"] / 1000
    assert result["loss"] == pytest.approx(math.log(2))


def test_a_binary_task_is_evaluated_on_every_split(nnctl: Nnctl, nine: Path) -> None:
    run = face.train(IS_IT_A_NINE, dataset="mini", epochs=1, subset=200, run_dir="subset")
    training = open_dataset("mini", notify=lambda _: None).training
    for directory, split, expected in (
        (run.directory, "train", [180, 20]),
        (nine, "train", np.bincount(training.labels[:4167] == 9).tolist()),
        (nine, "validation", np.bincount(training.labels[4167:] == 9).tolist()),
    ):
        result = evaluated(nnctl, directory, "--split", split)
        assert expected == [row["support"] for row in result["per_class"]]
    summary = json.loads((nine / "summary.json").read_text("utf-8"))
    assert summary["best_val_accuracy"] == result["accuracy"]


def test_a_binary_task_has_a_confusion_matrix_of_four_numbers(nnctl: Nnctl, nine: Path) -> None:
    done = nnctl("eval", nine, "--gain", GAINS, env={"COLUMNS": "80"})
    result = evaluated(nnctl, nine)
    (_, false_alarms), (missed, found) = result["confusion"]
    answers, nines = false_alarms + found, missed + found
    assert (
        f'precision {result["precision"]:.4f}: {found} of {answers} predictions "9" are correct\n'
        f"recall    {result['recall']:.4f}: {found} of {nines} images of 9 are recognized\n"
        f"F1        {result['f1']:.4f}: "
    ) in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["other", "9"] in rows
    assert ["9", str(missed), str(found)] in rows
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    assert max(len(line) for line in done.stdout.splitlines()[1:]) <= 80


# Gains: sigmoid neurons that simulate perceptrons (Nielsen, chapter 1, exercises) ----------------


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs with different hidden layers, by the name of the activation."""
    folder = tmp_path_factory.mktemp("hidden")

    def train(name: str, activation: str | dict[str, str]) -> Path:
        settings = {
            "network.layers.0": {"units": 30, "activation": activation},
            "network.init": {"weights": "glorot_uniform", "biases": {"name": "normal"}},
        }
        return face.train(
            CONFIGS / "smoke.yaml", epochs=2, run_dir=folder / name, settings=settings
        ).directory

    step = {"name": "step", "surrogate": "sigmoid"}
    return {"step": train("step", step)} | {
        name: train(name, name) for name in ("sigmoid", "tanh", "relu")
    }


def gains_of(nnctl: Nnctl, run: Path, gains: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the result and its rows for the gains."""
    result = evaluated(nnctl, run, "--gain", gains)
    assert [row["gain"] for row in result["gains"]] == [
        "inf" if gain == "inf" else float(gain) for gain in gains.split(",")
    ]
    return result, result["gains"]


def test_perceptrons_are_the_same_with_any_gain(nnctl: Nnctl, hidden: dict[str, Path]) -> None:
    result, rows = gains_of(nnctl, hidden["step"], "0.001,1,3,100,1e6,inf")
    assert result["accuracy"] > 0.5
    assert {result["accuracy"]} == {row["accuracy"] for row in rows}


def test_sigmoid_neurons_become_perceptrons(nnctl: Nnctl, hidden: dict[str, Path]) -> None:
    result, rows = gains_of(nnctl, hidden["sigmoid"], GAINS)
    by_gain = {row["gain"]: row["accuracy"] for row in rows}
    parameters = face.load(hidden["sigmoid"]).network().parameters
    (w1, w2), (b1, b2) = parameters.weights, parameters.biases
    fires = (scaled(TEST.inputs, np.float64) @ w1 + b1 > 0).astype(np.float64)
    by_hand = metrics.accuracy_score(TEST.labels, (fires @ w2 + b2).argmax(axis=1))
    assert by_hand == pytest.approx(by_gain["inf"])
    assert by_gain[1e6] == by_gain["inf"] < by_gain[1] == result["accuracy"]
    assert abs(by_gain[100] - by_gain["inf"]) < abs(by_gain[1] - by_gain["inf"])


def test_gain_1_is_the_network_itself(nnctl: Nnctl, hidden: dict[str, Path]) -> None:
    for run in hidden.values():
        plain = evaluated(nnctl, run)
        result, (row,) = gains_of(nnctl, run, "1")
        assert plain == {key: value for key, value in result.items() if key != "gains"}
        assert row["accuracy"] == plain["accuracy"]
        assert row["loss"] == pytest.approx(plain["loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_gain_inf_needs_units_that_become_steps(
    nnctl: Nnctl, hidden: dict[str, Path], name: str
) -> None:
    done = nnctl("eval", hidden[name], "--gain", "10,inf", code=2)
    assert f"layer 1 is {name}, which does not become a step" in done.stderr
    assert "Use finite gains, such as --gain 1,10,100." in done.stderr
    assert done.stdout == ""
    _, (row,) = gains_of(nnctl, hidden[name], "10")
    assert row["accuracy"] > 0.5


def test_the_limit_has_an_accuracy_but_no_loss(nnctl: Nnctl, hidden: dict[str, Path]) -> None:
    gains = "1,1e200,inf"
    _, (finite, huge, limit) = gains_of(nnctl, hidden["sigmoid"], gains)
    assert finite["loss"] > 0
    assert limit["loss"] is None
    printed = nnctl("eval", hidden["sigmoid"], "--gain", gains).stdout
    rows = [line.split() for line in printed.splitlines()]
    assert ["1", f"{100 * finite['accuracy']:.2f}", "%", f"{finite['loss']:.4f}"] in rows
    assert ["1e+200", f"{100 * huge['accuracy']:.2f}", "%", f"{huge['loss']:.4g}"] in rows
    assert ["inf", "(step", "units)", f"{100 * limit['accuracy']:.2f}", "%", "-"] in rows
    done = nnctl("eval", hidden["sigmoid"], "--gain", "1,1e308", code=2)
    assert "the network overflows with gain 1e+308; use a smaller gain" in done.stderr


@pytest.mark.parametrize("gains", ["x", "0", "-1", "nan", "", ",", "1,,10", "1,", "1 10", "-inf"])
def test_an_invalid_list_of_gains_exits_with_2(
    nnctl: Nnctl, hidden: dict[str, Path], gains: str
) -> None:
    done = nnctl("eval", hidden["step"], f"--gain={gains}", code=2)
    assert f"{gains!r} is not a list of positive numbers, such as 1,10,inf" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("gain", [0, -1, float("nan"), "10"])
def test_python_code_cannot_give_an_invalid_gain(hidden: dict[str, Path], gain: Any) -> None:
    with pytest.raises(UsageError, match=f"a gain must be a number above 0, got {gain}"):
        face.evaluate(hidden["step"], gains=[gain])


def test_the_worst_mistakes_are_those_with_the_highest_loss(nnctl: Nnctl, run: Path) -> None:
    probabilities = face.load(run).predict(TEST.inputs)
    losses = -np.log(probabilities[np.arange(len(TEST.labels)), TEST.labels])
    wrong = probabilities.argmax(axis=1) != TEST.labels
    expected = sorted(np.flatnonzero(wrong).tolist(), key=lambda i: -losses[i])[:3]
    mistakes = evaluated(nnctl, run, "--mistakes", 3)["mistakes"]
    assert [mistake["index"] for mistake in mistakes] == expected
    for i, mistake in zip(expected, mistakes, strict=True):
        assert mistake["expected"] == str(TEST.labels[i])
        assert mistake["answer"] == str(probabilities[i].argmax())
        assert mistake["output"] == pytest.approx(probabilities[i].max(), rel=1e-4)
        assert mistake["loss"] == pytest.approx(losses[i], rel=1e-3)
    lines = nnctl("eval", run, "--mistakes", 3).stdout.split("Worst mistakes\n")[1].splitlines()
    assert [line.split(":")[0] for line in lines] == [f"image {i}" for i in expected]


def test_a_mistake_in_a_binary_task_shows_the_output_of_the_predicted_class(
    nnctl: Nnctl, nine: Path
) -> None:
    mistakes = evaluated(nnctl, nine, "--mistakes", 40)["mistakes"]
    assert {"other", "9"} == {mistake["answer"] for mistake in mistakes}
    assert all(mistake["output"] >= 0.5 for mistake in mistakes)


def test_images_are_side_by_side_if_they_fit() -> None:
    images = [np.full((28, 28), level, np.uint8) for level in (0, 255, 128)]
    console = Console(width=62, file=io.StringIO(), color_system=None)
    print_side_by_side(console, images, ["one", "two", "three"])
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2 * (14 + 1)
    assert lines[0].split() == ["@" * 28]
    assert lines[14].split() == ["one", "two"]
    assert lines[29].split() == ["three"]


def test_the_accuracy_under_each_corruption_is_printed(nnctl: Nnctl, run: Path, few: Path) -> None:
    options = (run, "--dataset", few, "--corrupt")
    printed, result = nnctl("eval", *options).stdout, evaluated(nnctl, *options)
    names = ["noise", "rotation", "shift", "blur", "thinner", "thicker"]
    assert [row["corruption"] for row in result["corrupted"]] == names
    for row in result["corrupted"]:
        assert len(row["amounts"]) == len(row["accuracies"]) == 5
        assert row["accuracies"][-1] < result["accuracy"]
        (line,) = [line for line in printed.splitlines() if line.split()[:1] == [row["corruption"]]]
        expected = [f"{100 * share:.1f}" for share in (result["accuracy"], *row["accuracies"])]
        assert re.findall(r"[\d.]+(?= %)", line) == expected


def test_a_threshold_excludes_uncertain_predictions(nnctl: Nnctl, run: Path) -> None:
    answers = face.evaluate(run).predictions
    for threshold in (0, 0.9, 1):
        found = evaluated(nnctl, run, "--threshold", threshold)["selective"]
        sure = answers.confidences >= threshold
        assert (found["threshold"], found["answered"]) == (threshold, np.count_nonzero(sure))
        assert found["coverage"] == pytest.approx(sure.mean())
        right = answers.right[sure]
        assert found["accuracy"] == (pytest.approx(right.mean()) if right.size else None)
        assert 0 < found["calibration_error"] < 0.2
    text = nnctl("eval", run, "--threshold", 0.9).stdout
    assert re.search(
        r"confidence at least 90 %: \d+ of 1,000 predictions \([\d.]+ %\), "
        r"[\d.]+ % of them correct",
        text,
    )
    assert "expected calibration error" in text
    assert "confidence at least 99.99999 %: " in nnctl("eval", run, "--threshold", 0.9999999).stdout


def test_options_that_need_probabilities_or_images_report_it(nnctl: Nnctl) -> None:
    linear = ("--set", "network.layers.1.activation=linear", "--set", "loss=quadratic")
    slow = ("--set", "optimizer.learning_rate=0.01", "--epochs", 1, "--run-dir", "linear", "-q")
    nnctl("train", CONFIGS / "smoke.yaml", *linear, *slow)
    assert "not probabilities" in nnctl("eval", "linear", "--threshold", 0.9, code=2).stderr
    nnctl("train", CONFIGS / "gates" / "and.yaml", "--run-dir", "and", "-q")
    assert "they are not images" in nnctl("eval", "and", "--corrupt", code=2).stderr
    assert "--threshold" in nnctl("eval", "and", "--threshold", 2, code=2).stderr
