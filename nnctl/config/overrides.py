"""``KEY=VALUE`` from the command line, laid over a configuration before it is checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nnctl.config.reader import MAX_DEPTH, Document, Path_, read_value
from nnctl.errors import ConfigError, UsageError

_INDEX = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class Override:
    """One value to set.

    Parameters
    ----------
    key : str
        Dotted; a list's item by its index: ``network.layers.0.units``.
    value : object
        What YAML could say there.
    source : str
        What the user typed, for messages: ``--set network.layers.0.units=100``.
    """

    key: str
    value: Any
    source: str

    @classmethod
    def parse(cls, text: str, option: str = "--set") -> Override:
        """Read ``KEY=VALUE``, where the value is YAML.

        Raises
        ------
        UsageError
            There is no ``=``, or no key before it.
        ConfigError
            The value is not YAML.
        """
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"{option} {text}: expected KEY=VALUE",
                hint=f"For instance: {option} optimizer.learning_rate=0.1",
            )
        source = f"{option} {text}"
        return cls(key.strip(), read_value(value, source), source)

    @property
    def path(self) -> Path_:
        """The keys and indices that the dotted key stands for."""
        parts = self.key.split(".")
        return tuple(int(part) if _INDEX.fullmatch(part) else part for part in parts)


def apply_overrides(document: Document, overrides: Iterable[Override]) -> None:
    """Set each value in turn, in place; a mapping that is missing on the way is made.

    Raises
    ------
    ConfigError
        A key leads into a value that has no keys, or past the end of a list.
    """
    mistakes = []
    for override in overrides:
        try:
            _set(document, override)
        except ValueError as error:
            mistakes.append(f"{override.source}: {error}")
    if mistakes:
        raise ConfigError(document.source, mistakes)


def _set(document: Document, override: Override) -> None:
    container: Any = document.data
    path = override.path
    if len(path) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    for depth, step in enumerate(path):
        _check_step(container, path[:depth], step)
        if depth == len(path) - 1:
            container[step] = override.value
            break
        if isinstance(step, str) and container.get(step) is None:
            container[step] = {}
            document.keys[path[: depth + 1]] = document.values[path[: depth + 1]] = override.source
        container = container[step]
    # What stood below is gone, and so is its place.
    for places in (document.keys, document.values):
        for below in [old for old in places if old[: len(path)] == path]:
            del places[below]
        places[path] = override.source


def _check_step(container: Any, so_far: Path_, step: str | int) -> None:
    where = ".".join(map(str, so_far)) or "the configuration"
    if isinstance(container, list):
        items = f"its items are 0 to {len(container) - 1}" if container else "it is empty"
        if not isinstance(step, int) or step >= len(container):
            raise ValueError(f"{where} is a list and has no item '{step}'; {items}")
    elif not isinstance(container, dict):
        raise ValueError(f"{where} is {container!r}, which has no key '{step}'")
    elif isinstance(step, int):
        raise ValueError(f"{where} is no list, and has no item {step}")
