"""``nnctl lr-find``: the learning-rate range test."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nnctl.nn.optimizers import OPTIMIZERS
from tests.conftest import CONFIGS, Nnctl

SMOKE = CONFIGS / "smoke.yaml"
LESSONS = CONFIGS / "lessons"


def found(nnctl: Nnctl, *arguments: object, code: int = 0) -> dict[str, Any]:
    """Return the JSON object that the command prints."""
    result: dict[str, Any] = json.loads(nnctl("lr-find", *arguments, "--json", code=code).stdout)
    return result


def test_the_suggestion_can_be_pasted_and_nothing_is_written(nnctl: Nnctl, scratch: Path) -> None:
    result = found(nnctl, SMOKE, "--subset", 3000)
    assert 0.003 < result["suggestion"] < 0.3
    assert result["fastest"] < result["suggestion"] < result["lowest"] < result["diverged"] < 10
    printed = nnctl("lr-find", SMOKE, "--subset", 3000, env={"COLUMNS": "80"}).stdout
    *shown, command = printed.splitlines()
    assert command == f"nnctl train {SMOKE} --subset 3000 {result['option']}"
    assert max(map(len, shown)) <= 80
    assert "▲" in printed
    assert result["reason"] in " ".join(printed.split())
    option = nnctl("lr-find", SMOKE, "--subset", 3000, "--quiet").stdout
    assert option == f"--lr {result['suggestion']:g}\n"
    assert not list(scratch.iterdir())
    nnctl("train", SMOKE, "--epochs", 1, "--subset", 100, *option.split(), "--dry-run")


def test_rates_grow_by_a_constant_factor_until_training_diverges(nnctl: Nnctl) -> None:
    options = (SMOKE, "--from", 0.001, "--to", 1000, "--steps", 100)
    result = found(nnctl, *options)
    rates = [step["learning_rate"] for step in result["steps"]]
    assert rates[0] == pytest.approx(0.001)
    factor = 1e6 ** (1 / 99)
    assert [after / before for before, after in pairwise(rates)] == pytest.approx(
        [factor] * (len(rates) - 1)
    )
    assert result["diverged"] == pytest.approx(rates[-1] * factor)
    assert result == found(nnctl, *options)
    assert result["suggestion"] == found(nnctl, *options, "--threads", 2)["suggestion"]
    assert result["steps"] != found(nnctl, *options, "--seed", 1)["steps"]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_gets_a_suggestion(nnctl: Nnctl, name: str) -> None:
    optimizer = ("--set", f"optimizer.name={name}", "--set", "optimizer.momentum=0")
    result = found(nnctl, SMOKE, *optimizer)
    assert 1e-4 < result["suggestion"] < 1


def test_four_examples_are_enough(nnctl: Nnctl) -> None:
    assert 0.01 < found(nnctl, CONFIGS / "gates" / "xor.yaml")["suggestion"] < 10


@pytest.mark.parametrize(
    ("reason", "arguments"),
    [
        ("the loss falls too little at all rates from 1e-05 to 10", (LESSONS / "flat-loss.yaml",)),
        ("the loss does not fall before training diverges", (SMOKE, "--from", 1e20, "--to", 1e30)),
        (
            "training diverges in its first step",
            (SMOKE, "--set", "network.init.weights={name: normal, std: 1e30}"),
        ),
    ],
)
def test_without_a_suggestion_the_reason_is_an_error(
    nnctl: Nnctl, reason: str, arguments: tuple[object, ...]
) -> None:
    done = nnctl("lr-find", *arguments, code=1)
    assert f"no suggestion: {reason}" in done.stderr
    assert "nnctl train" not in done.stdout
    result = found(nnctl, *arguments, code=1)
    assert (result["suggestion"], result["option"]) == (None, None)
    assert result["reason"].startswith(reason)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("--from (1) must be below --to (0.1)", (SMOKE, "--from", 1, "--to", 0.1)),
        ("remove --lr", (SMOKE, "--lr", 0.1)),
        ("remove --lr", (SMOKE, "--set", "optimizer.learning_rate=1")),
        ("0 is not in the range", (SMOKE, "--from", 0)),
        ("nan is not a finite number", (SMOKE, "--to", "nan")),
        ("5 is not in the range 20<=x<=10000", (SMOKE, "--steps", 5)),
        ("did you mean 'sigmoid'?", ("sigmiod",)),
        ("cannot hold out 4 of the 4", (CONFIGS / "gates/xor.yaml", "--set", "data.validation=4")),
    ],
)
def test_a_mistake_is_a_usage_error(
    nnctl: Nnctl, message: str, arguments: tuple[object, ...]
) -> None:
    assert message in " ".join(nnctl("lr-find", *arguments, code=2).stderr.split())
