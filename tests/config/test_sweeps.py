"""Sweep files: which keys to vary, over which values, and what can be wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnctl.config.sweeps import Range, SweepConfig
from nnctl.errors import ConfigError
from tests.config.helpers import mistake, mistakes, sweep_of, written

pytestmark = pytest.mark.usefixtures("scratch")

RANDOM = "base: a.yaml\nmethod: random\ntrials: 3\nparameters:\n  x: "


def test_a_grid_is_a_list_of_values_for_each_key() -> None:
    """A grid is the default; values may be of any kind."""
    text = "base: a.yaml\nparameters:\n  optimizer.learning_rate: [0.1, 1]\n  loss: [x, {y: 1}]\n"
    parameters: dict[str, Any] = {"optimizer.learning_rate": [0.1, 1], "loss": ["x", {"y": 1}]}
    assert SweepConfig(base="a.yaml", parameters=parameters) == sweep_of(written(text))
    assert sweep_of(written(text)).method == "grid"


@pytest.mark.parametrize("name", ["uniform", "log_uniform_values", "int_uniform"])
def test_a_random_sweep_draws_from_ranges_and_lists(name: str) -> None:
    """Every distribution, with its bounds."""
    text = f"{RANDOM}{{distribution: {name}, min: 1, max: 8}}\n  y: [a, b]\nmetric: val_loss\n"
    sweep = sweep_of(written(text))
    assert (sweep.method, sweep.trials, sweep.metric) == ("random", 3, "val_loss")
    drawn = Range.model_validate({"distribution": name, "min": 1.0, "max": 8.0})
    assert {"x": drawn, "y": ["a", "b"]} == sweep.parameters


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (
            ["2:9: method: a random sweep needs 'trials', the number of points to draw"],
            "base: a.yaml\nmethod: random\nparameters: {x: [1]}",
        ),
        (
            [
                "2:9: trials: a grid has as many trials as it has points; leave this out",
                "4:6: parameters.x: a grid needs a list of values; for a range use random",
            ],
            "base: a.yaml\ntrials: 3\nparameters:\n  x: {distribution: uniform, min: 0, max: 1}",
        ),
        (
            [
                "1:1: base: 'base' is missing",
                "1:1: bas: unknown key 'bas'; did you mean 'base'?",
                "2:9: method: expected 'grid' or 'random', got the text 'gird'; "
                "did you mean 'grid'?",
                "3:13: parameters: expected at least 1 of them, got a mapping",
                "4:9: metric: expected 'val_accuracy' or 'val_loss', got the text 'acc'",
                "5:7: seed: expected a number of at least 0, got -1",
                "6:1: trails: unknown key 'trails'; did you mean 'trials'?",
                "7:9: trials: expected a number of at least 1, got 0",
            ],
            "bas: a.yaml\nmethod: gird\nparameters: {}\nmetric: acc\nseed: -1\n"
            "trails: 3\ntrials: 0",
        ),
        (["5:6: parameters.x: expected a list, got 3"], f"{RANDOM}3"),
        (["5:7: not a number that can be used: .nan"], f"{RANDOM}[.nan]"),
        (["6:3: 'x' is here twice; it was first at 5:3"], f"{RANDOM}[1]\n  x: [2]"),
    ],
)
def test_the_mistakes_of_a_sweep_are_told_like_those_of_a_configuration(
    expected: list[str], text: str
) -> None:
    """All at once, each at its place, with suggestions."""
    assert [f"c.yaml:{told}" for told in expected] == mistakes(text, read=sweep_of)


@pytest.mark.parametrize(
    ("expected", "limits"),
    [
        ("min (2) must be below max (2)", "distribution: uniform, min: 2, max: 2"),
        ("min (3) must be below max (2)", "distribution: uniform, min: 3, max: 2"),
        ("min must be above 0", "distribution: log_uniform_values, min: 0, max: 2"),
        ("min and max must be whole numbers", "distribution: int_uniform, min: 0, max: 1.5"),
        ("did you mean 'uniform'?", "distribution: unifrom, min: 0, max: 1"),
        ("'max' is missing", "distribution: uniform, min: 0"),
        ("expected a number, got the text 'x'", "distribution: uniform, min: 0, max: x"),
        ("unknown key 'mx'; did you mean 'max'?", "distribution: uniform, min: 0, max: 1, mx: 1"),
    ],
)
class TestRanges:
    """A range with one mistake."""

    def test_a_wrong_range_is_told_at_its_place(self, expected: str, limits: str) -> None:
        """What is wrong with it is among what is told."""
        told = mistakes(f"{RANDOM}{{{limits}}}", read=sweep_of)
        assert all(line.startswith("c.yaml:5:") for line in told)
        assert [expected] == [expected for line in told if expected in line]

    def test_one_mistake_in_a_range_is_told_once(self, expected: str, limits: str) -> None:
        """A mapping was meant for a range, and not for a list."""
        told = mistake(f"{RANDOM}{{{limits}}}", read=sweep_of)
        assert expected in told
        assert "a list" not in told


def test_a_wrong_number_of_trials_is_not_told_to_be_missing() -> None:
    """That would only follow from the other mistake."""
    text = "base: a.yaml\nmethod: random\ntrials: 0\nparameters: {x: [1]}"
    assert "trials: expected a number of at least 1" in mistake(text, read=sweep_of)


def test_a_missing_sweep_file_is_told_its_neighbours() -> None:
    """As a missing configuration is."""
    Path("sweep.yaml").touch()
    with pytest.raises(ConfigError) as caught:
        sweep_of(Path("swep.yaml"))
    assert caught.value.hint == "There are: sweep.yaml"
