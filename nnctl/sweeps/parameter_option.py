"""Reads the option ``-p KEY=V1,V2,...``: the values of a key, or the range to draw them from."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from nnctl.config import Document
from nnctl.config.loader import validate
from nnctl.config.reader import read_value
from nnctl.config.sweeps import Range, SweepConfig
from nnctl.errors import UsageError

MOST_POINTS = 100_000
"""Maximum number of points of a sweep, and of values of an option."""
_DISTRIBUTIONS = {"lin": "uniform", "log": "log_uniform_values", "int": "int_uniform"}
_RANGE = re.compile(rf"({'|'.join(_DISTRIBUTIONS)}):(.*)")


def read_values(text: str) -> tuple[str, list[Any] | Range]:
    """Read ``KEY=V1,V2,...`` and return the key with its list of values or its range.

    Values are items of a YAML list. ``log:0.001:1:7`` stands for seven values from 0.001 to 1,
    evenly spaced in the logarithm; ``lin:`` is evenly spaced, and ``int:`` rounds to integers.
    Without a count, as in ``log:0.001:1``, values are drawn from the range.

    Raises
    ------
    UsageError, ConfigError
        The text does not have this form, or a value is not valid.
    """
    source = f"-p {text}"
    key, equals, listed = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UsageError(
            f"{source}: expected KEY=V1,V2,...",
            hint="Example: -p optimizer.learning_rate=0.1,0.5",
        )
    values = read_value(f"[{listed}]", source)
    if not values:
        raise UsageError(f"{source}: expected KEY=V1,V2,..., got an empty list of values")
    expanded: list[Any] = []
    for value in values:
        match = _RANGE.fullmatch(value) if isinstance(value, str) else None
        if not match:
            expanded.append(value)
            continue
        low, high, count = _read_range(match[1], match[2], source)
        limits = {"distribution": _DISTRIBUTIONS[match[1]], "min": low, "max": high}
        value_range = _checked(key, limits, source)
        if count is not None:
            expanded += _spaced(match[1], low, high, count)
        elif len(values) > 1:
            raise UsageError(f"{source}: a range in a list needs a count, such as {value}:5")
        else:
            return key, value_range
    return key, _checked(key, expanded, source)


def _checked(key: str, written: Any, source: str) -> Any:
    """Validate the values of a key like those of a sweep file; return a list or range."""
    document = Document(source, {"parameters": {key: written}})
    return validate(SweepConfig, document, ()).parameters[key]


def _read_range(kind: str, limits: str, source: str) -> tuple[float, float, int | None]:
    """Return the numbers of ``LOW:HIGH:COUNT``; a missing count is None."""
    try:
        low, high, *counts = limits.split(":")
        (count,) = map(int, counts) if counts else (None,)
        numbers = float(low), float(high)
    except ValueError:
        raise UsageError(
            f"{source}: expected {kind}:LOW:HIGH or {kind}:LOW:HIGH:COUNT, two numbers and an "
            "integer"
        ) from None
    if count is not None and not 2 <= count <= MOST_POINTS:
        raise UsageError(f"{source}: expected a COUNT from 2 to {MOST_POINTS:,}, got {count}")
    return *numbers, count


def _spaced(kind: str, low: float, high: float, count: int) -> list[float] | list[int]:
    """Return evenly spaced numbers; for ``int`` fewer, if there are not enough integers."""
    if kind == "int":
        return list(dict.fromkeys(int(n) for n in np.linspace(low, high, count).round()))
    spaced = np.geomspace if kind == "log" else np.linspace
    numbers = [float(f"{number:.12g}") for number in spaced(low, high, count)]
    if all(number.is_integer() for number in numbers):  # such as batch sizes
        return [int(number) for number in numbers]
    return numbers
