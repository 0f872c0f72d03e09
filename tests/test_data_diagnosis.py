"""Faults of a dataset are found, and healthy datasets have none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnctl.build import build_loop, build_network
from nnctl.config import from_mapping, replaced
from nnctl.data.dataset import hold_out, open_dataset, relabel_binary
from nnctl.diagnosis.data import diagnose_data, diagnose_labels
from nnctl.nn.examples import Examples
from nnctl.nn.network import Network
from nnctl.nn.streams import stream
from tests.conftest import CONFIGS, Nnctl
from tests.data.conftest import idx_bytes
from tests.runs.helpers import ignore

MINI = open_dataset("mini", notify=ignore)
DIGITS = [str(digit) for digit in range(10)]


def few(examples: Examples, count: int) -> Examples:
    return Examples(examples.inputs[:count], examples.labels[:count])


TRAIN, TEST = few(MINI.training, 2000), few(MINI.test, 400)


def kinds(training: Examples, test: Examples | None = TEST, validation: int = 300) -> list[str]:
    kept, held_out = hold_out(training, validation)
    return [problem.kind for problem in diagnose_data(kept, held_out, test, DIGITS)]


def with_inputs(examples: Examples, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Examples:
    return Examples(np.ascontiguousarray(change(examples.inputs), np.uint8), examples.labels)


def transposed(images: NDArray[Any]) -> NDArray[Any]:
    return images.reshape(-1, 28, 28).transpose(0, 2, 1).reshape(len(images), -1)


@pytest.mark.parametrize("count", [50, 300, 1000, 5000])
def test_a_healthy_dataset_has_no_problem(count: int) -> None:
    assert kinds(few(MINI.training, count), validation=count // 6) == []


def test_a_dataset_without_images_is_not_examined() -> None:
    gate = open_dataset("xor", notify=ignore)
    assert diagnose_data(gate.training, None, gate.test, ["0", "1"]) == []


def test_a_light_background_is_reported() -> None:
    def invert(images: NDArray[Any]) -> NDArray[Any]:
        return 255 - images

    assert kinds(with_inputs(TRAIN, invert), with_inputs(TEST, invert)) == ["light background"]


def test_pixels_that_were_scaled_twice_are_reported() -> None:
    scaled = with_inputs(TRAIN, lambda images: images > 127)
    assert kinds(scaled, None) == ["pixels scaled twice"]


def test_sorted_classes_are_reported_and_a_stratified_split_cures_them() -> None:
    order = np.argsort(TRAIN.labels, kind="stable")
    by_class = Examples(TRAIN.inputs[order], TRAIN.labels[order])
    assert kinds(by_class) == ["classes sorted"]
    kept, held_out = hold_out(by_class, 300, stratified=True)
    assert diagnose_data(kept, held_out, TEST, DIGITS) == []


def test_a_stratified_split_keeps_the_shares_of_the_classes_and_every_example() -> None:
    kept, held_out = hold_out(TRAIN, 301, stratified=True)
    assert held_out is not None
    assert len(held_out) == 301
    exact = np.bincount(TRAIN.labels) * 301 / len(TRAIN)
    assert np.abs(np.bincount(held_out.labels) - exact).max() < 1
    together = np.concatenate([kept.inputs, held_out.inputs])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(TRAIN.inputs, axis=0))


def test_missing_and_rare_classes_are_reported_with_their_counts() -> None:
    without = TRAIN.labels != 7
    assert kinds(Examples(TRAIN.inputs[without], TRAIN.labels[without])) == ["missing classes"]
    few_sevens = np.flatnonzero(TRAIN.labels == 7)[5:]
    rare = np.delete(np.arange(len(TRAIN)), few_sevens)
    kept, held_out = hold_out(Examples(TRAIN.inputs[rare], TRAIN.labels[rare]), 300)
    (problem,) = diagnose_data(kept, held_out, None, DIGITS)
    assert problem.kind == "rare classes"
    assert "7: " in problem.evidence
    assert "training.class_weights: balanced" in problem.cure


def test_labels_of_other_images_are_reported_before_training() -> None:
    shuffled = Examples(TRAIN.inputs, np.random.default_rng(1).permutation(TRAIN.labels))
    assert kinds(shuffled) == ["wrong labels"]


def test_the_labels_of_a_binary_task_are_not_blamed() -> None:
    nines = relabel_binary(TRAIN, 9)
    kept, held_out = hold_out(nines, 300)
    assert diagnose_data(kept, held_out, relabel_binary(TEST, 9), None) == []


def test_constant_and_repeated_images_are_reported() -> None:
    inputs = TRAIN.inputs.copy()
    inputs[:200] = 9
    assert kinds(Examples(inputs, TRAIN.labels)) == ["constant images", "repeated images"]
    twice = Examples(np.tile(TRAIN.inputs[:500], (2, 1)), np.tile(TRAIN.labels[:500], 2))
    assert "repeated images" in kinds(twice, None, validation=100)


def test_images_transposed_between_training_and_test_are_reported() -> None:
    assert kinds(TRAIN, with_inputs(TEST, transposed)) == ["transposed images"]


def test_test_images_that_occur_in_training_are_counted() -> None:
    leaked = Examples(
        np.concatenate([TEST.inputs[:390], TRAIN.inputs[:10]]),
        np.concatenate([TEST.labels[:390], TRAIN.labels[:10]]),
    )
    kept, held_out = hold_out(TRAIN, 300)
    (problem,) = diagnose_data(kept, held_out, leaked, DIGITS)
    assert problem.kind == "test images in training"
    assert problem.evidence.startswith("10 of 400 test images")


def trained_on(training: Examples, epochs: int) -> Network:
    layers = [{"units": 30, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    values = {"network": {"layers": layers}, "optimizer": {"learning_rate": 0.1}}
    config = from_mapping(values, "test")
    config = replaced(config, {"training.epochs": epochs, "training.threads": 1})
    trained = build_network(config, 784)
    trained.initialize(stream(0, "initialization"))
    list(build_loop(config, trained, training, None))
    return trained


@pytest.mark.parametrize(("wrong", "expected"), [(0.0, []), (0.25, ["wrong labels"])])
def test_labels_that_a_network_contradicts_are_reported_after_training(
    wrong: float, expected: list[str]
) -> None:
    rng = np.random.default_rng(2)
    labels = TRAIN.labels.copy()
    changed = rng.permutation(len(labels))[: round(wrong * len(labels))]
    labels[changed] = (labels[changed] + rng.integers(1, 10, len(changed))) % 10
    training = Examples(TRAIN.inputs, labels)
    problems = diagnose_labels(trained_on(training, epochs=3), training)
    assert [problem.kind for problem in problems] == expected


def test_an_undertrained_network_does_not_blame_the_labels() -> None:
    assert diagnose_labels(trained_on(few(TRAIN, 300), epochs=1), TRAIN) == []


def test_train_and_check_explain_the_data_of_a_folder(nnctl: Nnctl, scratch: Path) -> None:
    folder = scratch / "inverted"
    folder.mkdir()
    for name, examples in (("train", TRAIN), ("t10k", TEST)):
        images = (255 - examples.inputs).reshape(-1, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx_bytes(examples.labels))
    options = ["--dataset", folder, "--epochs", "1", "--run-dir", "run"]
    printed = nnctl("train", CONFIGS / "smoke.yaml", *options).stderr
    assert "light background" in printed
    assert "dead units" not in printed
    assert "light background" in nnctl("check", "run").stdout
    checked = nnctl("check", CONFIGS / "smoke.yaml", "--set", f"data.dataset={folder}").stdout
    assert "light background" in checked
