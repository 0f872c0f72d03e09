"""The search space of a sweep: random points, grids, and corners."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nnctl.config.sweeps import Choice, Range, SweepConfig
from nnctl.sweeps.space import (
    Params,
    RandomSampler,
    Space,
    combinations,
    corners,
    count_combinations,
    draw,
    quantile,
    varied_keys,
)

EVEN = {"distribution": "uniform", "min": -1.0, "max": 1.0}
LAYERS: list[Any] = [
    {"units": {"values": [10, 20]}, "activation": "relu"},
    {"units": {"min": 100, "max": 200}, "slopes": [{"values": ["a", {"values": ["b", "c"]}]}, 0]},
]
"""Two kinds of layers, each with choices that the other does not have."""


def space(**parameters: Any) -> Space:
    """Return a search space."""
    return SweepConfig(parameters=parameters).space


def in_grid(*values: Any, most: int = 1000) -> list[Any]:
    """Return all values that a key has in a grid."""
    return [point["x"] for point in combinations(space(x=list(values)), most)]


def drawn(seed: int, count: int, **parameters: Any) -> list[Params]:
    """Return points drawn at random."""
    dice, drawn_from = RandomSampler(seed), space(**parameters)
    return [draw(drawn_from, dice) for _ in range(count)]


# Ranges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "fields"),
    [
        (stats.uniform(-2, 5), {"distribution": "uniform", "min": -2, "max": 3}),
        (
            stats.loguniform(1e-4, 10),
            {"distribution": "log_uniform_values", "min": 1e-4, "max": 10},
        ),
        (
            stats.loguniform(math.exp(-3), math.exp(2)),
            {"distribution": "log_uniform", "min": -3, "max": 2},
        ),
        (stats.norm(3, 0.5), {"distribution": "normal", "mu": 3, "sigma": 0.5}),
        (
            stats.lognorm(0.5, scale=math.exp(-2)),
            {"distribution": "log_normal", "mu": -2, "sigma": 0.5},
        ),
    ],
    ids=lambda value: value["distribution"] if isinstance(value, dict) else "",
)
@given(share=st.floats(1e-6, 1 - 1e-6))
def test_a_range_has_the_quantile_function_of_its_distribution(
    expected: Any, fields: dict[str, Any], share: float
) -> None:
    value = quantile(Range.model_validate(fields), share)
    assert value == pytest.approx(expected.ppf(share), rel=1e-6, abs=1e-9)
    quantised = {**fields, "distribution": f"q_{fields['distribution']}", "q": 0.25}
    multiple = quantile(Range.model_validate(quantised), share)
    assert multiple % 0.25 == 0
    assert abs(multiple - value) <= 0.125 + 1e-12


@given(
    low=st.integers(-50, 50),
    count=st.integers(2, 30),
    share=st.floats(1e-6, 1 - 1e-6),
)
def test_all_integers_of_a_range_are_equally_likely(low: int, count: int, share: float) -> None:
    whole = Range.model_validate(
        {"distribution": "int_uniform", "min": low, "max": low + count - 1}
    )
    value = quantile(whole, share)
    assert isinstance(value, int)
    nearest = (share * count) % 1
    if 1e-6 < nearest < 1 - 1e-6:  # otherwise, rounding decides
        assert value == stats.randint(low, low + count).ppf(share)
    assert (quantile(whole, 0.0), quantile(whole, 1.0)) == (low, low + count - 1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    "fields",
    [
        {"distribution": "uniform", "min": -(2**53), "max": 2**53},
        {"distribution": "log_uniform", "min": -700, "max": 700},
        {"distribution": "log_uniform_values", "min": 1e-320, "max": 2**53},
        {"distribution": "normal", "mu": 2**53, "sigma": 2**53},
        {"distribution": "log_normal", "mu": 2**53, "sigma": 1e-300},
    ],
    ids=lambda fields: fields["distribution"],
)
def test_the_ends_of_the_widest_ranges_are_finite_numbers_within_them(
    fields: dict[str, Any], share: float
) -> None:
    plain = Range.model_validate(fields)
    value = quantile(plain, share)
    assert math.isfinite(value)
    if plain.shape in ("uniform", "log_uniform_values"):
        assert plain.bounds[0] <= value <= plain.bounds[1]
    for q in (1e-320, 0.1, 1, 2.0**53):
        quantised = {**fields, "distribution": f"q_{plain.shape}", "q": q}
        assert math.isfinite(quantile(Range.model_validate(quantised), share))


def test_the_median_of_a_log_uniform_range_is_the_geometric_mean() -> None:
    wide = Range.model_validate({"distribution": "log_uniform_values", "min": 1e-320, "max": 1.0})
    assert quantile(wide, 0.5) == pytest.approx(1e-160, rel=1e-3)


@pytest.mark.parametrize(("expected", "q"), [(int, 5), (float, 0.5)])
def test_multiples_of_an_integer_q_are_integers(expected: type, q: float) -> None:
    fields = {"distribution": "q_uniform", "min": 0, "max": 100, "q": q}
    assert type(quantile(Range.model_validate(fields), 0.333)) is expected


def test_a_multiple_has_no_rounding_noise() -> None:
    fields = {"distribution": "q_uniform", "min": 0.3, "max": 0.301, "q": 0.1}
    assert str(quantile(Range.model_validate(fields), 0.0)) == "0.3"


# Random points -----------------------------------------------------------------------------------


def test_random_points_depend_only_on_the_seed() -> None:
    parameters: dict[str, Any] = {"even": EVEN, "layers": LAYERS, "list": [1, 2, 3]}
    points = drawn(1, 30, **parameters)
    assert drawn(1, 10, **parameters) == points[:10]
    assert drawn(2, 30, **parameters) != points


def test_random_points_are_distributed_over_ranges_and_lists() -> None:
    points = drawn(1, 2000, even=EVEN, list=[10, 20, 30])
    assert stats.kstest([point["even"] for point in points], stats.uniform(-1, 2).cdf).pvalue > 0.01
    counts = [sum(point["list"] == value for point in points) for value in (10, 20, 30)]
    assert stats.chisquare(counts).pvalue > 0.01


def test_probabilities_determine_how_often_a_value_is_drawn() -> None:
    weighted = {"values": ["a", "b", "c"], "probabilities": [0.2, 0.8, 0.0]}
    points = drawn(1, 2000, x=weighted)
    counts = [sum(point["x"] == value for point in points) for value in "abc"]
    assert counts[2] == 0
    assert stats.chisquare(counts[:2], [400, 1600]).pvalue > 0.01


def test_a_conditional_value_is_drawn_where_its_condition_is_chosen() -> None:
    kinds = [point["x"] for point in drawn(1, 200, x=LAYERS)]
    few = [kind for kind in kinds if "activation" in kind]
    many = [kind for kind in kinds if "slopes" in kind]
    assert len(few) + len(many) == 200
    assert {10, 20} == {kind["units"] for kind in few}
    assert all(100 <= kind["units"] <= 200 for kind in many)
    assert {"a", "b", "c"} == {kind["slopes"][0] for kind in many}


# Grids -------------------------------------------------------------------------------------------


def test_a_grid_has_every_combination_and_its_last_key_varies_fastest() -> None:
    points = combinations(space(a=[1, 2], b=["x", "y"], c=[None]), 100)
    assert [(p["a"], p["b"], p["c"]) for p in points] == [
        (1, "x", None),
        (1, "y", None),
        (2, "x", None),
        (2, "y", None),
    ]


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        ([1, 2, 3, 4], [1, {"values": [2, {"values": [3, 4]}]}]),
        ([2, 3, 4], [{"min": 2, "max": 4}]),
        ([{"a": 1, "b": 3}, {"a": 2, "b": 3}], [{"a": {"values": [1, 2]}, "b": 3}]),
        ([[1, 3], [1, 4], [2, 3], [2, 4]], [[{"values": [1, 2]}, {"values": [3, 4]}]]),
        ([[], {}], [[], {}]),
    ],
)
def test_a_grid_has_every_value_of_the_choices_within_its_values(
    expected: list[Any], values: list[Any]
) -> None:
    assert expected == in_grid(*values)
    assert len(expected) == count_combinations(space(x=values))


values = st.recursive(
    st.integers(0, 3),
    lambda below: st.one_of(
        st.lists(below, max_size=3),
        st.dictionaries(st.sampled_from("ab"), below),
        st.builds(lambda some: {"values": some}, st.lists(below, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


@given(parameters=st.dictionaries(st.sampled_from("xyz"), st.lists(values, min_size=1, max_size=2)))
def test_the_points_of_a_grid_are_counted_without_generating_them(
    parameters: dict[str, list[Any]],
) -> None:
    grid = space(**parameters) if parameters else {}
    points = list(combinations(grid, 10_000))
    assert min(count_combinations(grid), 10_000) == len(points)
    assert list(combinations(grid, 3)) == points[:3]


@pytest.mark.timeout(60)
def test_the_first_points_of_a_huge_grid_are_generated_immediately() -> None:
    ten = {"values": list(range(10))}
    huge = space(x=[[ten] * 20], y={"min": 0, "max": 2**52}, **{f"z{i}": ten for i in range(20)})
    assert count_combinations(huge) > 10**40
    assert [point["z19"] for point in combinations(huge, 4)] == [0, 1, 2, 3]
    assert [nested[-1] for nested in in_grid([ten] * 20, most=4)] == [0, 1, 2, 3]


# Corners -----------------------------------------------------------------------------------------


def test_corners_reach_each_value_of_each_choice() -> None:
    points = list(corners(space(x=LAYERS, y=[1, 2, 3], z=[{"deep": {"values": [4, 5]}}])))
    assert {1, 2, 3} == {point["y"] for point in points}
    assert {4, 5} == {point["z"]["deep"] for point in points}
    assert {10, 20} == {p["x"]["units"] for p in points if "activation" in p["x"]}
    assert {"a", "b", "c"} == {p["x"]["slopes"][0] for p in points if "slopes" in p["x"]}


@pytest.mark.parametrize("place", [EVEN, [{"y": EVEN}], [0, {"y": [EVEN]}]])
def test_corners_reach_both_ends_of_each_range(place: Any) -> None:
    def numbers(value: Any) -> list[float]:
        if isinstance(value, dict | list):
            below = value.values() if isinstance(value, dict) else value
            return [number for item in below for number in numbers(item)]
        return [value] if isinstance(value, float) else []

    values = [n for point in corners(space(x=place)) for n in numbers(point)]
    assert (min(values), max(values)) == pytest.approx((-1, 1), abs=0.01)


def test_the_number_of_corners_grows_with_values_and_not_with_combinations() -> None:
    many = space(**{f"x{i}": list(range(10)) for i in range(50)})
    assert sum(1 for _ in corners(many)) == 2 * (1 + 50 * 9)


# Keys --------------------------------------------------------------------------------------------


def test_the_keys_that_vary_have_more_than_one_value() -> None:
    some = space(a=[1], b=[1, 2], c=EVEN, d=[{"e": {"values": [1, 2]}}], f=[{"e": 1}])
    assert varied_keys(some) == ["b", "c", "d"]
    assert varied_keys(space(a=[1], b={"value": 2})) == ["a", "b"]


def test_drawing_a_single_value_does_not_use_the_dice() -> None:
    class UnusedDice:
        def index(self, name: str, choice: Choice) -> int:
            raise AssertionError(name)

        def unit(self, name: str) -> float:
            raise AssertionError(name)

    assert draw(space(a=[[1]], b={"value": 3}), UnusedDice()) == {"a": [1], "b": 3}


def test_each_decision_has_a_unique_name() -> None:
    names: list[str] = []

    class Notes(RandomSampler):
        def index(self, name: str, choice: Choice) -> int:
            names.append(name)
            return len(choice.values) - 1

        def unit(self, name: str) -> float:
            names.append(name)
            return 0.5

    draw(space(x=LAYERS, y=[EVEN]), Notes(0))
    assert names == ["x", "x[1].units", "x[1].slopes.0", "x[1].slopes.0[1]", "y[0]"]
