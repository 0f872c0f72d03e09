"""``nnctl explain`` as a user sees it."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnctl as face
from nnctl.analysis.explanation import explain
from nnctl.data.dataset import open_dataset
from nnctl.nn.backprop import Backpropagation
from nnctl.nn.examples import scaled
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import make_targets
from nnctl.nn.network import Parameters
from tests.conftest import CONFIGS, Nnctl
from tests.photographs import photograph
from tests.processes import ROOT
from tests.terminal import in_terminal, on_screen

DIGITS = open_dataset("mini", notify=lambda _: None).test
HEADS = ("unit z a", "unit a w", "layer |δ|")  # of the tables for a digit
LN3, LN4 = math.log(3), math.log(4)  # sigmoid(ln 3) = 3/4, sigmoid(ln 4) = 4/5


def save_xor(directory: str = "xor") -> None:
    """Save a network for XOR whose numbers are simple for the input 0,1."""
    network = face.Network.from_arrays(
        [[[5.0, 7.0], [0.0, LN3]], [[4.0], [-4.0]]], [[0, 0], [1 + LN4]], ["sigmoid", "sigmoid"]
    )
    face.save(network, directory, dataset="xor", settings={"loss": "quadratic"})


def explained(nnctl: Nnctl, *arguments: object) -> dict[str, Any]:
    """Return the object that ``--json`` prints."""
    result: dict[str, Any] = json.loads(nnctl("explain", *arguments, "--json").stdout)
    return result


def lines_of(text: str) -> list[str]:
    """Return the lines without the spaces at their ends and repeated ones."""
    return [" ".join(line.split()) for line in text.splitlines()]


def rows_below(lines: list[str], head: str) -> list[str]:
    """Return the rows of the table whose line of column names has a certain start."""
    start = next(i for i, line in enumerate(lines) if line.startswith(head))
    return [*itertools.takewhile(bool, lines[start + 2 :])]


def test_the_whole_arithmetic_of_xor_is_that_of_a_calculation_by_hand(nnctl: Nnctl) -> None:
    save_xor()
    printed = nnctl("explain", "xor", "--input", "0,1").stdout
    by_hand = [
        "xor, epoch 0: input 0, 1; its true class is 1",
        "answer 1: right, the output is 0.8",
        "z1 = 0·5 + 1·0 + 0 = 0",
        "z2 = 0·7 + 1·1.099 + 0 = 1.099",
        "a1 = 1 / (1 + exp(-0)) = 0.5",
        "a2 = 1 / (1 + exp(-1.099)) = 0.75",
        "z1 = 0.5·4 + 0.75·(-4) + 2.386 = 1.386",
        "a1 = 1 / (1 + exp(-1.386)) = 0.8",
        "L = (0.8 - 1)²/2 = 0.02",
        "f'(z1) = 0.8 (1 - 0.8) = 0.16",
        "δ1 = (0.8 - 1) · 0.16 = -0.032",
        "f'(z1) = 0.5 (1 - 0.5) = 0.25",
        "f'(z2) = 0.75 (1 - 0.75) = 0.1875",
        "δ1 = (4·(-0.032)) · 0.25 = -0.032",
        "δ2 = ((-4)·(-0.032)) · 0.1875 = 0.024",
        "∂L/∂w(x1→2) = 0·0.024 = 0",
        "∂L/∂w(x2→2) = 1·0.024 = 0.024",
        "∂L/∂b2 = 0.024",
        "∂L/∂w(a1→1) = 0.5·(-0.032) = -0.016",
        "∂L/∂w(a2→1) = 0.75·(-0.032) = -0.024",
        "∂L/∂b1 = -0.032",
    ]
    rest = iter(lines_of(printed))
    for line in by_hand:
        assert line in rest, f"{line} is missing, or not in this place"
    assert max(map(len, printed.splitlines())) <= 80
    first, second = explained(nnctl, "xor", "--input", "0,1")["layers"]
    assert first["deltas"] == pytest.approx([-0.032, 0.024], rel=1e-6)
    assert np.array(first["weight_gradient"]) == pytest.approx(
        np.array([[0, 0], [-0.032, 0.024]]), rel=1e-6
    )
    assert np.array(second["weight_gradient"]) == pytest.approx(
        np.array([[-0.016], [-0.024]]), rel=1e-6
    )
    assert second["a"] == pytest.approx([0.8])
    of_row = explained(nnctl, "xor", "--image", "1")  # the second row of the truth table
    assert of_row["example"] == "example 1 of xor"
    assert of_row["layers"] == [first, second]


def test_a_perceptron_without_an_error_learns_nothing(nnctl: Nnctl) -> None:
    network = face.Network.from_arrays([[[0.5], [0.5]]], [[-0.7]], ["step"])
    face.save(network, "and", dataset="and", settings={"loss": "quadratic"})
    printed = lines_of(nnctl("explain", "and", "--input", "1 1").stdout)
    assert "z1 = 1·0.5 + 1·0.5 + (-0.7) = 0.3" in printed
    assert "All errors are 0: the network learns nothing from this example." in printed
    assert "The reason is f'(z) = 0, a factor of the errors of the output layer." in printed
    unknown = lines_of(nnctl("explain", "and", "--input", "0.5,0.6").stdout)
    assert unknown[1] == "answer 0: the output is 0"
    assert any("The true class is not known" in line for line in unknown)
    assert "L = (0 - 1)²/2 = 0.5" in lines_of(
        nnctl("explain", "and", "--input", "0.5,0.6", "--label", "1").stdout
    )


def test_an_exact_answer_has_no_errors_but_another_label_has(nnctl: Nnctl) -> None:
    step = {"name": "step", "surrogate": "sigmoid"}
    network = face.Network.from_arrays([[[0.5], [0.5]]], [[-0.7]], [step])
    face.save(network, "and", dataset="and", settings={"loss": "quadratic"})
    printed = nnctl("explain", "and", "--input", "1,1").stdout
    assert "The outputs are exactly the targets." in printed
    assert "the true one, add --label 0." in printed
    other = nnctl("explain", "and", "--input", "1,1", "--label", "0").stdout
    assert "All errors are 0" not in other
    assert "∂L/∂b1" in other


def test_a_digit_is_explained_by_pixels_units_and_errors(nnctl: Nnctl, trained_run: Path) -> None:
    result = explained(nnctl, trained_run, "--image", "7")
    network = face.load(trained_run).network()
    *_, logits = (layer["z"] for layer in result["layers"])
    in_float32 = network.logits(scaled(DIGITS.inputs[7:8]))[0]
    assert logits == pytest.approx(in_float32, rel=1e-4, abs=1e-4)
    answer, rival = (int(result[name]) for name in ("predicted", "rival"))
    assert (result["label"], answer) == (str(DIGITS.labels[7]), int(np.argmax(logits)))
    biases = network.parameters.biases[-1].astype(float)
    assert sum(result["unit_contributions"]) + biases[answer] - biases[rival] == pytest.approx(
        logits[answer] - logits[rival], abs=1e-5
    )
    assert result["loss"] == pytest.approx(-math.log(result["outputs"][str(answer)]))
    # What a little more ink changes, for the darkest pixel.
    pixel = int(np.abs(result["evidence"]).argmax())
    changed = np.array([result["inputs"], result["inputs"]])
    changed[:, pixel] += (-1e-5, 1e-5)
    below, above = network.as_float64().logits(changed)[:, answer]
    slope = (above - below) / 2e-5
    assert result["evidence"][pixel] == pytest.approx(slope * result["inputs"][pixel], rel=1e-4)
    printed = nnctl("explain", trained_run, "--image", "7").stdout
    assert max(map(len, printed.splitlines()[1:])) <= 80  # the first has the directory
    for text in (
        f"for {answer}, against {rival}",
        f"Why {answer} and not {rival}, the runner-up",
        "δ = a - y (Nielsen's BP1)",
        f"z({answer}) - z({rival}) is the sum of",
        "# + speak for, = - against",
    ):
        assert text in printed
    lines = lines_of(printed)
    forward, reason, backward = (rows_below(lines, head) for head in HEADS)
    deciding = {row.split()[0] for row in reason if row[0].isdigit() and "others" not in row}
    below = next(i for i, row in enumerate(backward) if row.startswith("1 "))
    with_errors = {row.split(":")[0].split()[-1] for row in backward[below:]}
    assert {row.split()[0] for row in forward} == deciding | with_errors


@pytest.mark.parametrize(
    "hidden",
    [
        "sigmoid",
        "tanh",
        "relu",
        "prelu",
        "swish",
        "maxout",
        {"name": "step", "surrogate": "sigmoid"},
    ],
    ids=str,
)
@pytest.mark.usefixtures("scratch")
def test_the_errors_are_those_of_the_training(hidden: Any) -> None:
    layers = [{"units": 5, "activation": hidden} for _ in range(2)]
    output = {"units": 10, "activation": "softmax" if hidden == "relu" else "sigmoid"}
    settings = {"network.layers": [*layers, output], "loss": "quadratic"}
    run = face.train(CONFIGS / "smoke.yaml", epochs=1, subset=100, settings=settings)
    one = explain(run, image="3", notify=lambda _: None)
    network = run.network().as_float64()
    loss = make_loss("quadratic", network.layers[-1].activation)
    gradient = Parameters(784, network.layers, np.float64)
    training, logits = Backpropagation(network, gradient, 1), np.empty((1, 10))
    outputs = training.forward(one.inputs[None], logits)
    targets = make_targets(DIGITS.labels[3:4], 10, np.float64)
    loss.gradient(logits, outputs, targets, out=training.output_deltas)
    training.backward(one.inputs[None])
    for i, layer in enumerate(one.layers):
        assert layer.deltas is not None
        assert layer.weight_gradient is not None
        assert layer.deltas == pytest.approx(training.deltas[i][0], abs=1e-12)
        assert layer.gradient_norm == pytest.approx(np.linalg.norm(gradient.weights[i]))
        assert layer.weight_gradient == pytest.approx(gradient.weights[i], abs=1e-12)


def test_batch_normalization_is_named_as_part_of_the_weights(nnctl: Nnctl) -> None:
    words = ("--epochs", 1, "--subset", 200, "--set", "network.layers.0.batch_norm=true")
    nnctl("train", "smoke", *words, "--run-dir", "normalized")
    printed = nnctl("explain", "normalized").stdout
    assert "batch normalization is an affine map: w and b" in printed
    assert "No gradients are shown: training changes other parameters" in printed
    assert "∂L/∂w" not in printed
    layers = explained(nnctl, "normalized")["layers"]
    assert [layer["gradient_norm"] for layer in layers] == [None] * len(layers)
    one = explain(face.load("normalized"), image="3", notify=lambda _: None)
    outputs = face.load("normalized").predict(DIGITS.inputs[3])
    assert one.outputs == pytest.approx(outputs.tolist(), rel=1e-4)
    first = one.layers[0]
    assert first.z == pytest.approx(first.inputs @ first.weights + first.biases)


def test_after_a_mistake_the_answer_is_compared_with_the_true_class(
    nnctl: Nnctl, trained_run: Path
) -> None:
    answer = explained(nnctl, trained_run, "--image", "7")["predicted"]
    label = "3" if answer != "3" else "4"
    done = nnctl("explain", trained_run, "--image", "7", "--label", label)
    assert f"answer {answer}: wrong" in done.stdout
    assert f"Why {answer} and not {label}, the true class" in done.stdout


def test_a_photograph_and_a_yes_or_no_network_are_explained(nnctl: Nnctl, scratch: Path) -> None:
    layers = [{"units": 1, "activation": "sigmoid"}]
    settings = {"network.layers": layers, "data.positive_digit": 9}
    run = face.train(CONFIGS / "smoke.yaml", epochs=3, run_dir="nine", settings=settings)
    index = int(np.flatnonzero(DIGITS.labels == 9)[0])
    (scratch / "nine.png").write_bytes(photograph(DIGITS.inputs[index], 0))
    printed = nnctl("explain", run.directory, "--image", "nine.png").stdout
    assert "nine, epoch 3: nine.png\n" in printed
    assert "\nanswer 9: the output is " in printed
    assert (
        "\nWhy 9\nThe output grows with z: a term above 0 speaks for 9, one below for other"
        in printed
    )
    assert "from pixels for 9 + " in printed
    assert "runner-up" not in printed
    assert "A pixel counts by w·x" in printed
    assert "The true class is not known" in printed
    result = explained(nnctl, run.directory, "--image", "nine.png", "--label", "9")
    z, bias = result["layers"][0]["z"][0], float(run.network().parameters.biases[0][0])
    assert sum(result["evidence"]) + bias == pytest.approx(z, abs=1e-5)
    assert result["evidence"] == result["contrast"]
    mistake = nnctl("explain", run.directory, "--image", "nine.png", "--label", "other").stdout
    assert "\nWhy 9, though the true class is other\n" in mistake
    assert "layer 1: δ = a - y (" in mistake
    assert [row.split()[3] for row in rows_below(lines_of(mistake), "layer |δ|")] == ["9:"]


def test_the_run_may_be_the_latest_or_a_sweep(nnctl: Nnctl, scratch: Path) -> None:
    shutil.copytree(ROOT / "tests" / "compatibility" / "sweep-1", scratch / "runs" / "sweep-1")
    for name in ("runs/sweep-1", "latest"):
        done = nnctl("explain", name, "--image", "0")
        assert done.stderr.startswith(f"{name}: {Path('runs/sweep-1/trial-00')}")
        assert "test image 0 of mini; its true class is 7" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("digits", "--image", "5000"), 2, "test image 5,000 does not exist: mini has 1,000"),
        (("digits", "--image", "none.png"), 3, "none.png: "),
        (("digits", "--image", "notes.txt"), 3, "notes.txt: the file is not a readable image"),
        (("digits", "--input", "0,1"), 2, "--input has 2 numbers; this network takes 784"),
        (("digits", "--image", "1", "--label", "ten"), 2, "unknown class 'ten'"),
        (("xor", "--input", "0"), 2, "--input has 1 number; this network takes 2"),
        (("xor", "--input", "0,one"), 2, "'0,one' is not a list of numbers"),
        (("xor", "--input", "0,nan"), 2, "--input has a number that is not finite"),
        (("xor", "--image", "notes.txt"), 2, "this network takes 2 inputs, not an image"),
        (("xor", "--image", "4"), 2, "example 4 does not exist: xor has 4"),
        (("xor", "--image", "1", "--input", "0,1"), 2, "exclude each other"),
        (("nowhere",), 2, "nowhere: run directory not found"),
        (("gates/xor",), 2, "Hint: Train one: nnctl train gates/xor, then use latest"),
        (("runs/is-it-a-nine",), 2, "Train one: nnctl train is-it-a-nine, then use latest"),
        (("seven.png",), 2, "Name a run before it: nnctl explain latest --image seven.png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_has_a_clear_message(
    nnctl: Nnctl,
    trained_run: Path,
    scratch: Path,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    save_xor()
    (scratch / "notes.txt").write_text("7, 2, 1", "utf-8")
    run, *options = arguments
    done = nnctl("explain", trained_run if run == "digits" else run, *options, code=code)
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_shows_the_pictures_in_color(trained_run: Path, columns: int) -> None:
    printed = in_terminal("explain", trained_run, "--image", "7", columns=columns)
    lines = on_screen(printed, columns)
    rows = [line.count("▀" * 28) for line in lines if "▀" in line]
    assert rows == ([2] * 14 + [1] * 14 if columns == 80 else [3] * 14)
    assert "blue speaks for, orange against" in lines
