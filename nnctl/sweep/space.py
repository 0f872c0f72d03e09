"""The points of a sweep: which values its keys take, drawn one by one or all combined.

Each range is a function of one number between 0 and 1, its quantile function; so whoever draws such
numbers, evenly or with a preference, draws from all of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np

from nnctl.config.sweeps import Choice, Constant, Range, varies

Point = dict[str, Any]
"""A value for each key that varies."""

Space = Mapping[str, Choice | Range]
"""By dotted key, what its values are drawn from."""


class Dice(Protocol):
    """What decides where there is a choice; the name tells which choice it is."""

    def index(self, name: str, choice: Choice) -> int:
        """Return the index of one of the values of a choice."""

    def unit(self, name: str) -> float:
        """Return a number from 0 to 1."""


class RandomDice:
    """Decides at random, by a seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def index(self, name: str, choice: Choice) -> int:
        """Return an index by the probabilities of the values."""
        return int(self._rng.choice(len(choice.values), p=choice.probabilities))

    def unit(self, name: str) -> float:
        """Return a number from 0 to 1, evenly."""
        return float(self._rng.random())


def draw(space: Space, dice: Dice) -> Point:
    """Return a point."""
    return {key: _draw(spec, dice, key) for key, spec in space.items()}


def _draw(value: Any, dice: Dice, name: str) -> Any:
    match value:
        case Range():
            return quantile(value, dice.unit(name))
        case Constant():
            return value.value
        case Choice():
            index = 0 if len(value.values) == 1 else dice.index(name, value)
            return _draw(value.values[index], dice, f"{name}[{index}]")
        case dict():
            return {key: _draw(below, dice, f"{name}.{key}") for key, below in value.items()}
        case list():
            return [_draw(item, dice, f"{name}.{i}") for i, item in enumerate(value)]
    return value


def quantile(drawn_from: Range, share: float) -> float | int:
    """Return the number that a share of all draws from a range is below.

    Parameters
    ----------
    drawn_from : Range
        The distribution.
    share : float
        From 0 to 1.
    """
    match drawn_from.shape:
        case "uniform":
            low, high = drawn_from.bounds
            value = low + share * (high - low)
        case "int_uniform":
            low, high = map(int, drawn_from.bounds)
            return min(low + int(share * (high - low + 1)), high)
        case "log_uniform_values":
            low, high = drawn_from.bounds
            value = math.log(low) + share * (math.log(high) - math.log(low))
            value = min(max(math.exp(value), low), high)
        case "log_uniform":
            low, high = drawn_from.bounds
            value = math.exp(low + share * (high - low))
        case shape:
            inside = min(max(share, 1e-9), 1 - 1e-9)
            value = NormalDist(drawn_from.mu, drawn_from.sigma).inv_cdf(inside)
            value = math.exp(min(value, 700)) if shape == "log_normal" else value
    return _multiple(value, drawn_from.q) if drawn_from.is_quantised else value


def _multiple(value: float, q: float) -> float | int:
    """Return the nearest multiple of q: a whole number where q is one."""
    if q.is_integer():
        return round(value / q) * int(q)
    if abs(value / q) > 2**53:  # a float has no digits left for what is below q
        return value
    return float(f"{round(value / q) * q:.12g}")


def combinations(space: Space, most: int) -> Iterator[Point]:
    """Yield the first combinations of the values; the last key varies fastest.

    Parameters
    ----------
    space : mapping
        Without ranges, except of whole numbers.
    most : int
        How many at most.
    """
    for values in _product(space.values(), most):
        yield dict(zip(space, values, strict=True))


def _product(parts: Iterable[Any], most: int) -> Iterator[tuple[Any, ...]]:
    """Yield the first combinations of what can be chosen in each part."""
    some = [list(itertools.islice(_all(part, most), most)) for part in parts]
    return itertools.islice(itertools.product(*some), most)


def _all(value: Any, most: int) -> Iterator[Any]:
    """Yield every value that can be chosen, or no fewer than `most` of them."""
    match value:
        case Range():
            low, high = map(int, value.bounds)
            yield from range(low, high + 1)
        case Constant():
            yield value.value
        case Choice():
            for below in value.values:
                yield from _all(below, most)
        case dict():
            for items in _product(value.values(), most):
                yield dict(zip(value, items, strict=True))
        case list():
            yield from map(list, _product(value, most))
        case _:
            yield value


def count_combinations(space: Space) -> int:
    """Return how many points a grid has, equal ones counted each time."""
    return math.prod(map(_count, space.values()))


def _count(value: Any) -> int:
    match value:
        case Range():
            low, high = map(int, value.bounds)
            return high - low + 1
        case Choice():
            return sum(map(_count, value.values))
        case dict():
            return math.prod(map(_count, value.values()))
        case list():
            return math.prod(map(_count, value))
    return 1


def corners(space: Space) -> Iterator[Point]:
    """Yield points in which each value of each choice, and each end of each range, is once."""
    for share in (0.001, 0.999):  # near the ends: a Gaussian has none
        dice = _Corner({}, share)
        yield draw(space, dice)
        for name, count in dice.seen.items():
            yield from _corners_of(space, {}, name, count, share)


def _corners_of(
    space: Space, chosen: dict[str, int], name: str, count: int, share: float
) -> Iterator[Point]:
    """Yield points with each of the values of a choice, and of those that are within it."""
    for index in range(count):
        dice = _Corner({**chosen, name: index}, share)
        yield draw(space, dice)
        within = {
            below: many
            for below, many in dice.seen.items()
            if below.startswith(f"{name}[{index}]") and below != name
        }
        for below, many in within.items():
            yield from _corners_of(space, {**chosen, name: index}, below, many, share)


class _Corner:
    """Decides for the first value, except where it was told another, and for one end of ranges."""

    def __init__(self, chosen: dict[str, int], share: float) -> None:
        self._chosen = chosen
        self._share = share
        self.seen: dict[str, int] = {}

    def index(self, name: str, choice: Choice) -> int:
        self.seen[name] = len(choice.values)
        return self._chosen.get(name, 0)

    def unit(self, name: str) -> float:
        return self._share


def varied_keys(space: Space) -> list[str]:
    """Return the keys that have more than one value; all of them, if none has."""
    varied = [key for key, spec in space.items() if varies(spec)]
    return varied or list(space)


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return the shortest ends of dotted keys that still tell each from the others."""
    parts = [key.split(".") for key in keys]
    short = []
    for own in parts:
        length = 2 if own[-1].isdecimal() else 1
        while length < len(own) and sum(own[-length:] == other[-length:] for other in parts) > 1:
            length += 1
        short.append(".".join(own[-length:]))
    return short
