"""Sampling and pruning with Optuna."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from typing import Any

import pytest

from nnctl.config.sweeps import SweepConfig
from nnctl.errors import UsageError
from nnctl.sweeps.events import Suggestion
from nnctl.sweeps.search import Search
from nnctl.sweeps.space import Params

pytest.importorskip("optuna")

EVEN = {"min": 0.0, "max": 1.0}
MEDIAN = {"type": "median", "min_iter": 3}
HALVING = {"type": "successive_halving", "min_iter": 2, "eta": 2}


def tpe(metric: str = "val_accuracy", seed: int = 0, **parameters: Any) -> Search:
    """Return a search with the TPE sampler."""
    sweep = {"method": "tpe", "trials": 100, "metric": metric, "seed": seed}
    return Search(SweepConfig.model_validate({**sweep, "parameters": parameters}))


def pruned(early: dict[str, Any], metric: str = "val_accuracy", **sweep: Any) -> Search:
    """Return a search that only prunes trials."""
    return Search(
        SweepConfig.model_validate(
            {"parameters": {"x": [1]}, "early_terminate": early, "metric": metric, **sweep}
        )
    )


def tried(
    search: Search, count: int, score: Callable[[Params], float | None], first: int = 1
) -> list[tuple[Params, Suggestion]]:
    """Try points one after another; a point without a score counts as diverged."""
    points = []
    for number in range(first, first + count):
        point, suggestion = search.ask(number)
        points.append((point, suggestion))
        result = score(point)
        search.tell(number, "bad" if result is None else "complete", result)
    return points


def hill(point: Params) -> float:
    """Return a score that is best at 0.3."""
    return 1 - abs(float(point["x"]) - 0.3)


# Suggestions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "sign"), [("val_accuracy", 1), ("val_loss", -1)])
def test_a_search_approaches_the_best_point(metric: str, sign: int) -> None:
    points = tried(tpe(metric, x=EVEN), 40, lambda point: sign * hill(point))
    distances = [abs(point["x"] - 0.3) for point, _ in points]
    assert statistics.fmean(distances[20:]) < statistics.fmean(distances[:10]) / 2


def test_a_search_suggests_the_same_after_a_replay() -> None:
    points = tried(tpe(x=EVEN, y=[1, 2, 3]), 15, hill)
    for count in (1, 11, 14):
        replayed = tpe(x=EVEN, y=[1, 2, 3])
        for number, (point, suggestion) in enumerate(points[:count], start=1):
            replayed.add(number, suggestion)
            replayed.tell(number, "complete", hill(point))
        assert replayed.ask(count + 1) == points[count]


def test_a_search_suggests_the_same_while_others_are_running() -> None:
    def ask(search: Search, known: list[tuple[Params, Suggestion]]) -> tuple[Params, Suggestion]:
        for number, (point, suggestion) in enumerate(known, start=1):
            search.add(number, suggestion)
            if number not in (3, 12):
                search.tell(number, "complete", hill(point))
        return search.ask(len(known) + 1)

    points: list[tuple[Params, Suggestion]] = []
    for _ in range(14):
        points.append(ask(tpe(x=EVEN), points))
    assert ask(tpe(x=EVEN), points[:13]) == points[13]


def test_a_search_depends_on_its_seed() -> None:
    assert tpe(seed=1, x=EVEN).ask(1) == tpe(seed=1, x=EVEN).ask(1)
    assert tpe(seed=1, x=EVEN).ask(1) != tpe(seed=2, x=EVEN).ask(1)
    assert tpe(seed=2**63 - 1, x=EVEN).ask(1)


def test_a_search_keeps_away_from_points_that_are_running() -> None:
    idle, busy = tpe(x=EVEN), tpe(x=EVEN)
    for search in (idle, busy):
        tried(search, 15, hill)
    running = [busy.ask(number)[0]["x"] for number in range(16, 20)]
    assert len(set(running)) == 4
    assert idle.ask(20) != busy.ask(20)


def test_a_point_that_diverged_is_worse_than_all_others() -> None:
    points = tried(tpe(x=EVEN), 40, lambda point: 0.1 if point["x"] < 0.3 else None)
    ended = [point["x"] < 0.3 for point, _ in points]
    assert sum(ended[:10]) < 6
    assert sum(ended[20:]) > 10  # by chance 6


def test_a_point_with_an_unknown_outcome_does_not_affect_suggestions() -> None:
    known, unknown = tpe(x=EVEN), tpe(x=EVEN)
    for search in (known, unknown):
        tried(search, 12, hill)
    for number in range(13, 23):
        unknown.ask(number)
        unknown.tell(number, "unknown", None)
    assert known.ask(23) == unknown.ask(23)


def test_a_conditional_space_is_searched_where_its_conditions_are_met() -> None:
    kinds = [{"kind": "a", "x": EVEN}, {"kind": "b", "y": {"values": [0.1, 0.2]}}]
    points = tried(
        tpe(layer=kinds),
        40,
        lambda point: hill(point["layer"]) if point["layer"]["kind"] == "a" else 0.0,
    )
    for point, suggestion in points:
        layer = point["layer"]
        inner = {"a": "layer[0].x", "b": "layer[1].y"}[layer["kind"]]
        assert set(suggestion) == {"layer", inner}
    assert {"a", "b"} == {point["layer"]["kind"] for point, _ in points}
    assert sum(point["layer"]["kind"] == "a" for point, _ in points[20:]) > 12


def test_a_space_with_a_single_point_is_searched_immediately() -> None:
    assert [point for point, _ in tried(tpe(x=[3]), 3, hill)] == [{"x": 3}] * 3


# Early termination -------------------------------------------------------------------------------


def by_epoch(scores: list[float]) -> dict[int, float]:
    """Return the scores after the epochs 1, 2, ... by epoch."""
    return dict(enumerate(scores, start=1))


def median_of(metric: str = "val_accuracy") -> Search:
    """Return a search after five trials of six epochs with the scores 0.1, 0.2, ..., 0.5."""
    search = pruned(MEDIAN, metric)
    for number in range(1, 6):
        search.add(number)
        search.should_prune(number, by_epoch([number / 10] * 6))
        search.tell(number, "complete", number / 10)
    search.add(6)
    return search


@pytest.mark.parametrize(
    ("metric", "bad", "good"), [("val_accuracy", 0.2, 0.4), ("val_loss", 0.4, 0.2)]
)
def test_a_trial_below_the_median_of_the_others_is_pruned(
    metric: str, bad: float, good: float
) -> None:
    search = median_of(metric)
    ended = [search.should_prune(6, by_epoch([bad] * epochs)) for epochs in (1, 2, 3)]
    assert ended == [False, False, True]
    search = median_of(metric)
    assert not search.should_prune(6, by_epoch([good] * 6))


def test_pruning_uses_the_best_epoch_and_accepts_several_epochs_at_once() -> None:
    assert not median_of().should_prune(6, by_epoch([0.4, 0.1, 0.1, 0.1]))
    assert median_of().should_prune(6, by_epoch([0.1] * 4))
    search = median_of()
    assert search.should_prune(6, by_epoch([0.1] * 3))
    assert not search.should_prune(6, by_epoch([0.1] * 3)), "nothing is new"


def test_no_trial_is_pruned_before_there_are_others_to_compare_with() -> None:
    search = pruned(MEDIAN)
    for number in range(1, 9):
        search.add(number)
        assert not search.should_prune(number, by_epoch([0.5 / number] * 6))
        search.tell(number, "unknown", None)


def test_successive_halving_keeps_one_of_eta_trials_at_each_rung() -> None:
    search = pruned(HALVING)
    ended = []
    for number in range(1, 9):
        search.add(number)
        epochs = range(1, 10)
        score = 0.5 - number / 100
        ended.append(
            next((n for n in epochs if search.should_prune(number, by_epoch([score] * n))), None)
        )
    assert ended == [None, 2, 2, 2, 2, 2, 2, 2]
    search.add(9)
    assert not any(search.should_prune(9, by_epoch([0.9] * n)) for n in range(1, 10))


@pytest.mark.parametrize(("eta", "hopeless"), [(2, False), (4, True)])
def test_eta_determines_how_many_trials_continue(eta: int, hopeless: bool) -> None:
    search = pruned({**HALVING, "eta": eta})
    for number, score in enumerate((0.9, 0.1, 0.1, 0.5), start=1):
        search.add(number)
        last = search.should_prune(number, by_epoch([score] * 2))
    assert last == hopeless


def test_hyperband_s_brackets_are_those_of_successive_halving() -> None:
    search = pruned({"type": "hyperband", "max_iter": 8, "s": 2, "eta": 2})
    search.add(1)
    search.add(2)
    assert not search.should_prune(1, by_epoch([0.5, 0.5]))
    ended = [search.should_prune(2, by_epoch([0.1] * epochs)) for epochs in (1, 2)]
    assert ended == [False, True]


def test_the_rungs_of_halving_count_epochs_and_not_validations() -> None:
    search = pruned(HALVING)
    for number, score in enumerate((0.9, 0.1), start=1):
        search.add(number)
        assert not search.should_prune(number, {1: score})
    assert not search.should_prune(1, {1: 0.9, 7: 0.9})
    assert search.should_prune(2, {1: 0.1, 7: 0.1})


def test_trials_of_a_grid_are_pruned_like_those_of_a_search() -> None:
    search = pruned(HALVING, method="random", trials=3)
    search.add(1)
    search.add(2, None)
    assert not search.should_prune(1, by_epoch([0.5] * 3))
    assert search.should_prune(2, by_epoch([0.4] * 3))


# Without Optuna ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "make"),
    [("method: tpe", lambda: tpe(x=EVEN)), ("early_terminate", lambda: pruned(MEDIAN))],
)
def test_the_error_without_optuna_has_an_install_hint(
    expected: str, make: Callable[[], Search], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=f"{expected} requires Optuna") as caught:
        make()
    assert caught.value.hint is not None
    assert '[sweep]"' in caught.value.hint
