"""The bundled configurations reach the accuracies in their comments, on full MNIST."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CONFIGS, Nnctl

Train = Callable[..., dict[str, Any]]


@pytest.fixture
def train(nnctl: Nnctl) -> Train:
    """Function that trains a configuration and returns its summary."""

    def run(name: str, *arguments: object) -> dict[str, Any]:
        done = nnctl("train", CONFIGS / f"{name}.yaml", "--quiet", "--json", *arguments)
        summary: dict[str, Any] = json.loads(done.stdout)
        return summary

    return run


def accuracy_of(nnctl: Nnctl, run: str) -> float:
    """Return the test accuracy of a run."""
    return float(json.loads(nnctl("eval", run, "--json").stdout)["accuracy"])


def test_smoke_reaches_90_percent_offline(train: Train) -> None:
    summary = train("smoke")
    assert (summary["dataset"]["name"], summary["status"]) == ("mini", "finished")
    assert summary["best_val_accuracy"] >= 0.90


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("sigmoid", 0.975),
        ("relu", 0.975),
        ("tanh", 0.97),
        ("mixed", 0.97),
        ("is-it-a-nine", 0.985),
        ("fast", 0.98),
        ("plain", 0.985),
    ],
)
def test_a_preset_reaches_its_accuracy(
    train: Train, nnctl: Nnctl, name: str, accuracy: float
) -> None:
    summary = train(name)
    assert summary["dataset"]["name"] == "mnist"
    assert summary["epochs"] <= 30
    assert summary["best_val_accuracy"] >= accuracy
    assert accuracy_of(nnctl, summary["run_dir"]) >= accuracy - 0.005
    if name in ("relu", "sigmoid"):
        assert summary["diagnoses"] == []


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_nielsen_s_network_reaches_its_published_accuracy(train: Train, nnctl: Nnctl) -> None:
    runs = [train("nielsen", "--seed", seed)["run_dir"] for seed in range(3)]
    assert 0.945 <= max(accuracy_of(nnctl, run) for run in runs) <= 0.965


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_the_best_rate_of_the_learning_rate_sweep_is_in_the_middle(
    nnctl: Nnctl, scratch: Path
) -> None:
    done = nnctl("sweep", CONFIGS / "sweep-learning-rate.yaml", "--json", "--sweep-dir", "sweep")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    best = max(rows, key=lambda row: row["val_accuracy"])
    assert 0.01 < best["parameters"]["optimizer.learning_rate"] < 3.0
    assert best["val_accuracy"] > 0.95
    assert (scratch / "sweep" / "results.csv").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
@pytest.mark.parametrize(("name", "epochs"), [("invariant", 3), ("best", 4)])
def test_a_long_preset_reaches_98_percent_within_a_few_epochs(
    train: Train, nnctl: Nnctl, name: str, epochs: int
) -> None:
    summary = train(name, "--epochs", epochs)
    assert accuracy_of(nnctl, summary["run_dir"]) > 0.98
    assert summary["final_train_accuracy"] < summary["best_val_accuracy"]


@pytest.mark.parametrize(
    "name",
    [
        *("sigmoid", "relu", "tanh", "mixed", "nielsen", "is-it-a-nine"),
        *("fast", "plain", "invariant", "best"),
    ],
)
def test_a_preset_also_trains_offline(train: Train, name: str) -> None:
    assert train(name, "--epochs", 1, "--subset", 1000)["dataset"]["name"] == "mini"
