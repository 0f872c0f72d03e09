"""What a sweep varies: read, checked at every point, and made into trials."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnctl.config import (
    Config,
    Document,
    Override,
    apply_overrides,
    from_mapping,
    read_file,
    resolve,
    to_mapping,
)
from nnctl.config.loader import validate
from nnctl.config.reader import read_value
from nnctl.config.schema import MAX_WHOLE, DataConfig
from nnctl.config.sweeps import Range, SweepConfig, check_method, choices_within, load_sweep, varies
from nnctl.data.dataset import Dataset, canonical_name
from nnctl.errors import ConfigError, DamagedFileError, DataError, UsageError, shell_command
from nnctl.runs.plan import Notice, Notify, find_dataset, resolve_config, settle
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
_DISTRIBUTIONS = {"lin": "uniform", "log": "log_uniform_values", "int": "int_uniform"}
_RANGE = re.compile(rf"({'|'.join(_DISTRIBUTIONS)}):(.*)")


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
                yield from combinations(space, min(most or MOST_POINTS, MOST_POINTS))
            case "random":
                dice = RandomDice(self.sweep.seed)
                yield from (draw(space, dice) for _ in range(most or 0))

    def allows(self, point: Point) -> bool:
        """Tell whether there is a configuration at a point, on whatever machine and dataset."""
        try:
            resolve(copy.deepcopy(self.base), self._overrides(point))
        except ConfigError:
            return False
        return True

    def config_at(self, point: Point) -> Config:
        """Return the configuration at a point; a key is laid over one that it is below.

        Raises
        ------
        ConfigError
            It has mistakes.
        """
        config = resolve_config(copy.deepcopy(self.base), self._overrides(point))
        source, seeds, mistakes = self.base.source, self.sweep.seeds, []
        if config.data.validation == 0:
            mistakes.append(
                f"{source}: trials are ranked by {self.sweep.ranked_by}; set data.validation"
            )
        if config.training.seed + seeds - 1 > MAX_WHOLE:
            mistakes.append(
                f"{source}: the last of {seeds} seeds would be above {MAX_WHOLE}; set training.seed"
            )
        if mistakes:
            raise ConfigError(source, mistakes)
        return config

    def _overrides(self, point: Point) -> list[Override]:
        return [
            Override(key, copy.deepcopy(value), f"{self.places.get(key, '-p')} {key}={value}")
            for key, value in sorted(point.items(), key=lambda item: item[0].count("."))
        ]

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
            told = f"{count:,}" if count < 10**15 else "more than 10^15"
            raise UsageError(
                f"the sweep has {told} points; at most {MOST_POINTS:,} are possible",
                hint="Vary fewer keys, or draw some of the points: method: random.",
            )
        checked: dict[str, tuple[Point, Config]] = {}
        mistakes: dict[str, str] = {}  # each once, by what is wrong with a key
        for point in corners(sweep.space) if sweep.method == "tpe" else self.points():
            try:
                config = self.config_at(point)
            except ConfigError as error:
                for mistake in error.mistakes:
                    mistakes.setdefault(self._without_value(mistake, point), mistake)
            else:
                checked.setdefault(json.dumps(to_mapping(config)), (point, config))
        if mistakes:
            raise ConfigError("the sweep", list(mistakes.values()))
        return list(checked.values())

    def _without_value(self, mistake: str, point: Point) -> str:
        """Return a mistake without the value it is told of: of an unknown key all are the same."""
        for override in self._overrides(point):
            if mistake.startswith(f"{override.source}: "):
                return f"{override.key}: {mistake.removeprefix(override.source)}"
        return mistake

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "sweep": to_mapping(self.sweep, defaults=False),
            "base": self.base.data,
            "source": self.base.source,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Return a plan from plain values.

        Raises
        ------
        DamagedFileError
            They are not a plan.
        """
        try:
            base = Document(data["source"], dict(data["base"]))
            sweep = validate(
                SweepConfig, Document("the plan", dict(data["sweep"])), (check_method,)
            )
        except (KeyError, TypeError, ValueError, ConfigError):
            raise DamagedFileError("the plan of the sweep is damaged") from None
        return cls(base, sweep, {})


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
        self._noticed: list[Notice] = []

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
        directory = _own_directory(home, number)
        name, text = _identity(settled), json.dumps(settled)
        return Trial(number, name, point, seed, text, dataset, directory)

    def identity(self, config: Config) -> str:
        """Return what a trial is known by: the beginning of its configuration's SHA-256."""
        settled = self._settled(config, config.training.seed, self._find(config.data))
        return _identity(settled)

    def restore(self, home: Path, planned: Mapping[str, Any]) -> Trial:
        """Return a trial that a journal tells of; see `make`.

        Raises
        ------
        ConfigError
            It was planned by a version of nnctl that knew other configurations.
        DataError
            Its directory is a link, or its dataset cannot be had.
        """
        config = from_mapping(planned["config"], f"trial {planned['trial']} of {home}")
        return Trial(
            number=planned["trial"],
            id=planned["id"],
            point=planned["parameters"],
            seed=planned["seed"],
            config=json.dumps(planned["config"]),
            dataset=self._find(config.data),
            directory=_own_directory(home, planned["trial"]),
        )

    def _settled(self, config: Config, seed: int, dataset: Dataset) -> dict[str, Any]:
        threads = 1 if config.training.threads == "auto" else config.training.threads
        training = config.training.model_copy(update={"threads": threads, "seed": seed})
        config = config.model_copy(update={"training": training})
        return to_mapping(settle(config, dataset, self._notify_once))

    def _notify_once(self, notice: Notice) -> None:
        if notice not in self._noticed:
            self._noticed.append(notice)
            self._notify(notice)

    def _find(self, data: DataConfig) -> Dataset:
        wanted = DataConfig(dataset=data.dataset, fallback=data.fallback)
        if wanted not in self._datasets:
            self._datasets[wanted] = find_dataset(wanted, self._data_dir, self._notify)
        return self._datasets[wanted]


def _own_directory(home: Path, number: int) -> Path:
    """Return the directory of a trial, if it is no link to one that is elsewhere."""
    directory = home / trial_name(number)
    if directory.is_symlink():
        raise DataError(
            f"{directory} is a link, and nothing is written where it leads",
            hint="Move the directory itself there.",
        )
    return directory


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
    seeds: int | None = None,
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
    seeds : int, optional
        How often to train each.

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
    document, pipes = read_file(path), True
    if "base" in document.data or "parameters" in document.data:
        if trials is not None:
            document.data["trials"] = trials
            document.data.pop("run_cap", None)
        given, places = load_sweep(document), _places(document)
        if base is None:
            if given.base is None:
                raise ConfigError(
                    str(path),
                    [f"{path}:1:1: 'base' is missing: the configuration whose keys are varied"],
                    hint="Write it there, or give it: --base CONFIG",
                )
            base, pipes = path.parent / given.base, False
        parameters: dict[str, Any] = {**given.space, **values}
        sweep = given.model_copy(update={"base": str(base), "parameters": parameters})
    else:
        if not values:
            example = ("nnctl", "sweep", path, "-p", "optimizer.learning_rate=0.1,0.5,1.0")
            raise UsageError(
                f"{path} is not a sweep file: it has neither 'base' nor 'parameters'",
                hint=f"To vary a training configuration: {shell_command(*example)}",
            )
        if base is not None:
            raise UsageError("--base is for a sweep file; CONFIG is a configuration itself")
        ranges = any(_has_range(some) for some in values.values())
        if ranges and trials is None:
            raise UsageError(
                "points are drawn from ranges: how many?",
                hint="Give --trials N; or values to combine: log:0.001:1:7 are seven.",
            )
        method: Literal["grid", "random"] = "random" if ranges else "grid"
        sweep = SweepConfig(base=str(path), parameters={**values}, method=method, trials=trials)
        base, places = path, {}
    kept = _without(sweep, overrides)
    sweep = sweep.model_copy(update={"parameters": kept} | ({"seeds": seeds} if seeds else {}))
    if mistakes := [f"-p {problem.path[-1]}: {problem.message}" for problem in check_method(sweep)]:
        raise ConfigError("the sweep", mistakes)
    # A pipe can be read once.
    configuration = document if base is path else read_file(base, pipes=pipes)
    apply_overrides(configuration, overrides)
    _find_everywhere(configuration)
    return Plan(configuration, sweep, {**places, **dict.fromkeys(values, "-p")})


def _without(sweep: SweepConfig, overrides: Sequence[Override]) -> dict[str, Any]:
    """Return the parameters but for those that are only set, and that the command line sets."""
    parameters: dict[str, Any] = dict(sweep.space)
    for override in overrides:
        drawn_from = parameters.get(override.key)
        if drawn_from is not None and varies(drawn_from):
            raise UsageError(
                f"{override.source}: the sweep varies {override.key}", hint="Leave one of them out."
            )
        parameters.pop(override.key, None)
    return parameters


def _find_everywhere(document: Document) -> None:
    """Name a folder of digits so that it is found from every working directory."""
    data = document.data.get("data")
    if isinstance(data, dict) and isinstance(data.get("dataset"), str):
        data["dataset"] = canonical_name(data["dataset"])


def _places(document: Document) -> dict[str, str]:
    """Return where a sweep file names each dotted key, also below those that group others."""
    return {
        ".".join(map(str, path[1::2])): f"{place}:"
        for path, place in document.keys.items()
        if len(path) % 2 == 0 and {*path[::2]} == {"parameters"}
    }


def _has_range(some: Any) -> bool:
    return any(isinstance(choice, Range) for choice in choices_within(some))


def read_values(text: str) -> tuple[str, list[Any] | Range]:
    """Read ``KEY=V1,V2,...``: what a YAML list may hold, and ranges.

    ``log:0.001:1:7`` stands for seven numbers from 0.001 to 1, evenly apart in the logarithm;
    ``lin:`` are evenly apart, ``int:`` whole numbers. Without their count they are drawn from.

    Raises
    ------
    UsageError, ConfigError
        It is neither.
    """
    source = f"-p {text}"
    key, equals, listed = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise UsageError(
            f"{source}: expected KEY=V1,V2,...",
            hint="For instance: -p optimizer.learning_rate=0.1,0.5",
        )
    values = read_value(f"[{listed}]", source)
    if not values:
        raise UsageError(f"{source}: expected KEY=V1,V2,...: there is no value")
    expanded: list[Any] = []
    for value in values:
        found = _RANGE.fullmatch(value) if isinstance(value, str) else None
        if not found:
            expanded.append(value)
            continue
        low, high, count = _read_range(found[1], found[2], source)
        limits = {"distribution": _DISTRIBUTIONS[found[1]], "min": low, "max": high}
        drawn_from = _checked(key, limits, source)
        if count is not None:
            expanded += _spaced(found[1], low, high, count)
        elif len(values) > 1:
            raise UsageError(f"{source}: how many of {value}? For instance {value}:5")
        else:
            return key, drawn_from
    return key, _checked(key, expanded, source)


def _checked(key: str, written: Any, source: str) -> Any:
    """Return what is written for a key as a list or a range, as a sweep file could have it."""
    document = Document(source, {"parameters": {key: written}})
    return validate(SweepConfig, document, ()).parameters[key]


def _read_range(kind: str, limits: str, source: str) -> tuple[float, float, int | None]:
    """Return the numbers of ``LOW:HIGH:COUNT``; None for a count that is not there."""
    try:
        low, high, *counts = limits.split(":")
        (count,) = map(int, counts) if counts else (None,)
        numbers = float(low), float(high)
    except ValueError:
        raise UsageError(
            f"{source}: expected {kind}:LOW:HIGH or {kind}:LOW:HIGH:COUNT, two numbers and a "
            "whole one"
        ) from None
    if count is not None and not 2 <= count <= MOST_POINTS:
        raise UsageError(f"{source}: expected a COUNT from 2 to {MOST_POINTS:,}, got {count}")
    return *numbers, count


def _spaced(kind: str, low: float, high: float, count: int) -> list[float] | list[int]:
    """Return numbers that are evenly apart; fewer where there are not so many whole ones."""
    if kind == "int":
        return list(dict.fromkeys(int(n) for n in np.linspace(low, high, count).round()))
    spaced = np.geomspace if kind == "log" else np.linspace
    numbers = [float(f"{number:.12g}") for number in spaced(low, high, count)]
    if all(number.is_integer() for number in numbers):  # such as sizes of batches
        return [int(number) for number in numbers]
    return numbers
