"""Overrides (``KEY=VALUE`` on the command line), applied before a configuration is checked."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nnctl.config.reader import MAX_DEPTH, Document, KeyPath, read_value
from nnctl.errors import ConfigError, UsageError

_INDEX = re.compile("[0-9]{1,9}")


@dataclass(frozen=True)
class Override:
    """A value to set at a key.

    Parameters
    ----------
    key : str
        Dotted key, with the index of an item in a list: ``network.layers.0.units``.
    value : object
        Plain value, of a type that YAML has.
    source : str
        Text that the user typed, for messages: ``--set network.layers.0.units=100``.
    """

    key: str
    value: Any
    source: str

    @classmethod
    def parse(cls, text: str, option: str = "--set") -> Override:
        """Parse ``KEY=VALUE``, where the value is YAML.

        Raises
        ------
        UsageError
            The ``=``, or the key before it, is missing.
        ConfigError
            The value is not valid YAML.
        """
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"{option} {text}: expected KEY=VALUE",
                hint=f"Example: {option} optimizer.learning_rate=0.1",
            )
        source = f"{option} {text}"
        return cls(key.strip(), read_value(value, source), source)

    @property
    def path(self) -> KeyPath:
        """The dotted key as a tuple of keys and indices."""
        parts = self.key.split(".")
        return tuple(int(part) if _INDEX.fullmatch(part) else part for part in parts)


def apply_overrides(document: Document, overrides: Iterable[Override]) -> None:
    """Set the values in the document, in order.

    Missing mappings are created, also in place of true and false, as of ``batch_norm: true``. The
    index after the last item of a list adds an item.

    Raises
    ------
    ConfigError
        A key does not fit the document: its parent is not a mapping, or its index is out of range.
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
        if isinstance(container, list) and step == len(container):
            container.append(None)
        elif isinstance(container, dict):
            container.setdefault(step, None)
        if depth == len(path) - 1:
            container[step] = override.value
            break
        if container[step] is None or isinstance(container[step], bool):
            container[step] = {}
            document.keys[path[: depth + 1]] = document.values[path[: depth + 1]] = override.source
        container = container[step]
    # The replaced value took its children with it, so their positions are removed as well.
    for positions in (document.keys, document.values):
        for below in [old for old in positions if old[: len(path)] == path]:
            del positions[below]
        positions[path] = override.source


def _check_step(container: Any, parent: KeyPath, step: str | int) -> None:
    """Raise a ValueError if a container cannot have a key or an index."""
    where = ".".join(map(str, parent)) or "the configuration"
    if isinstance(container, list):
        valid = f"valid indices are 0 to {len(container) - 1}" if container else "it is empty"
        if not isinstance(step, int) or step > len(container):
            raise ValueError(
                f"{where} is a list without an item '{step}'; {valid}, and {len(container)} adds "
                "an item"
            )
    elif not isinstance(container, dict):
        raise ValueError(
            f"{where} is not a mapping and has no key '{step}'; its value is {container!r}"
        )
    elif isinstance(step, int):
        raise ValueError(f"{where} is not a list and has no item {step}")
