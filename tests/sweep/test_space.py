"""The points of a sweep."""

from __future__ import annotations

import math
from typing import Any

from nnctl.config.sweeps import SweepConfig
from nnctl.sweep.space import points


def sweep(parameters: dict[str, Any], **others: Any) -> SweepConfig:
    """Return a sweep over parameters."""
    return SweepConfig(base="base.yaml", parameters=parameters, **others)


def test_a_grid_has_every_combination_once() -> None:
    """The last key varies fastest; equal points are one."""
    grid = points(sweep({"a": [1, 2, 1], "b": ["x", "y"]}))
    assert [(p["a"], p["b"]) for p in grid] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


def test_random_points_are_drawn_from_lists_and_ranges_and_repeat_with_the_seed() -> None:
    """Each range within its bounds, whole numbers where they are asked for."""
    space = {
        "list": [10, 20],
        "even": {"distribution": "uniform", "min": -1.0, "max": 1.0},
        "log": {"distribution": "log_uniform_values", "min": 0.001, "max": 10.0},
        "whole": {"distribution": "int_uniform", "min": 1.0, "max": 3.0},
    }
    drawn = points(sweep(space, method="random", trials=300, seed=1))
    assert len(drawn) == 300
    assert {10, 20} == {point["list"] for point in drawn}
    assert {1, 2, 3} == {point["whole"] for point in drawn}
    assert all(-1 <= point["even"] <= 1 for point in drawn)
    logs = [math.log10(point["log"]) for point in drawn]
    assert all(-3 <= log <= 1 for log in logs)
    # Even in the logarithm: a quarter of them in each of the four decades.
    for decade in range(-3, 1):
        assert 40 < sum(decade <= log < decade + 1 for log in logs) < 110
    assert drawn == points(sweep(space, method="random", trials=300, seed=1))
    assert drawn != points(sweep(space, method="random", trials=300, seed=2))
