"""What a sweep varies: read, checked at every point, and made into trials."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.config import (
    Config,
    Document,
    Override,
    apply_overrides,
    read_file,
    replaced,
    to_mapping,
)
from nnctl.config.schema import DataConfig
from nnctl.config.sweeps import Range, SweepConfig, load_sweep, with_nested
from nnctl.data.dataset import Dataset
from nnctl.errors import ConfigError, UsageError, shell_command
from nnctl.runs.plan import Notify, find_dataset, resolve_config, settle
from nnctl.sweep.space import (
    Point,
    RandomDice,
    combinations,
    corners,
    count_combinations,
    draw,
)
from nnctl.sweep.trials import Trial

MOST_POINTS = 100_000
_RANGE = re.compile(r"(lin|log|int):(.*)")


@dataclass(frozen=True)
class Plan:
    """What a sweep varies.

    Parameters
    ----------
    base : Document
        The training configuration, with what the command line laid over it.
    sweep : SweepConfig
        The keys and their values.
    places : mapping of str to str
        Where each key was written, for messages: ``sweep.yaml:9:3``, or ``-p``.
    """

    base: Document
    sweep: SweepConfig
    places: Mapping[str, str]

    def points(self) -> Iterator[Point]:
        """Yield the points that are known before the sweep begins; of tpe, none."""
        space, most = self.sweep.space, self.sweep.most
        match self.sweep.method:
            case "grid":
                yield from itertools.islice(combinations(space), most)
            case "random":
                dice = RandomDice(self.sweep.seed)
                yield from (draw(space, dice) for _ in range(most or 0))

    def config_at(self, point: Point) -> Config:
        """Return the configuration at a point.

        Raises
        ------
        ConfigError
            It has mistakes.
        """
        values = [
            Override(key, value, f"{self.places.get(key, '-p')} {key}={value}")
            for key, value in point.items()
        ]
        config = resolve_config(copy.deepcopy(self.base), values)
        if config.data.validation == 0:
            raise ConfigError(
                self.base.source,
                [
                    f"{self.base.source}: trials are ranked by {self.sweep.ranked_by}; "
                    "set data.validation"
                ],
            )
        return config

    def checked_points(self) -> list[tuple[Point, Config]]:
        """Return the points with their configurations, each of these once.

        Those of tpe are not known yet: its points are some with each value of each choice, and near
        each end of each range.

        Raises
        ------
        ConfigError
            With the mistakes of all points.
        UsageError
            There are too many.
        """
        sweep = self.sweep
        count = count_combinations(sweep.space) if sweep.method == "grid" else sweep.most or 0
        if min(count, sweep.most or count) > MOST_POINTS:
            raise UsageError(
                f"the sweep has {count:,} points; at most {MOST_POINTS:,} are possible",
                hint="Vary fewer keys, or draw some of the points: method: random.",
            )
        checked: dict[str, tuple[Point, Config]] = {}
        mistakes: list[str] = []
        for point in corners(sweep.space) if sweep.method == "tpe" else self.points():
            try:
                config = self.config_at(point)
            except ConfigError as error:
                mistakes += error.mistakes
            else:
                checked.setdefault(config.model_dump_json(), (point, config))
        if mistakes:
            raise ConfigError(self.base.source, list(dict.fromkeys(mistakes)))
        return list(checked.values())

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "sweep": self.sweep.model_dump(mode="json", exclude_unset=True),
            "base": self.base.data,
            "source": self.base.source,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Return a plan from plain values."""
        base = Document(data["source"], dict(data["base"]))
        return cls(base, SweepConfig.model_validate(data["sweep"]), {})


class TrialMaker:
    """Makes trials of points; their datasets are found once each.

    Parameters
    ----------
    data_dir : Path, optional
        Where the datasets are.
    notify : callable
        Takes the events of a download.
    """

    def __init__(self, data_dir: Path | None, notify: Notify) -> None:
        self._data_dir = data_dir
        self._notify = notify
        self._datasets: dict[DataConfig, Dataset] = {}

    def fetch(self, checked: Iterable[tuple[Point, Config]]) -> None:
        """Find the datasets of configurations, so that none is missed when a trial is made.

        Raises
        ------
        DataError
            One cannot be had.
        """
        for _, config in checked:
            self._find(config.data)

    def make(self, home: Path, number: int, point: Point, config: Config, seed: int) -> Trial:
        """Return a trial of a point, with a directory in the sweep's.

        A configuration that leaves the threads open gets one: the workers share the cores.

        Raises
        ------
        DataError
            Its dataset cannot be had.
        """
        dataset = self._find(config.data)
        settled = self._settled(config, seed, dataset)
        directory = home / trial_name(number)
        name, text = _identity(settled), json.dumps(settled)
        return Trial(number, name, point, seed, text, dataset, directory)

    def identity(self, config: Config) -> str:
        """Return what a trial is known by: the beginning of its configuration's SHA-256."""
        settled = self._settled(config, config.training.seed, self._find(config.data))
        return _identity(settled)

    def restore(self, home: Path, planned: Mapping[str, Any]) -> Trial:
        """Return a trial that a journal tells of; see `make`."""
        return Trial(
            number=planned["trial"],
            id=planned["id"],
            point=planned["parameters"],
            seed=planned["seed"],
            config=json.dumps(planned["config"]),
            dataset=self._find(DataConfig.model_validate(planned["config"]["data"])),
            directory=home / trial_name(planned["trial"]),
        )

    def _settled(self, config: Config, seed: int, dataset: Dataset) -> dict[str, Any]:
        threads = 1 if config.training.threads == "auto" else config.training.threads
        wanted = replaced(config, {"training.threads": threads, "training.seed": seed})
        return to_mapping(settle(wanted, dataset))

    def _find(self, data: DataConfig) -> Dataset:
        wanted = DataConfig(dataset=data.dataset, fallback=data.fallback)
        if wanted not in self._datasets:
            self._datasets[wanted] = find_dataset(wanted, self._data_dir, self._notify)
        return self._datasets[wanted]


def trial_name(number: int) -> str:
    """Return the name of a trial's directory."""
    return f"trial-{number:03d}"


def _identity(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_plan(
    path: Path,
    varied: Sequence[str] = (),
    overrides: Sequence[Override] = (),
    *,
    base: Path | None = None,
    trials: int | None = None,
) -> Plan:
    """Return the base configuration of a sweep, and what to vary of it.

    Parameters
    ----------
    path : Path
        A sweep file; or a training configuration, whose parameters are then in `varied`.
    varied : sequence of str
        ``KEY=V1,V2,...``; of a sweep file, they replace the values of its keys or add others.
    overrides : sequence of Override
        Laid over the base.
    base : Path, optional
        Another base than the sweep file's.
    trials : int, optional
        How many points to try; without it, all of the grid.

    Raises
    ------
    ConfigError, UsageError
        The file is neither, or a value is not YAML.
    """
    values: dict[str, list[Any] | Range] = {}
    for text in varied:
        key, some = read_values(text)
        if key in values:
            raise UsageError(f"-p {text}: {key} is there twice; give all its values at once")
        values[key] = some
    document = read_file(path)
    if "base" in document.data or "parameters" in document.data:
        given = load_sweep(document)
        keys = given.space
        places = {key: _place(document, key) for key in keys}
        if base is None:
            if given.base is None:
                raise ConfigError(
                    str(path),
                    [f"{path}:1:1: 'base' is missing: the configuration whose keys are varied"],
                    hint="Write it there, or give it: --base CONFIG",
                )
            base = path.parent / given.base
        kept = {key: spec for key, spec in given.parameters.items() if key not in values}
        update: dict[str, Any] = {"base": str(base), "parameters": kept | values}
    else:
        if not values:
            example = ("nnctl", "sweep", path, "-p", "optimizer.learning_rate=0.1,0.5,1.0")
            raise UsageError(
                f"{path} is not a sweep file: it has neither 'base' nor 'parameters'",
                hint=f"To vary a training configuration: {shell_command(*example)}",
            )
        if base is not None:
            raise UsageError("--base is for a sweep file; CONFIG is a configuration itself")
        ranges = any(isinstance(some, Range) for some in values.values())
        given = SweepConfig(
            base=str(path), parameters={**values}, method="random" if ranges else "grid"
        )
        base, places, update = path, {}, {}
        document = read_file(path)
    if trials is not None:
        update |= {"trials": trials, "run_cap": None}
    sweep = given.model_copy(update=update)
    _check_command_line(sweep, values)
    configuration = read_file(base)
    apply_overrides(configuration, overrides)
    return Plan(configuration, sweep, {**places, **dict.fromkeys(values, "-p")})


def _place(document: Document, key: str) -> str:
    """Return where a sweep file names a key; below a key that groups others, where that is."""
    parts = key.split(".")
    for count in range(len(parts), 0, -1):
        path = ("parameters", ".".join(parts[:count]))
        if path in document.keys:
            return document.keys[path] + ":"
    return document.source


def _check_command_line(sweep: SweepConfig, values: Mapping[str, list[Any] | Range]) -> None:
    """Check what is given by ``-p`` against the method, which a sweep file may have set."""
    for key, some in values.items():
        if isinstance(some, Range) and sweep.method == "grid":
            raise UsageError(
                f"-p {key}: a grid needs to know how many values; for instance log:0.001:1:7"
            )
    if sweep.method != "grid" and sweep.most is None:
        raise UsageError(
            "points are drawn from ranges: how many?",
            hint="Give --trials N; or values to combine: log:0.001:1:7 are seven.",
        )


def read_values(text: str) -> tuple[str, list[Any] | Range]:
    """Read ``KEY=V1,V2,...``: what a YAML list may hold, and ranges.

    ``log:0.001:1:7`` stands for seven numbers from 0.001 to 1, evenly apart in the logarithm;
    ``lin:`` are evenly apart, ``int:`` whole numbers. Without their count they are drawn from.

    Raises
    ------
    UsageError, ConfigError
        It is neither.
    """
    key, equals, values = text.partition("=")
    override = Override.parse(f"{key}{equals}[{values}]" if equals else text, "-p")
    if not override.value:
        raise UsageError(f"-p {text}: expected KEY=V1,V2,...: there is no value")
    expanded: list[Any] = []
    for value in override.value:
        found = _RANGE.fullmatch(value) if isinstance(value, str) else None
        try:
            some = _read_range(found[1], found[2], f"-p {text}") if found else [with_nested(value)]
        except ValueError as error:
            raise UsageError(f"-p {text}: {error}") from None
        if isinstance(some, Range):
            if len(override.value) > 1:
                raise UsageError(f"-p {text}: how many of {value}? For instance {value}:5")
            return override.key, some
        expanded += some
    return override.key, expanded


def _read_range(kind: str, limits: str, source: str) -> list[Any] | Range:
    """Return the numbers that ``log:LOW:HIGH:COUNT`` stands for, or the range without COUNT."""
    expected = f"{source}: expected {kind}:LOW:HIGH or {kind}:LOW:HIGH:COUNT"
    parts = limits.split(":")
    if len(parts) not in (2, 3):
        raise UsageError(expected)
    try:
        low, high = map(float, parts[:2])
        count = int(parts[2]) if len(parts) == 3 else None
        name = {"lin": "uniform", "log": "log_uniform_values", "int": "int_uniform"}[kind]
        drawn = Range.model_validate({"distribution": name, "min": low, "max": high})
    except ValueError as error:
        errors = getattr(error, "errors", None)
        why = f": {errors()[0]['msg'].removeprefix('Value error, ')}" if errors else ""
        raise UsageError(f"{expected}, two numbers and a whole one{why}") from None
    if count is None:
        return drawn
    if not 2 <= count <= MOST_POINTS:
        raise UsageError(f"{source}: expected a COUNT from 2 to {MOST_POINTS:,}, got {count}")
    if kind == "int":
        return list(dict.fromkeys(int(n) for n in np.linspace(low, high, count).round()))
    spaced = np.geomspace if kind == "log" else np.linspace
    return [float(f"{number:.6g}") for number in spaced(low, high, count)]
