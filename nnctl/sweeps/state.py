"""State of a sweep, built from the events of its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from nnctl.config import Config, from_mapping
from nnctl.sweeps import events
from nnctl.sweeps.journal import Journal
from nnctl.sweeps.plan import Plan
from nnctl.sweeps.results import Setting, ranked
from nnctl.sweeps.search import Search
from nnctl.sweeps.space import to_key
from nnctl.sweeps.trials import FAILED, TrialResult, trial_directory


class SweepState:
    """State of a sweep: its trials, their results, and the search.

    A sweep that trains applies each event when it happens. `read` applies the events of a journal,
    so a resumed sweep has the same state as one that was not interrupted.

    Parameters
    ----------
    directory : Path
        Sweep directory.
    plan : Plan
        Base configuration and search space.
    searching : bool
        Whether to create the search, if the plan has one.

    Attributes
    ----------
    planned : dict of int to events.Planned
        Trials by number.
    numbers : dict of str to int
        Trial numbers by trial ID.
    known : set
        Point (see `to_key`), seed and fold of each planned trial.
    results : dict of int to TrialResult
        Last result by trial number, without trials that have restarted since.
    failed : set of int
        Trials that have failed and have not completed since.
    is_planned : bool
        Whether all trials that are known at the start of the sweep, or of its extension, are
        planned.
    last_point : int
        Number of the last point that was planned, or suggested without being planned.
    search : Search or None
        Search that has observed all events.
    """

    def __init__(self, directory: Path, plan: Plan, *, searching: bool = False) -> None:
        sweep = plan.sweep
        self.directory = directory
        self.plan = plan
        self.planned: dict[int, events.Planned] = {}
        self.numbers: dict[str, int] = {}
        self.known: set[tuple[str, int, int | None]] = set()
        self.results: dict[int, TrialResult] = {}
        self.failed: set[int] = set()
        self.is_planned = False
        self.last_point = 0
        self.search: Search | None = None
        if searching and (sweep.method == "tpe" or sweep.early_terminate):
            self.search = Search(sweep)
        self._started: set[int] = set()

    @classmethod
    def read(cls, directory: Path, *, searching: bool = False) -> Self:
        """Return the state of the sweep in a directory.

        Raises
        ------
        NnctlError
            It is not a sweep directory, or the journal is damaged; see `Journal.read`.
        """
        journal = Journal(directory)
        created, *others = journal.read()
        assert isinstance(created, events.Created)
        state = cls(directory, Plan.from_json(created.plan), searching=searching)
        for number, event in enumerate(others, start=2):
            try:
                state.apply(event)
            except ValueError as error:
                raise journal.damaged(number, str(error)) from None
        return state

    def apply(self, event: events.Event) -> None:
        """Change the state by an event.

        Raises
        ------
        ValueError
            The event contradicts an earlier one.
        """
        self._check(event)
        match event:
            case events.Extended(plan=plan):
                self.plan = Plan.from_json(plan)
                self.is_planned = False
            case events.Planned(trial=trial, point=point):
                self.planned[trial] = event
                self.numbers[event.id] = trial
                self.known.add((to_key(event.parameters), event.seed, event.fold))
                self.last_point = point
            case events.Repeated(point=point) | events.Impossible(point=point):
                self.last_point = point
            case events.PlanComplete():
                self.is_planned = True
            case events.Started(trial=trial):
                self._started.add(trial)
                self.results.pop(trial, None)
            case events.Ended(trial=trial):
                self._started.add(trial)
                run_dir = trial_directory(self.directory, trial)
                self.results[trial] = TrialResult(**{**vars(event), "run_dir": run_dir})
                if event.status in FAILED:
                    self.failed.add(trial)
                elif event.is_final:
                    self.failed.discard(trial)
        if self.search:
            self.search.observe(event, self.results)

    def _check(self, event: events.Event) -> None:
        """Check an event against earlier ones: each trial is planned once, before it starts."""
        point: int | None = getattr(event, "point", None)
        trial: int | None = getattr(event, "trial", None)
        latest = self.planned.get(len(self.planned))
        if isinstance(event, events.Planned):
            if trial != len(self.planned) + 1:
                raise ValueError(f"trial {trial} is out of order")
            if event.parameters.keys() != self.plan.sweep.space.keys():
                raise ValueError(f"plan and trial {trial} vary different keys")
            if latest and latest.point == point == self.last_point:
                return  # the trials of a point are consecutive; other suggestions have no trials
        elif trial is not None:
            if trial not in self.planned:
                raise ValueError(f"trial {trial} was not planned")
            if getattr(event, "parameters", None) not in (None, self.planned[trial].parameters):
                raise ValueError(f"wrong parameters for trial {trial}")
        if point is not None and point <= self.last_point:
            raise ValueError(f"point {point} is out of order")

    @property
    def rows(self) -> list[TrialResult]:
        """Results in the order of the trials."""
        return [result for _, result in sorted(self.results.items())]

    @property
    def settings(self) -> list[Setting]:
        """Settings whose trials are all complete, best first."""
        sweep = self.plan.sweep
        return ranked(self.results.values(), sweep.ranked_by, sweep.repeats)

    @property
    def unfinished(self) -> list[int]:
        """Trials that have started but not ended."""
        return sorted(self._started - self._done)

    @property
    def to_suggest(self) -> int:
        """Number of points that the search will still suggest."""
        sweep = self.plan.sweep
        return max((sweep.most or 0) - self.last_point, 0) if sweep.method == "tpe" else 0

    @property
    def total(self) -> int:
        """Total number of trials, if the search does not suggest a point twice."""
        return len(self.planned) + self.to_suggest * self.plan.sweep.repeats

    @property
    def left(self) -> int:
        """Number of trials that have not ended, including the running ones."""
        return self.total - len(self._done)

    @property
    def _done(self) -> set[int]:
        return {trial for trial, result in self.results.items() if result.is_final}

    def config(self, trial: int) -> Config:
        """Return the configuration of a trial.

        Raises
        ------
        ConfigError
            The configuration is from another version of nnctl and not valid in this one.
        """
        return from_mapping(self.planned[trial].config, f"trial {trial} of {self.directory}")
