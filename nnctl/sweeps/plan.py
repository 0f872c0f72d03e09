"""Reads sweep files and ``-p`` options, checks every point, and creates trials."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nnctl.config import (
    Config,
    Document,
    Override,
    apply_overrides,
    from_mapping,
    read_config,
    resolve,
    to_mapping,
)
from nnctl.config.loader import validate
from nnctl.config.reader import STDIN
from nnctl.config.schema import MAX_WHOLE, DataConfig
from nnctl.config.sweeps import (
    Choice,
    Range,
    SweepConfig,
    check_method,
    choices_within,
    load_sweep,
    varies,
)
from nnctl.data.dataset import Dataset, canonical_name, locate
from nnctl.errors import ConfigError, DamagedFileError, DataError, UsageError
from nnctl.files import exists
from nnctl.runs.resolve import (
    Notice,
    Notify,
    dataset_info_of,
    find_dataset,
    locate_dataset,
    resolve_auto,
    resolve_config,
    validation_count,
)
from nnctl.sweeps import events
from nnctl.sweeps.parameter_option import MOST_POINTS, read_values
from nnctl.sweeps.space import (
    Params,
    RandomSampler,
    Space,
    combinations,
    corners,
    count_combinations,
    draw,
)
from nnctl.sweeps.trials import Trial, trial_directory
from nnctl.text import enumeration, shell_command


@dataclass(frozen=True)
class Plan:
    """Base configuration and search space of a sweep.

    Parameters
    ----------
    base : Document
        Training configuration, with the overrides of the command line applied.
    sweep : SweepConfig
        Keys that vary and their values, method and number of trials.
    places : mapping of str to str
        Where each key was written, for error messages: ``sweep.yaml:9:3`` or ``-p``.
    """

    base: Document
    sweep: SweepConfig
    places: Mapping[str, str]

    def points(self) -> Iterator[Params]:
        """Yield the points that are known before the sweep starts; none for ``method: tpe``."""
        space, most = self.sweep.space, self.sweep.most
        match self.sweep.method:
            case "grid":
                yield from combinations(space, min(most or MOST_POINTS, MOST_POINTS))
            case "random":
                sampler = RandomSampler(self.sweep.seed)
                yield from (draw(space, sampler) for _ in range(most or 0))

    def extended(
        self, varied: Sequence[str] = (), trials: int | None = None, seeds: int | None = None
    ) -> Plan:
        """Return the plan with more points or seeds, or this plan if it has them already.

        Parameters
        ----------
        varied : sequence of str
            ``KEY=V1,V2,...``: values to add to keys of a grid.
        trials : int, optional
            Total number of points; the first ones stay the same.
        seeds : int, optional
            Total number of seeds per point.

        Raises
        ------
        UsageError
            This would change the trials of the sweep, and not only add some.
        ConfigError
            A value is not valid YAML, or the seeds do not fit the sweep.
        """
        sweep = self.sweep
        update: dict[str, Any] = {}
        space = self._extended_space(varied)
        if space != sweep.space:
            if trials is None and sweep.most is not None:
                raise UsageError(
                    f"-p: the sweep tries only the first {sweep.most} points of its grid",
                    hint="To try more of them: --trials N",
                )
            update["parameters"] = space
        if trials is not None:
            if sweep.most is None:
                raise UsageError(
                    f"--trials {trials}: the sweep tries all points of its grid",
                    hint="To add values: -p KEY=V1,V2,...",
                )
            _require_more("--trials", trials, sweep.most)
            update |= {"trials": trials, "run_cap": None} if trials > sweep.most else {}
        if seeds is not None:
            _require_more("--seeds", seeds, sweep.seeds)
            update |= {"seeds": seeds} if seeds > sweep.seeds else {}
        if "seeds" in update and sweep.method == "tpe":
            raise UsageError(
                f"--seeds {seeds}: tpe has chosen its points by the results of {sweep.seeds}",
                hint="Start a new sweep.",
            )
        changed = sweep.model_copy(update=update)
        if mistakes := [problem.message for problem in check_method(changed)]:
            raise ConfigError("the sweep", mistakes)
        return replace(self, sweep=changed) if update else self

    def _extended_space(self, varied: Sequence[str]) -> dict[str, Any]:
        """Return the search space with more values for keys of a grid."""
        space: dict[str, Any] = self.sweep.space
        if varied and self.sweep.method != "grid":
            raise UsageError(
                f"-p {varied[0]}: method {self.sweep.method} draws all points from the same values",
                hint="To draw more points: --trials N. For other values, start a new sweep.",
            )
        for text in varied:
            key, values = read_values(text)
            if key not in space:
                raise UsageError(
                    f"-p {text}: the sweep does not vary {key}, but {enumeration(list(space))}",
                    hint="To vary another key, start a new sweep.",
                )
            if isinstance(values, Range):
                raise UsageError(f"-p {text}: a grid is extended by values, not by a range")
            tried = [point[key] for point in combinations({key: space[key]}, MOST_POINTS)]
            new = [value for value in values if value not in tried]
            if new:
                before = space[key].values if isinstance(space[key], Choice) else tried
                space[key] = Choice(values=[*before, *new])
        return space

    def allows(self, point: Params) -> bool:
        """Return whether a point has a valid configuration, on any machine and dataset."""
        try:
            resolve(copy.deepcopy(self.base), self._overrides(point))
        except ConfigError:
            return False
        return True

    def config_at(self, point: Params) -> Config:
        """Return the configuration at a point; ``a.b`` is applied after ``a``.

        Raises
        ------
        ConfigError
            The configuration has errors.
        """
        config = self._resolve(point)
        source, seeds, mistakes = self.base.source, self.sweep.seeds, []
        if self.sweep.ranked_by != "train_loss" and not _validates(config):
            mistakes.append(
                f"{source}: trials are ranked by {self.sweep.ranked_by}, but no "
                "examples are held out: set data.validation, or rank by metric: train_loss"
            )
        if self.sweep.early_terminate and isinstance(config.training.validate_every, str):
            mistakes.append(
                f"{source}: early_terminate compares trials after the same epochs; set "
                "training.validate_every to a number of epochs, not to a time"
            )
        if config.training.seed + seeds - 1 > MAX_WHOLE:
            mistakes.append(
                f"{source}: the last of {seeds} seeds would be above {MAX_WHOLE}; set training.seed"
            )
        if mistakes:
            raise ConfigError(source, mistakes)
        return config

    def ranked_without_validation(self) -> Plan:
        """Return the plan, ranked by training loss if no point has validation examples.

        A metric that the sweep file sets is kept.
        """
        if "metric" in self.sweep.model_fields_set:
            return self
        try:
            if any(_validates(self._resolve(point)) for point in corners(self.sweep.space)):
                return self
        except ConfigError:  # reported for all points; see `checked_points`
            return self
        sweep = self.sweep.model_copy(update={"metric": "train_loss"})
        return replace(self, sweep=sweep)

    def _resolve(self, point: Params) -> Config:
        return resolve_config(copy.deepcopy(self.base), self._overrides(point))

    def _overrides(self, point: Params) -> list[Override]:
        overrides = [
            Override(key, copy.deepcopy(value), f"{self.places.get(key, '-p')} {key}={value}")
            for key, value in sorted(point.items(), key=lambda item: item[0].count("."))
        ]
        if folds := self.sweep.folds:  # the configuration is that of the first fold
            source = f"folds: {folds}"
            overrides.append(Override("data.validation", "auto", source))
            overrides.append(Override("data.fold", {"number": 1, "of": folds}, source))
        return overrides

    def checked_points(self) -> list[tuple[Params, Config]]:
        """Return the points with their configurations, without duplicate configurations.

        The points of tpe are not known yet; instead, return points that together have each value of
        each choice and values near both ends of each range.

        Raises
        ------
        ConfigError
            The configurations of some points have errors; all are listed.
        UsageError
            There are more than `MOST_POINTS` points.
        """
        sweep = self.sweep
        count = count_combinations(sweep.space) if sweep.method == "grid" else sweep.most or 0
        if min(count, sweep.most or count) > MOST_POINTS:
            number = f"{count:,}" if count < 10**15 else "more than 10^15"
            raise UsageError(
                f"the sweep has {number} points; the maximum is {MOST_POINTS:,}",
                hint="Vary fewer keys, or draw points at random (method: random).",
            )
        checked: dict[str, tuple[Params, Config]] = {}
        mistakes: dict[str, str] = {}  # without duplicates, by key and problem
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

    def _without_value(self, mistake: str, point: Params) -> str:
        """Return a message without the value, so that equal problems of a key are equal texts."""
        for override in self._overrides(point):
            if mistake.startswith(f"{override.source}: "):
                return f"{override.key}: {mistake.removeprefix(override.source)}"
        return mistake

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-compatible values."""
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
            The values are not a valid plan.
        """
        try:
            base = Document(data["source"], dict(data["base"]))
            sweep = validate(
                SweepConfig, Document("the plan", dict(data["sweep"])), (check_method,)
            )
        except (KeyError, TypeError, ValueError, ConfigError):
            raise DamagedFileError("the plan in the sweep's journal is damaged") from None
        return cls(base, sweep, {})


class TrialFactory:
    """Factory of trials; it opens each dataset once.

    Parameters
    ----------
    notify : callable
        Function that receives the events of downloads.
    """

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._datasets: dict[DataConfig, Dataset] = {}
        self._noticed: list[Notice] = []

    def fetch(self, checked: Iterable[tuple[Params, Config]]) -> None:
        """Open or download the datasets of all configurations before the sweep starts.

        Raises
        ------
        DataError
            A dataset is not available.
        """
        for _, config in checked:
            self._find(config.data)

    def resolve(self, config: Config, seed: int, fold: int | None = None) -> dict[str, Any]:
        """Return the resolved configuration of a trial, with its seed, and its fold if given.

        ``threads: auto`` becomes one thread, as the workers share the cores.

        Raises
        ------
        DataError
            The dataset is not available.
        """
        threads = 1 if config.training.threads == "auto" else config.training.threads
        training = config.training.model_copy(update={"threads": threads, "seed": seed})
        config = config.model_copy(update={"training": training})
        if fold is not None:
            folds = config.data.fold
            assert folds is not None
            chosen = {"fold": folds.model_copy(update={"number": fold})}
            config = config.model_copy(update={"data": config.data.model_copy(update=chosen)})
        return to_mapping(resolve_auto(config, self._find(config.data), self._notify_once))

    def make(self, sweep: Path, planned: events.Planned) -> Trial:
        """Return a planned trial, with its own directory in the sweep directory.

        Raises
        ------
        ConfigError
            The configuration is from another version of nnctl and not valid in this one.
        DataError
            The trial directory is a symbolic link, or the dataset is not available.
        """
        directory = trial_directory(sweep, planned.trial)
        if directory.is_symlink():
            raise DataError(
                f"{directory} is a symbolic link; nnctl does not write through links",
                hint="Replace the link with the directory itself.",
            )
        config = from_mapping(planned.config, f"trial {planned.trial} of {sweep}")
        return Trial(
            number=planned.trial,
            id=planned.id,
            point=planned.parameters,
            seed=planned.seed,
            fold=planned.fold,
            config=json.dumps(planned.config),
            dataset=self._find(config.data),
            directory=directory,
        )

    def _notify_once(self, notice: Notice) -> None:
        if notice not in self._noticed:
            self._noticed.append(notice)
            self._notify(notice)

    def _find(self, data: DataConfig) -> Dataset:
        key = DataConfig(dataset=data.dataset, fallback=data.fallback)
        if key not in self._datasets:
            self._datasets[key] = find_dataset(key, self._notify)
        return self._datasets[key]


def trial_id(config: Mapping[str, Any]) -> str:
    """Return the ID of a trial: the first digits of the SHA-256 of its configuration."""
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
    folds: int | None = None,
) -> Plan:
    """Read a sweep file, or a configuration with ``-p`` options, and return the plan.

    Parameters
    ----------
    path : Path
        Sweep file, or training configuration if `varied` has the parameters.
    varied : sequence of str
        ``KEY=V1,V2,...``; they replace keys of a sweep file, or add keys.
    overrides : sequence of Override
        Values to set in the base configuration.
    base : Path, optional
        Base configuration to use instead of that of the sweep file.
    trials : int, optional
        Number of points; the default is the whole grid.
    seeds, folds : int, optional
        Number of seeds and of folds per point.

    Raises
    ------
    ConfigError, UsageError
        The file is neither of these, or a value is not valid YAML.
    """
    if base == path == Path(STDIN):
        raise UsageError("standard input can be read only once: use a file for CONFIG or --base")
    values: dict[str, list[Any] | Range] = {}
    for text in varied:
        key, choices = read_values(text)
        if key in values:
            raise UsageError(f"-p {text}: {key} is given twice; list all its values in one -p")
        values[key] = choices
    document, places = read_config(path), dict.fromkeys(values, "-p")
    is_sweep = "base" in document.data or "parameters" in document.data
    if is_sweep:
        if trials is not None:
            document.data["trials"] = trials
            document.data.pop("run_cap", None)
        sweep = load_sweep(document)
        folder = document.folder or Path()
        space: dict[str, Any] = {**_with_located_datasets(sweep.space, folder), **values}
        places = {**_places(document), **places}
        _require_base(sweep, document, base)
        sweep = sweep.model_copy(update={"parameters": space})
    elif base is not None and values:
        raise UsageError("--base needs a sweep file; CONFIG is a training configuration")
    else:
        sweep = _sweep_over(path, values, trials)
    update: dict[str, Any] = {"parameters": _without_overridden(sweep, overrides)}
    update |= {"seeds": seeds} if seeds else {}
    update |= {"folds": folds} if folds else {}
    sweep = sweep.model_copy(update=update)
    if mistakes := [f"-p {problem.path[-1]}: {problem.message}" for problem in check_method(sweep)]:
        raise ConfigError("the sweep", mistakes)
    if is_sweep:  # otherwise it has been read, and a pipe can be read only once
        document = _read_base(sweep, document, base)
        sweep = sweep.model_copy(update={"base": document.source})
    locate_dataset(document, overrides)
    apply_overrides(document, overrides)
    _make_dataset_absolute(document)
    return Plan(document, sweep, places).ranked_without_validation()


def _validates(config: Config) -> bool:
    """Return whether a configuration holds out validation examples, as far as that is known."""
    try:
        return validation_count(config, dataset_info_of(config)) > 0
    except DataError:  # reported when the dataset is opened
        return True


def _require_more(option: str, count: int, before: int) -> None:
    """Check that an option extends a sweep."""
    if count < before:
        raise UsageError(
            f"{option} {count}: the sweep already has {before}; it can only be extended",
            hint="For fewer, start a new sweep.",
        )


def _require_base(sweep: SweepConfig, document: Document, base: Path | None) -> None:
    """Check that a sweep file or --base names the configuration to vary."""
    if base is None and sweep.base is None:
        source = document.source
        raise ConfigError(
            source,
            [f"{source}:1:1: 'base' is missing: the configuration to vary, a file or a preset"],
            hint="Add it to the sweep file, or use: --base CONFIG",
        )


def _read_base(sweep: SweepConfig, document: Document, base: Path | None) -> Document:
    """Read the configuration that a sweep file varies; --base may be a pipe."""
    if base is not None:
        return read_config(base)
    return read_config(Path(str(sweep.base)), sweep_file=document, pipes=False)


def _sweep_over(path: Path, values: Mapping[str, Any], trials: int | None) -> SweepConfig:
    """Return the sweep over the values of ``-p`` in a training configuration."""
    if not values:
        example = ("nnctl", "sweep", path, "-p", "optimizer.learning_rate=0.1,0.5,1.0")
        raise UsageError(
            f"{path} is not a sweep file: it has neither 'base' nor 'parameters'",
            hint=f"To vary a training configuration: {shell_command(*example)}",
        )
    choices = [choice for written in values.values() for choice in choices_within(written)]
    has_ranges = any(isinstance(choice, Range) for choice in choices)
    if has_ranges and trials is None:
        raise UsageError(
            "-p: a range without a count needs the number of points to draw",
            hint="Use --trials N, or give the range a count: log:0.001:1:7 is seven values.",
        )
    method: Literal["grid", "random"] = "random" if has_ranges else "grid"
    return SweepConfig(base=str(path), parameters=dict(values), method=method, trials=trials)


def _without_overridden(sweep: SweepConfig, overrides: Sequence[Override]) -> dict[str, Any]:
    """Return the parameters without constant ones that the command line overrides."""
    parameters: dict[str, Any] = dict(sweep.space)
    for override in overrides:
        value_range = parameters.get(override.key)
        if value_range is not None and varies(value_range):
            raise UsageError(
                f"{override.source}: the sweep already varies {override.key}",
                hint="Remove the option, or remove the key from the sweep.",
            )
        parameters.pop(override.key, None)
    return parameters


def _with_located_datasets(space: Space, folder: Path) -> Space:
    """Return the space of a sweep file with the paths of datasets that are next to the file."""
    match space.get("data.dataset"):
        case Choice() as choice:
            values = [
                locate(value, folder) if isinstance(value, str) else value
                for value in choice.values
            ]
            return {**space, "data.dataset": choice.model_copy(update={"values": values})}
    return space


def _make_dataset_absolute(document: Document) -> None:
    """Make the path of a dataset folder absolute, for other working directories."""
    data = document.data.get("data")
    if isinstance(data, dict) and isinstance(data.get("dataset"), str):
        path = canonical_name(data["dataset"])
        if exists(Path(path)):
            data["dataset"] = path


def _places(document: Document) -> dict[str, str]:
    """Return the position of each dotted key in a sweep file, including nested keys."""
    return {
        ".".join(map(str, path[1::2])): f"{place}:"
        for path, place in document.keys.items()
        if len(path) % 2 == 0 and {*path[::2]} == {"parameters"}
    }
