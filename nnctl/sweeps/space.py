"""The search space of a sweep, and its points: drawn at random, suggested, or all combinations.

Each range has a quantile function, which maps a number between 0 and 1 to a value. So a sampler
only has to draw such numbers, uniformly or not, to draw from any range.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np

from nnctl.config.sweeps import Choice, Constant, Range, varies

Params = dict[str, Any]
"""A value for each key that varies."""


def to_key(value: Any) -> str:
    """Return a text that is equal for equal points or values, which may be lists and mappings."""
    return json.dumps(value, sort_keys=True)


Space = Mapping[str, Choice | Range]
"""Values or range of each dotted key."""


class Sampler(Protocol):
    """Sampler: decides each choice and each number; `name` identifies the decision."""

    def index(self, name: str, choice: Choice) -> int:
        """Return the index of one value of a choice."""

    def unit(self, name: str) -> float:
        """Return a number from 0 to 1."""


class RandomSampler:
    """Sampler that draws at random, from a seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def index(self, name: str, choice: Choice) -> int:
        """Return a random index, by the probabilities of the values."""
        return int(self._rng.choice(len(choice.values), p=choice.probabilities))

    def unit(self, name: str) -> float:
        """Return a uniform random number from 0 to 1."""
        return float(self._rng.random())


def draw(space: Space, sampler: Sampler) -> Params:
    """Return a point of the search space."""
    return {key: _draw(spec, sampler, key) for key, spec in space.items()}


def _draw(value: Any, sampler: Sampler, name: str) -> Any:
    match value:
        case Range():
            return quantile(value, sampler.unit(name))
        case Constant():
            return value.value
        case Choice():
            index = 0 if len(value.values) == 1 else sampler.index(name, value)
            return _draw(value.values[index], sampler, f"{name}[{index}]")
        case dict():
            return {key: _draw(below, sampler, f"{name}.{key}") for key, below in value.items()}
        case list():
            return [_draw(item, sampler, f"{name}.{i}") for i, item in enumerate(value)]
    return value


def quantile(drawn_from: Range, share: float) -> float | int:
    """Return a quantile of a range: the number that the given share of all draws is below.

    Parameters
    ----------
    drawn_from : Range
        Distribution.
    share : float
        Cumulative probability, from 0 to 1.
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
    return _multiple(value, drawn_from.q) if drawn_from.is_quantized else value


def _multiple(value: float, q: float) -> float | int:
    """Return the nearest multiple of q; it is an integer if q is one."""
    if q.is_integer():
        return round(value / q) * int(q)
    if abs(value / q) > 2**53:  # q is below the precision of the value
        return value
    return float(f"{round(value / q) * q:.12g}")


def combinations(space: Space, most: int) -> Iterator[Params]:
    """Yield the first points of a grid; the last key varies fastest.

    Parameters
    ----------
    space : mapping
        Search space without ranges, except ranges of integers.
    most : int
        Maximum number of points.
    """
    for values in _product(space.values(), most):
        yield dict(zip(space, values, strict=True))


def _product(parts: Iterable[Any], most: int) -> Iterator[tuple[Any, ...]]:
    """Yield the first combinations of the values of all parts."""
    values = [list(itertools.islice(_all(part, most), most)) for part in parts]
    return itertools.islice(itertools.product(*values), most)


def _all(value: Any, most: int) -> Iterator[Any]:
    """Yield all values that can be chosen, or at least `most` of them."""
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
    """Return the number of points of a grid; equal points count several times."""
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


def corners(space: Space) -> Iterator[Params]:
    """Yield points that together have each value of each choice and both ends of each range."""
    for share in (0.001, 0.999):  # near the ends, as a normal distribution has no ends
        known: set[str] = set()
        indices: list[dict[str, int]] = [{}]
        while indices:
            sampler = _CornerSampler(indices.pop(0), share)
            yield draw(space, sampler)
            for name, count in sampler.counts.items():
                if name not in known:  # of the first point, or nested in the value that changed
                    known.add(name)
                    indices += [{**sampler.indices, name: index} for index in range(1, count)]


class _CornerSampler:
    """Sampler that takes the first value of each choice unless `indices` has another index."""

    def __init__(self, indices: dict[str, int], share: float) -> None:
        self.indices = indices
        self.counts: dict[str, int] = {}
        self._share = share

    def index(self, name: str, choice: Choice) -> int:
        self.counts[name] = len(choice.values)
        return self.indices.get(name, 0)

    def unit(self, name: str) -> float:
        return self._share


def varied_keys(space: Space) -> list[str]:
    """Return the keys that have more than one value, or all keys if none has."""
    varied = [key for key, spec in space.items() if varies(spec)]
    return varied or list(space)


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return the shortest suffixes of dotted keys that are still unique."""
    parts = [key.split(".") for key in keys]
    short = []
    for part in parts:
        length = 2 if part[-1].isdecimal() else 1
        while length < len(part) and sum(part[-length:] == other[-length:] for other in parts) > 1:
            length += 1
        short.append(".".join(part[-length:]))
    return short
