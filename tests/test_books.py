"""Every configuration and sweep in configs/books gives what its book published, on full MNIST."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from nnctl.cli import main
from nnctl.config import json_schema
from nnctl.config.reader import read_file
from nnctl.config.sweeps import SweepConfig
from tests.conftest import CONFIGS, Nnctl
from tests.helpers import load_command
from tests.processes import ROOT

BOOKS = CONFIGS / "books"
NIELSEN, SAITOH = "Neural Networks and Deep Learning", "Deep Learning from Scratch"
PAGE = (ROOT / "docs" / "pages" / "explanation" / "books.md").read_text("utf-8")


@dataclass(frozen=True)
class Target:
    """The published figure of a configuration, and the test accuracy it must reach, in percent."""

    published: str
    low: float
    high: float
    """Both include a margin for other BLAS libraries."""
    arguments: tuple[str, ...] = ()
    """Options that shorten a long training."""


TARGETS = {
    "nielsen-1-30": Target("95.42 %", 94.3, 95.8),
    "nielsen-1-100": Target("96.59 %", 95.4, 96.9),
    "nielsen-1-slow": Target("2,142", 16.0, 24.0, ("--epochs", "10")),
    "nielsen-1-fast": Target("982", 5.0, 20.0, ("--epochs", "2")),
    "nielsen-3-30": Target("95.49 %", 94.3, 95.9),
    "nielsen-3-100": Target("96.82 %", 95.7, 97.1, ("--epochs", "10")),
    "nielsen-3-decay": Target("96.49 %", 95.5, 96.7),
    "nielsen-3-overfitting": Target("82.27 %", 80.0, 83.5),
    "nielsen-3-overfitting-decay": Target("87.1 %", 86.5, 88.7),
    "nielsen-5-two-hidden": Target("96.90 %", 95.9, 97.3),
    "nielsen-5-four-hidden": Target("96.53 %", 94.3, 96.1, ("--epochs", "10")),
    "scratch-4": Target("94.7 %", 94.0, 95.2),
    "scratch-6-std": Target("2.30", 11.35, 11.35),
    "scratch-6-xavier": Target("2,000 steps", 90.0, 92.2),
    "scratch-6-he": Target("2,000 steps", 92.6, 94.2),
    "scratch-6-batch-norm": Target("learns faster", 86.0, 88.7),
    "scratch-6-overfitting": Target("almost 100 %", 73.5, 77.0),
    "scratch-6-overfitting-decay": Target("does not reach 100 %", 65.0, 76.5),
    "scratch-6-overfitting-dropout": Target("does not reach 100 %", 71.0, 77.5),
}
SWEEPS = {
    "sweep-more-data": (NIELSEN, 3, "93.24 %"),
    "sweep-weight-initialization": (NIELSEN, 3, "93 %"),
    "sweep-three-learning-rates": (NIELSEN, 3, "2.5"),
    "sweep-optimizers": (SAITOH, 6, "SGD is slower"),
    "sweep-batch-norm": (SAITOH, 6, "learns faster"),
    "sweep-random-search": (SAITOH, 6, "0.83"),
}
"""The sweeps, each with its book, chapter and published figure or statement."""
PUBLISHED = SWEEPS | {
    name: (
        SAITOH if name.startswith("scratch") else NIELSEN,
        int(name.split("-")[1]),
        target.published,
    )
    for name, target in TARGETS.items()
}


def train(nnctl: Nnctl, name: str, *arguments: object) -> str:
    """Train a configuration and return the run directory."""
    done = nnctl("train", BOOKS / f"{name}.yaml", "--quiet", "--json", *arguments)
    return str(json.loads(done.stdout)["run_dir"])


def accuracy_of(nnctl: Nnctl, run: str, *arguments: object) -> float:
    """Return the test accuracy of a run, in percent."""
    return 100 * float(json.loads(nnctl("eval", run, "--json", *arguments).stdout)["accuracy"])


def sweep(nnctl: Nnctl, name: str, *arguments: object) -> list[dict[str, Any]]:
    """Train a part of a sweep and return the results in the order of the trials."""
    done = nnctl("sweep", BOOKS / f"{name}.yaml", "--quiet", "--json", *arguments)
    return sorted(map(json.loads, done.stdout.splitlines()), key=lambda row: row["trial"])


def metrics_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the metrics of a trial or run, epoch by epoch."""
    lines = (Path(row["run_dir"]) / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def comment_of(name: str) -> str:
    """Return the text of the comments of a configuration."""
    lines = (BOOKS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


def test_every_configuration_of_a_book_has_a_target() -> None:
    assert sorted(PUBLISHED) == sorted(path.stem for path in BOOKS.iterdir())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_comment_of_a_configuration_names_the_book_the_command_and_the_figure(
    name: str,
) -> None:
    comment = comment_of(name)
    title, chapter, figure = PUBLISHED[name]
    assert title in comment
    assert re.search(rf"[Cc]hapter {chapter}\b", comment)
    assert f"nnctl {'sweep' if name in SWEEPS else 'train'} books/{name}" in comment
    published, here = re.split(r"\bHere[:,]", comment.partition("Published")[2], maxsplit=1)
    assert figure in published
    assert re.search(r"\bseeds? ", here)
    assert "Look at" in comment


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_configuration_is_valid_and_mentions_only_files_that_exist(name: str) -> None:
    path = BOOKS / f"{name}.yaml"
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    kind, schema = ("sweep-", json_schema(SweepConfig)) if name in SWEEPS else ("", json_schema())
    assert first == f"# yaml-language-server: $schema=../{kind}schema.json"
    assert max(map(len, rest)) <= 100
    Draft202012Validator(schema).validate(read_file(path).data)
    for mentioned in re.findall(r"[\w/-]+\.yaml", comment_of(name)):
        folder = CONFIGS.parent if "/" in mentioned else BOOKS
        assert (folder / mentioned).is_file(), mentioned


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_commands_in_the_comment_are_accepted(
    nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    text = (BOOKS / f"{name}.yaml").read_text(encoding="utf-8")
    one_line_each = re.sub(r" \\\n#\s+", " ", text)
    commands = re.findall(r"^#   nnctl ((?:train|sweep) .*)$", one_line_each, re.MULTILINE)
    assert commands
    for command in commands:
        nnctl(*shlex.split(command), "--dry-run")


def test_the_page_of_the_chapters_names_each_configuration() -> None:
    assert {*re.findall(r"books/([\w-]+)", PAGE)} == PUBLISHED.keys()


def test_the_commands_of_the_page_of_the_chapters_are_accepted(nnctl: Nnctl) -> None:
    parent = main.make_context("nnctl", [], resilient_parsing=True)
    latest = Path("runs") / "first"
    latest.mkdir(parents=True)
    for file in ("config.yaml", "summary.json"):
        (latest / file).touch()
    for name, *arguments in map(shlex.split, re.findall(r"`nnctl ([^`]+)`", PAGE)):
        if name in ("train", "sweep"):
            nnctl(name, *arguments, "--dry-run")
        else:
            load_command(name).make_context(name, arguments, parent)


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
@pytest.mark.parametrize("name", TARGETS)
def test_a_configuration_reaches_the_published_figure(nnctl: Nnctl, name: str) -> None:
    target = TARGETS[name]
    accuracy = accuracy_of(nnctl, train(nnctl, name, *target.arguments))
    assert target.low <= round(accuracy, 2) <= target.high


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_with_another_seed_a_hundred_neurons_get_stuck_near_87_percent(nnctl: Nnctl) -> None:
    run = train(nnctl, "nielsen-1-100", "--seed", 0, "--epochs", 5)
    assert 84 <= accuracy_of(nnctl, run) <= 88


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_more_data_gives_a_higher_accuracy(nnctl: Nnctl) -> None:
    sizes = "data.subset=100,1000,5000"
    rows = sweep(nnctl, "sweep-more-data", "-p", sizes, "--set", "training.steps=20000")
    few, some, many = [100 * row["last_val_accuracy"] for row in rows]
    assert 64 <= few <= 71
    assert 85.5 <= some <= 89
    assert 91 <= many <= 93.5
    assert [len(metrics_of(row)) for row in rows] == [20, 2, 1]  # validated every 100 epochs


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_smaller_initial_weights_are_ahead_after_the_first_epoch(nnctl: Nnctl) -> None:
    rows = sweep(nnctl, "sweep-weight-initialization", "--epochs", 1)
    large, small, large_100, small_100 = [100 * row["last_val_accuracy"] for row in rows]
    assert 85.5 <= large <= 88.5  # published: under 87 %
    assert 92 <= small <= 93.7  # published: almost 93 %
    assert large_100 + 1.5 < small_100


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_the_cost_falls_smoothly_only_with_a_low_learning_rate(nnctl: Nnctl) -> None:
    rows = sweep(nnctl, "sweep-three-learning-rates", "--epochs", 6)
    low, middle, high = [[epoch["monitor"]["cost"] for epoch in metrics_of(row)] for row in rows]
    assert low == sorted(low, reverse=True)
    assert min(middle) < min(low) < min(high)
    assert high != sorted(high, reverse=True)


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_sgd_is_the_slowest_of_four_optimizers_and_adagrad_starts_fastest(nnctl: Nnctl) -> None:
    rows = sweep(nnctl, "sweep-optimizers", "--set", "training.steps=900")
    sgd, momentum, adagrad, adam = [row["last_train_loss"] for row in rows]
    assert 0.32 <= sgd <= 0.52
    assert max(momentum, adagrad, adam) < sgd / 2
    first = []
    for row in rows:
        lines = (Path(row["run_dir"]) / "steps.jsonl").read_text("utf-8").splitlines()
        first.append(sum(json.loads(line)["loss"] for line in lines[:50]))
        assert len(lines) == 900
    assert min(first) == first[2]


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_with_batch_normalization_most_initial_weights_learn(nnctl: Nnctl) -> None:
    std = "network.init.weights.std=0.00034,0.004,0.025,0.16"
    without = [f"--set=network.layers.{layer}.batch_norm=null" for layer in range(5)]
    reached = [
        [100 * metrics_of(row)[-1]["monitor"]["train_accuracy"] for row in rows]
        for rows in (
            sweep(nnctl, "sweep-batch-norm", "-p", std),
            sweep(nnctl, "sweep-batch-norm", "-p", std, *without),
        )
    ]
    lowest, *good, high = reached[0]
    assert 35 <= lowest <= 75
    assert min(good) > 97
    assert 75 <= high <= 87
    *flat, learns = reached[1]
    assert max(flat) < 12  # guesses the most frequent digit
    assert 78 <= learns <= 93


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_a_random_search_finds_a_learning_rate_near_the_published_one(nnctl: Nnctl) -> None:
    rows = sweep(nnctl, "sweep-random-search", "--trials", 20)
    best = max(rows, key=lambda row: row["val_accuracy"])
    assert 0.003 <= best["parameters"]["optimizer.learning_rate"] <= 0.01  # published: 0.0092
    assert 0.6 <= best["val_accuracy"] <= 0.9  # published: 0.83
    low = [row for row in rows if row["parameters"]["optimizer.learning_rate"] < 1e-4]
    assert len(low) > 3
    assert max(row["val_accuracy"] for row in low) < 0.3
