"""Tries changes of a configuration on its untrained network, to offer only cures that help.

Each candidate is diagnosed like the network itself: the same seed and the same examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nnctl.config import Config, replaced, to_mapping
from nnctl.diagnosis.base import Diagnosis, layer_key
from nnctl.diagnosis.network import (
    check_config,
    diagnose_initialization,
    init_keys,
    initial_health,
)
from nnctl.text import enumeration

Change = tuple[str, Mapping[str, Any]]
"""A change in words, and its values by dotted key."""

_ACTIVATIONS = ("relu", "leaky_relu", "tanh")
"""Activations to try in all hidden layers, in this order."""

_TRIED = {
    "dead units",
    "exploding gradients",
    "faint activations",
    "overflow",
    "saturation",
    "vanishing gradients",
}
"""Problems that depend on the initial weights, the activations and the number of layers."""

_NOTHING = (
    "change network.layers: neither another init, nor relu, leaky_relu or tanh, nor fewer layers "
    "remove this problem"
)


def with_tried_cures(config: Config, pixels: int, problems: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Return the problems of an untrained network with cures that were tried on this network.

    The cure of a problem is the first change that removes the problem and causes no other.

    Parameters
    ----------
    config : Config
        Configuration of the network.
    pixels : int
        Number of its inputs.
    problems : sequence of Diagnosis
        Problems from `check_config` and `diagnose_initialization`.
    """
    kinds = {problem.kind for problem in problems}
    uncured = kinds & _TRIED
    cures = dict.fromkeys(uncured, _NOTHING)
    for words, values in _changes(config):
        if not uncured:
            break
        changed = replaced(config, values)
        measured = diagnose_initialization(changed, initial_health(changed, pixels))
        left = {problem.kind for problem in (*check_config(changed), *measured)}
        if left <= kinds:  # a change that causes another problem is not a cure
            cures |= dict.fromkeys(uncured - left, words)
            uncured &= left
    return [replace(one, cure=cures.get(one.kind, one.cure)) for one in problems]


def _changes(config: Config) -> Iterator[Change]:
    """Yield the changes to try, the smallest first."""
    *hidden, output = to_mapping(config)["network"]["layers"]
    init = init_keys(config)
    words = [f"set {enumeration([f'{key}: auto' for key in init])}"] if init else []
    values: dict[str, Any] = dict.fromkeys(init, "auto")
    if init:
        yield words[0], values
    used = {layer.activation.name for layer in config.network.layers[:-1]}
    for name in _ACTIVATIONS:
        if used - {name}:
            numbers = range(1, len(hidden) + 1)
            activations = {layer_key(number, "activation"): name for number in numbers}
            use = f"use {name} in all hidden layers of network.layers"
            yield " and ".join([*words, use]), values | activations
    if init:
        values = {"network.init": "auto"}
        hidden, output = [{**layer, "init": None} for layer in hidden], {**output, "init": None}
    for count in range(len(hidden) - 1, 0, -1):
        keep = f"keep only {count} of the {len(hidden)} hidden layers of network.layers"
        fewer = {"network.layers": [*hidden[:count], output]}
        yield " and ".join([*words, keep]), values | fewer
