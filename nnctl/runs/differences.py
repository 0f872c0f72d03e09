"""Compares the configurations of a run with each other and with a requested one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnctl.build import most_threads
from nnctl.config import Config, to_mapping
from nnctl.data.dataset import NAMED, canonical_name
from nnctl.errors import DamagedFileError

_MAX_DIFFERENCES = 20  # listed differences between two configurations


def differences(run: Config, requested: Config) -> list[str]:
    """Return a line for each setting that differs from a run's, except the number of epochs.

    ``auto`` values and a fallback of the requested configuration do not count as differences.
    """
    different = differing(run, requested)
    ignored = {"training.epochs", "data.fallback"}
    if requested.data.fallback == run.data.dataset:
        ignored |= {"data.dataset", "data.validation", "data.subset"}
    if canonical_name(requested.data.dataset) == run.data.dataset:
        ignored |= {"data.dataset"}
    threads = requested.training.threads
    if threads != "auto" and min(threads, most_threads(requested)) == run.training.threads:
        ignored |= {"training.threads"}
    return [
        f"{key}: {ours} in the run, {theirs} requested"
        for key, (ours, theirs) in different.items()
        if key not in ignored and theirs != "auto"
    ]


def differing(first: Config, second: Config) -> dict[str, tuple[Any, Any]]:
    """Return both values of each dotted key in which two configurations differ."""
    a, b = settings_of([first, second])
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}


def varied_settings(configs: Iterable[Config]) -> list[dict[str, Any]]:
    """Return, of each configuration, the settings that are not the same in all of them."""
    flat = settings_of(configs)
    keys = dict.fromkeys(key for values in flat for key in values)
    varied = [key for key in keys if any(v.get(key) != flat[0].get(key) for v in flat)]
    return [{key: values.get(key) for key in varied} for values in flat]


def settings_of(configs: Iterable[Config]) -> list[dict[str, Any]]:
    """Return the value of each dotted key of several configurations.

    A name stands under ``KEY.name`` in all of them if it has parameters in one of them.
    """
    flat = [flatten(to_mapping(config)) for config in configs]
    keys = {key for values in flat for key in values}
    return [
        {f"{key}.name" if f"{key}.name" in keys else key: v for key, v in values.items()}
        for values in flat
    ]


def require_same(
    actual: Config,
    path: Path,
    expected: Config,
    source: Path | str,
    *,
    exact: bool = False,
    hint: str | None = None,
) -> None:
    """Check that a file of a run has the expected configuration.

    Parameters
    ----------
    actual : Config
        Configuration in the file.
    path : Path
        Path of the file.
    expected : Config
        Expected configuration.
    source : Path or str
        Source of the expected configuration, for the message.
    exact : bool
        Whether no value may differ, not even the number of epochs and the folder of the dataset. A
        run can be extended by epochs, and the folder can be moved, since the SHA-256 hashes of the
        dataset's files are compared before they are used.
    hint : str, optional
        Hint of the error.

    Raises
    ------
    DamagedFileError
        The configurations differ; the message lists both values of each key that differs.
    """
    ignored = set() if exact else {"training.epochs"}
    if not exact and not {actual.data.dataset, expected.data.dataset} & {*NAMED}:
        ignored.add("data.dataset")
    different = [
        f"{key}: {ours} in {path.name}, {theirs} in {Path(source).name}"
        for key, (ours, theirs) in differing(actual, expected).items()
        if key not in ignored
    ]
    if different:
        lines = [f"{path} does not match {source}; differences:", *different[:_MAX_DIFFERENCES]]
        if more := different[_MAX_DIFFERENCES:]:
            lines.append(f"... and {len(more):,} more")
        raise DamagedFileError("\n  ".join(lines), hint=hint)


def flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings and lists, by dotted key."""
    if not isinstance(value, Mapping | list):
        return {key: value}
    items: Iterable[tuple[Any, Any]]
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    leaves: dict[str, Any] = {}
    for step, below in items:
        leaves |= flatten(below, f"{key}.{step}".lstrip("."))
    return leaves
