"""Several runs beside each other: in what they differ, and whether by more than chance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.config import to_mapping
from nnctl.report.portrait import Portrait
from nnctl.runs.comparison import LUCK, mcnemar
from nnctl.runs.plan import flatten


@dataclass(frozen=True)
class Compared:
    """A run beside the best one.

    Parameters
    ----------
    portrait : Portrait
        The run.
    values : list of str
        Of the keys in which the configurations differ.
    only_ours, only_best : int or None
        The test images that this run alone, or the best alone, gets right.
    chance : float or None
        How often chance alone makes so large a difference; None of the best itself, and where they
        were not evaluated on the same images.
    """

    portrait: Portrait
    values: list[str]
    only_ours: int | None = None
    only_best: int | None = None
    chance: float | None = None

    @property
    def is_distinct(self) -> bool:
        """Whether the difference from the best is more than chance."""
        return self.chance is not None and self.chance < LUCK


def rank(portraits: Sequence[Portrait]) -> list[Portrait]:
    """Return runs with the highest validation accuracy first; those without any are the last."""

    def key(portrait: Portrait) -> tuple[float, float]:
        row = portrait.best_row
        return (-row["val_accuracy"], row["val_loss"]) if row else (1.0, 0.0)

    return sorted(portraits, key=key)


def differing_keys(portraits: Sequence[Portrait]) -> list[str]:
    """Return the keys in which configurations differ."""
    flat = [flatten(to_mapping(portrait.config)) for portrait in portraits]
    keys = dict.fromkeys(key for one in flat for key in one)
    return [key for key in keys if len({json.dumps(one.get(key)) for one in flat}) > 1]


@dataclass(frozen=True)
class Comparison:
    """Several runs.

    Parameters
    ----------
    keys : list of str
        In which their configurations differ.
    rows : list of Compared
        The runs, the best first.
    """

    keys: list[str]
    rows: list[Compared]

    def sentence(self, names: Mapping[Path, str]) -> str:
        """Say from which of the others the best run differs by more than chance."""
        best, *others = self.rows
        tested = [row for row in others if row.chance is not None]
        name = names[best.portrait.run.directory]
        if not tested:
            return f"{name} is the best by validation accuracy; no other has its test images."
        if len(tested) == 1:
            return f"{name} is the best by validation accuracy. {_tell_difference(tested[0])}"
        distinct = sum(row.is_distinct for row in tested)
        return (
            f"{name} is the best by validation accuracy. On the test images it differs from "
            f"{distinct} of the other {len(tested)} by more than chance (McNemar's test, p below "
            f"{LUCK:g})."
        )


def _tell_difference(other: Compared) -> str:
    assert other.only_best is not None
    assert other.only_ours is not None
    differing = other.only_best + other.only_ours
    verdict = "more than chance" if other.is_distinct else "no more than chance may do"
    return (
        f"Of the {differing} test images that only one of the two gets right, it gets "
        f"{other.only_best}: {verdict} (McNemar's test, p = {other.chance:.2g})."
    )


def compare(ranked: Sequence[Portrait]) -> Comparison:
    """Return each run beside the first one.

    Parameters
    ----------
    ranked : sequence of Portrait
        See `rank`.
    """
    keys = differing_keys(ranked)
    return Comparison(keys, [_compare(ranked[0], portrait, keys) for portrait in ranked])


def _compare(best: Portrait, portrait: Portrait, keys: Sequence[str]) -> Compared:
    flat = flatten(to_mapping(portrait.config))
    values = [_text(flat[key]) if key in flat else "" for key in keys]
    if portrait is best or best.evaluation is None or portrait.evaluation is None:
        return Compared(portrait, values)
    theirs, ours = best.evaluation.answers, portrait.evaluation.answers
    same_labels = np.array_equal(theirs.labels, ours.labels)
    if not same_labels or not np.array_equal(theirs.images, ours.images):
        return Compared(portrait, values)
    return Compared(
        portrait,
        values,
        only_ours=int(np.count_nonzero(ours.right & ~theirs.right)),
        only_best=int(np.count_nonzero(theirs.right & ~ours.right)),
        chance=mcnemar(ours.right, theirs.right),
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)
