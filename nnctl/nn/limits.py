"""Limits of the parameters of activations, initializers and schedules, declared with each field."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value", int, float)


def limited(default: Value, limits: str, are_kept: Callable[[Value], bool]) -> Value:
    """Return a field of a `Limited` class.

    Parameters
    ----------
    default : int or float
        Default value.
    limits : str
        Limits in words, after "must": ``"be above 0"``.
    are_kept : callable
        Function that returns whether a value keeps them.
    """
    metadata = {"limits": limits, "are_kept": are_kept}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Limited:
    """Base of dataclasses with `limited` fields: a value outside the limits is a ValueError."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata and not field.metadata["are_kept"](value):
                shown = value if isinstance(value, int) else f"{value:g}"
                raise ValueError(f"{field.name} must {field.metadata['limits']}, got {shown}")
