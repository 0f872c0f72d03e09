"""Checks that the values read from a file have the expected types, before any of them is used.

A checksum detects damage, but not a file that was written by hand: its author can compute the
checksum, too. So the type of every value is checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from nnctl.config.schema import MAX_WHOLE
from nnctl.errors import DataError

Check = Callable[[Any], bool]
"""Returns whether a plain value has the expected type."""

_DEEPEST = 50  # levels of nested lists and mappings; no file of nnctl has more
_MOST_BITS = 128  # largest integers: the state of a random generator
_LARGEST = 1e100  # far more than any quotient of two 32-bit floats


def parse(text: str | bytes, *, halves: bool = False) -> Any:
    """Return the value of a JSON text.

    Parameters
    ----------
    text : str or bytes
        JSON text.
    halves : bool
        Whether strings may contain lone surrogates, as names of folders that are not valid Unicode
        do.

    Raises
    ------
    ValueError
        The text is not JSON, is nested too deeply, or contains a value that nnctl does not write: a
        number that is not finite, an integer that is too large, or a lone surrogate.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for one in level:
            match one:
                case dict():
                    below += [*one.keys(), *one.values()]
                case list():
                    below += one
                case str() if not halves:
                    one.encode()
                case float() if not math.isfinite(one):
                    raise ValueError("it holds a number that is not finite")
                case int() if one.bit_length() > _MOST_BITS:
                    raise ValueError("it holds a number that is too large")
        if not below:
            return value
        level = below
    raise ValueError("it is nested too deeply")


def check_version(path: object, version: Any, known: int) -> None:
    """Check that a file has the format version that this program reads.

    Raises
    ------
    DataError
        The version is different or missing.
    """
    if version != known or not is_count(version):
        raise DataError(
            f"{path} has format version {str(version)[:20]}; this nnctl reads {known}",
            hint="Install the version of nnctl that wrote it.",
        )


def is_text(value: Any) -> bool:
    """Return whether a value is a string."""
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    """Return whether a value is a number, finite and not extremely large."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= _LARGEST


def is_count(value: Any) -> bool:
    """Return whether a value is an integer from 0 to the largest that a configuration allows."""
    return type(value) is int and 0 <= value <= MAX_WHOLE


def is_positive(value: Any) -> bool:
    """Return whether a value is an integer from 1; see `is_count`."""
    return is_count(value) and value > 0


def is_share(value: Any) -> bool:
    """Return whether a value is a number from 0 to 1."""
    return is_number(value) and 0 <= value <= 1


def is_mapping(value: Any) -> bool:
    """Return whether a value is a mapping."""
    return isinstance(value, dict)


def one_of(*known: object) -> Check:
    """Return a check for one of the given values."""
    return lambda value: value in known


def optional(check: Check) -> Check:
    """Return a check that also accepts null."""
    return lambda value: value is None or check(value)


def each(check: Check) -> Check:
    """Return a check for a list whose items all pass a check."""
    return lambda value: isinstance(value, list) and all(map(check, value))


def all_values(check: Check) -> Check:
    """Return a check for a mapping whose values all pass a check."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def record(
    keys: Mapping[str, Check], maybe: Mapping[str, Check] | None = None, *, closed: bool = False
) -> Check:
    """Return a check for a mapping with certain keys.

    Parameters
    ----------
    keys : mapping of str to callable
        Required keys, each with the check of its value.
    maybe : mapping of str to callable, optional
        Optional keys, each with the check of its value.
    closed : bool
        Whether other keys are forbidden.
    """
    known = {**(maybe or {}), **keys}

    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and value.keys() >= keys.keys()
            and (not closed or value.keys() <= known.keys())
            and all(fits(value[key]) for key, fits in known.items() if key in value)
        )

    return check
