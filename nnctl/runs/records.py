"""What files may say: plain values held against what they should be, before anything uses them.

A checksum tells what was damaged, not what was made by hand: whoever can write a file can write its
checksum. So every value that was read is checked for its kind before the first one is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from nnctl.config.schema import MAX_WHOLE
from nnctl.errors import DataError

Check = Callable[[Any], bool]
"""Tells whether a plain value is of a kind."""

_DEEPEST = 50  # levels of lists and mappings: more than any file of ours has
_MOST_BITS = 128  # of a whole number: those of the state of a random generator
_LARGEST = 1e100  # far more than any quotient of two floats of 32 bits


def parse(text: str | bytes, *, halves: bool = False) -> Any:
    """Return the plain values of a JSON text.

    Parameters
    ----------
    text : str or bytes
        What was read.
    halves : bool
        Whether it may hold half of a character, as the name of a folder does that is no Unicode.

    Raises
    ------
    ValueError
        It is no JSON, is nested deeper than any of ours, or holds what cannot be written again: a
        number that is not finite or has no end of digits, or half of a character.
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
    """Refuse a file of another format version than the one that is known.

    Raises
    ------
    DataError
        Its version is another, or none.
    """
    if version != known or not is_count(version):
        raise DataError(
            f"{path} has format version {str(version)[:20]}; this nnctl reads {known}",
            hint="Install the version of nnctl that wrote it.",
        )


def is_text(value: Any) -> bool:
    """Tell whether it is text."""
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    """Tell whether it is a number that can be computed with."""
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= _LARGEST


def is_count(value: Any) -> bool:
    """Tell whether it is a whole number from 0, as a configuration may hold."""
    return type(value) is int and 0 <= value <= MAX_WHOLE


def is_positive(value: Any) -> bool:
    """Tell whether it is a whole number from 1."""
    return is_count(value) and value > 0


def is_share(value: Any) -> bool:
    """Tell whether it is a number from 0 to 1."""
    return is_number(value) and 0 <= value <= 1


def is_mapping(value: Any) -> bool:
    """Tell whether it is a mapping, of whatever values."""
    return isinstance(value, dict)


def one_of(*known: object) -> Check:
    """Return whether it is one of some values."""
    return lambda value: value in known


def optional(check: Check) -> Check:
    """Return whether it is of a kind, or null."""
    return lambda value: value is None or check(value)


def each(check: Check) -> Check:
    """Return whether it is a list, all of one kind."""
    return lambda value: isinstance(value, list) and all(map(check, value))


def all_values(check: Check) -> Check:
    """Return whether it is a mapping, all of whose values are of one kind."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def record(
    keys: Mapping[str, Check], maybe: Mapping[str, Check] | None = None, *, closed: bool = False
) -> Check:
    """Return whether it is a mapping with values of some kinds.

    Parameters
    ----------
    keys : mapping of str to callable
        The kind of the value of each key that must be there.
    maybe : mapping of str to callable, optional
        The same of those that need not be there.
    closed : bool
        Whether no other key may be there.
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
