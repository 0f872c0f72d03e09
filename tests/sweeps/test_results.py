"""The results of a sweep: files, ranking, effects and significance tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnctl.analysis.comparison import paired_t_test
from nnctl.config.reader import read
from nnctl.config.sweeps import SweepConfig
from nnctl.data.dataset import Dataset, open_dataset
from nnctl.errors import StorageError, UsageError
from nnctl.runs.run import Run
from nnctl.sweeps.plan import Plan
from nnctl.sweeps.results import (
    Edge,
    ResultFiles,
    Setting,
    cell,
    compute_p_values,
    edges,
    effects,
    ranked,
)
from nnctl.sweeps.trials import Status, TrialResult
from nnctl.views.sweep import show_results
from tests.runs.helpers import SMALL, begin, ignore, train

ACCURACY, LOSS = "val_accuracy", "val_loss"


def row(
    trial: int,
    accuracy: float | None = 0.9,
    loss: float | None = 0.5,
    *,
    status: Status = "finished",
    seed: int = 0,
    run_dir: str = "",
    reason: str = "",
    **parameters: Any,
) -> TrialResult:
    """Return the result of a trial."""
    return TrialResult(
        trial=trial,
        id=f"id-{trial}",
        status=status,
        reason=reason,
        val_accuracy=accuracy,
        val_loss=loss,
        best_epoch=3,
        epochs=5,
        seconds=1.5,
        seed=seed,
        parameters=parameters,
        run_dir=Path(run_dir or f"trial-{trial:03d}"),
    )


def trials_of(settings: list[Setting]) -> list[list[int]]:
    """Return the trial numbers of each setting."""
    return [[trial.trial for trial in setting.trials] for setting in settings]


# Ranking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "metric"), [([[4], [3], [2], [1]], ACCURACY), ([[2], [4], [3], [1]], LOSS)]
)
def test_settings_are_ranked_by_the_metric_and_the_other_one_breaks_ties(
    expected: list[list[int]], metric: str
) -> None:
    rows = [row(1, 0.8, 0.4, x=1), row(2, 0.8, 0.1, x=2), row(3, 0.9, 0.4, x=3)]
    rows.append(row(4, 0.9, 0.3, x=4))
    assert expected == trials_of(ranked(rows, metric))


@given(st.permutations(range(6)))
def test_a_ranking_does_not_depend_on_the_order_in_which_trials_end(order: list[int]) -> None:
    rows = [row(number, 0.9 if number % 2 else 0.8, x=number) for number in range(1, 7)]
    assert trials_of(ranked([rows[i] for i in order], ACCURACY)) == [[1], [3], [5], [2], [4], [6]]


def test_a_setting_with_seeds_is_ranked_by_its_mean() -> None:
    lucky = [row(1, 0.99, seed=0, x=1), row(3, 0.5, seed=1, x=1), row(5, 0.5, seed=2, x=1)]
    steady = [row(2, 0.9, seed=0, x=2), row(4, 0.8, seed=1, x=2), row(6, 0.7, seed=2, x=2)]
    first, second = ranked([*lucky, *steady], ACCURACY, repeats=3)
    assert (first.point, second.point) == ({"x": 2}, {"x": 1})
    assert first.accuracy == pytest.approx(0.8)
    assert first.deviation == pytest.approx(0.1)
    assert [trial.seed for trial in first.trials] == [0, 1, 2]


@pytest.mark.parametrize(("expected", "metric"), [(1, ACCURACY), (2, LOSS)])
def test_the_best_trial_of_a_setting_is_the_best_by_the_metric(expected: int, metric: str) -> None:
    rows = [row(1, 0.9, 0.5, seed=0, x=1), row(2, 0.8, 0.4, seed=1, x=1)]
    (setting,) = ranked(rows, metric, repeats=2)
    assert setting.best.trial == expected


@pytest.mark.parametrize("status", ["pruned", "diverged", "failed", "interrupted"])
def test_a_setting_with_an_incomplete_seed_is_not_ranked(status: Status) -> None:
    rows = [row(1, 0.99, seed=0, x=1), row(2, 0.99, status=status, seed=1, x=1)]
    rows += [row(3, 0.5, seed=0, x=2), row(4, 0.5, status="stopped_early", seed=1, x=2)]
    assert trials_of(ranked(rows, ACCURACY, repeats=2)) == [[3, 4]]
    assert trials_of(ranked(rows[1:2], ACCURACY)) == []


def test_a_single_trial_has_no_deviation() -> None:
    (setting,) = ranked([row(1, x=1)], ACCURACY)
    assert setting.deviation is None


def test_settings_may_differ_in_values_that_cannot_be_hashed() -> None:
    rows = [row(1, x={"a": [1], "b": 2}), row(2, x={"b": 2, "a": [1]}), row(3, x={"a": [2]})]
    assert trials_of(ranked(rows, ACCURACY)) == [[1, 2], [3]]


# Effects -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("best", "metric"), [(0.9, ACCURACY), (0.1, LOSS)])
def test_an_effect_has_the_mean_and_best_score_of_the_trials_with_a_value(
    best: float, metric: str
) -> None:
    rows = [row(1, 0.9, 0.3, x=10), row(2, 0.5, 0.1, x=10), row(3, 0.4, 0.4, x=2)]
    rows.append(row(4, 1.0, 0.0, status="diverged", x=10))
    few, many = effects(rows, "x", metric)
    assert (few.value, few.count) == (2, 1)
    assert (many.value, many.count, many.best) == (10, 2, best)
    assert many.mean == pytest.approx(0.7 if metric == ACCURACY else 0.2)


def test_values_that_are_not_numbers_are_in_the_order_of_their_trials() -> None:
    values: list[Any] = [{"b": 1}, None, "a", 3]
    rows = [row(number, x=value) for number, value in enumerate(values, 1)]
    assert [effect.value for effect in effects(rows, "x", ACCURACY)] == values


def test_many_numbers_are_grouped_into_quarters() -> None:
    rows = [row(n + 1, 0.5 + n / 100, x=(7 * n) % 10) for n in range(10)]
    result = effects(rows, "x", ACCURACY)
    assert [effect.value for effect in result] == [(0, 1), (2, 4), (5, 6), (7, 9)]
    assert sum(effect.count for effect in result) == 10
    assert result[0].best == max(0.5, 0.53)
    eight = [row(n + 1, x=n) for n in range(8)]
    assert [effect.value for effect in effects(eight, "x", ACCURACY)] == list(range(8))


@pytest.mark.parametrize(("expected", "metric"), [(19, ACCURACY), (0, LOSS)])
def test_only_the_best_of_many_values_that_are_not_numbers_are_returned(
    expected: int, metric: str
) -> None:
    rows = [row(n + 1, n / 20, n / 20, x={"units": n}) for n in range(20)]
    result = effects(rows, "x", metric)
    assert len(result) == 8
    assert result[0].value == {"units": expected}


def test_without_a_complete_trial_there_is_no_effect() -> None:
    assert effects([row(1, status="failed", x=1)], "x", ACCURACY) == []


# p-values ----------------------------------------------------------------------------------------


def find(name: str) -> Dataset:
    """Return a dataset."""
    return open_dataset(name, notify=ignore)


def no_dataset(name: str) -> Dataset:
    """Fail the test: it should not open a dataset."""
    raise AssertionError(name)


@pytest.mark.parametrize("metric", [ACCURACY, LOSS])
def test_with_seeds_the_trials_with_the_same_seed_are_compared(metric: str) -> None:
    scores = [(0.9, 0.91, 0.95), (0.89, 0.91, 0.92), (0.5, 0.52, 0.51)]
    if metric == LOSS:
        scores = [(1 - a, 1 - b, 1 - c) for a, b, c in scores]
    rows = [
        row(3 * x + seed + 1, score, score, seed=seed, x=x)
        for x, some in enumerate(scores)
        for seed, score in enumerate(some)
    ]
    result = compute_p_values(ranked(rows, metric, 3), metric, no_dataset)
    assert result == [paired_t_test(scores[0], other) for other in scores[1:]]
    near, far = result
    assert near is not None
    assert far is not None
    assert near > 0.05 > far


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run directories: a good run, its copy, a bad run, and one with other images."""
    directories = []
    for name, units, epochs, data in (
        ("good", 20, 3, {}),
        ("same", 20, 3, {}),
        ("bad", 1, 1, {}),
        ("other", 20, 1, {"validation": 400}),
    ):
        directory = tmp_path_factory.mktemp("runs") / name
        network = {
            "layers": [
                {"units": units, "activation": "relu"},
                {"units": 10, "activation": "softmax"},
            ]
        }
        training = {**SMALL["training"], "epochs": epochs}
        data = {**SMALL["data"], **data}
        train(begin(directory, {**SMALL, "network": network, "training": training, "data": data}))
        directories.append(str(directory))
    return directories


def row_of(number: int, run_dir: str) -> TrialResult:
    """Return the row of a run; a run that does not exist has a medium accuracy."""
    summary = Run(Path(run_dir)).summary
    accuracy = summary.best_val_accuracy if summary else 0.6
    loss = summary.best_val_loss if summary else 1.0
    return row(number, accuracy, loss, run_dir=run_dir, x=number)


@pytest.mark.parametrize("metric", [ACCURACY, LOSS])
def test_without_seeds_the_best_networks_are_compared_on_the_validation_images(
    runs: list[str], metric: str
) -> None:
    rows = [row_of(number, run) for number, run in enumerate(runs[:3], 1)]
    same, bad = compute_p_values(ranked(rows, metric), metric, find)
    assert same == 1.0
    assert bad is not None
    assert bad < 1e-6


def test_networks_that_cannot_be_compared_have_no_p_value(runs: list[str], tmp_path: Path) -> None:
    places = [runs[0], runs[3], str(tmp_path), runs[2]]
    rows = [row_of(n, place) for n, place in enumerate(places, 1)]
    settings = ranked(rows, ACCURACY)
    assert [str(setting.best.run_dir) for setting in settings] == places

    other, gone, bad = compute_p_values(settings, ACCURACY, find)
    assert (other, gone) == (None, None)
    assert bad is not None
    assert compute_p_values(settings[2:], ACCURACY, find) == [None]

    def lost(name: str) -> Dataset:
        raise UsageError(f"{name} is gone")

    assert compute_p_values(settings, ACCURACY, lost) == [None, None, None]


def test_a_single_setting_is_compared_with_nothing() -> None:
    settings = ranked([row(1, x=1)], ACCURACY)
    assert compute_p_values(settings, ACCURACY, find) == []


# Files -------------------------------------------------------------------------------------------


def table(directory: Path) -> list[dict[str, str]]:
    """Read ``results.csv``."""
    with (directory / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def objects(directory: Path) -> list[dict[str, Any]]:
    """Read ``results.jsonl``."""
    text = (directory / "results.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_results_have_a_row_per_trial_and_a_column_per_key(tmp_path: Path) -> None:
    files = ResultFiles(tmp_path, ["a.b", "c"])
    numbers: dict[str, Any] = {"a.b": 0.5, "c": {"units": [1, None]}}
    texts: dict[str, Any] = {"a.b": True, "c": "tänh, 1"}
    failed = row(1, None, None, status="failed", reason='"x", y\nz', **texts)
    rows = [row(2, **numbers), failed]
    files.write([])
    assert (table(tmp_path), objects(tmp_path)) == ([], [])
    for one in rows:
        files.add([one])
    files.add([])
    first, second = table(tmp_path)
    assert list(first)[-2:] == ["a.b", "c"]
    assert "parameters" not in first
    assert (first["trial"], first["a.b"], first["c"]) == ("2", "0.5", '{"units": [1, null]}')
    assert (second["a.b"], second["c"], second["reason"]) == ("true", "tänh, 1", '"x", y / z')
    assert (second["val_accuracy"], second["status"]) == ("", "failed")
    assert objects(tmp_path) == [one.to_json() for one in rows]


def test_rewritten_results_are_in_the_order_of_the_trials(tmp_path: Path) -> None:
    files = ResultFiles(tmp_path, ["x"])
    rows = [row(number, x=number) for number in (3, 1, 2)]
    files.write(rows)
    assert [line["trial"] for line in table(tmp_path)] == ["1", "2", "3"]
    assert [line["trial"] for line in objects(tmp_path)] == [1, 2, 3]


def test_a_row_of_the_csv_file_is_one_line_for_any_log(tmp_path: Path) -> None:
    files = ResultFiles(tmp_path, [])
    log = "one\ntwo\r\nthree\u2028four"
    result = row(1).model_copy(update={"log": log, "reason": log})
    files.write([result])
    assert (tmp_path / "results.csv").read_bytes().count(b"\n") == 2
    assert table(tmp_path)[0]["log"] == "one / two / three / four"


@pytest.mark.parametrize("name", ["results.csv", "results.jsonl"])
@pytest.mark.parametrize("how", [ResultFiles.add, ResultFiles.write])
def test_results_that_cannot_be_written_are_an_error(
    tmp_path: Path, name: str, how: Callable[[ResultFiles, list[TrialResult]], None]
) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        how(ResultFiles(tmp_path, ["x"]), [row(1, x=1)])


@pytest.mark.parametrize(
    ("expected", "value"),
    [(1, 1), (0.5, 0.5), ("a", "a"), ("false", False), ("null", None), ("[1]", [1])],
)
def test_a_cell_has_a_value_that_a_spreadsheet_understands(expected: object, value: object) -> None:
    assert expected == cell(value)
    assert type(expected) is type(cell(value))


def test_values_are_shown_unchanged_except_for_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [row(1, x="[/red]"), row(2, x="[bold]\x1b[2J")]
    show_results(rows, ranked(rows, ACCURACY), [None], ACCURACY)
    message = capsys.readouterr().out
    assert "[/red]" in message
    assert "[bold]\\x1b[2J" in message
    assert "\x1b[2J" not in message


# The ends of ranges ------------------------------------------------------------------------------

RATE = "optimizer.learning_rate"
LOG = {"distribution": "log_uniform_values", "min": 0.001, "max": 1.0}


def edges_of(values: list[Any], best: int, spec: object, key: str = RATE) -> list[Edge]:
    """Return the edges of trials with these values, of which one has the highest accuracy."""
    rows = [row(i + 1, 0.9 + (i == best) / 100, **{key: value}) for i, value in enumerate(values)]
    parameters: dict[str, Any] = {key: spec}
    text = "network: {layers: [{units: 5, activation: relu}, {units: 10, activation: softmax}]}"
    base = read(f"{text}\noptimizer: {{learning_rate: 0.1}}", "base.yaml")
    plan = Plan(base, SweepConfig(parameters=parameters), {})
    return [*edges(ranked(rows, ACCURACY), plan.sweep.space, plan.allows)]


@pytest.mark.parametrize(
    ("values", "best", "spec", "is_upper"),
    [
        ([0.1, 0.5, 1.0], 2, [0.1, 0.5, 1.0], True),
        ([0.1, 0.5, 1.0], 0, [1.0, 0.5, 0.1], False),
        ([0.002, 0.01, 0.99, 0.1, 0.3], 2, LOG, True),
        ([0.0011, 0.01, 0.99, 0.1, 0.3], 0, LOG, False),
    ],
)
def test_the_best_value_may_be_at_an_end_of_its_range(
    values: list[float], best: int, spec: object, is_upper: bool
) -> None:
    [edge] = edges_of(values, best, spec)
    assert (edge.key, edge.value, edge.is_upper) == (RATE, values[best], is_upper)
    assert (edge.low, edge.high) == pytest.approx((min(0.001, 1) if spec is LOG else 0.1, 1.0))


@pytest.mark.parametrize(
    ("values", "best", "spec", "key"),
    [
        ([0.1, 0.5, 1.0], 1, [0.1, 0.5, 1.0], RATE),
        ([0.1, 1.0], 1, [0.1, 1.0], RATE),
        ([0.1, 1.0], 1, [0.1, 1.0, 10.0], RATE),  # the last one diverged
        ([0.1, 0.5, 1.0], 2, [0.1, 0.5, 1.0, 10.0], RATE),
        ([0.002, 0.01, 0.99, 0.1], 2, LOG, RATE),  # too few
        ([0.002, 0.01, 0.1, 0.5, 0.7], 4, LOG, RATE),
        ([0.1, 0.2, 9.0, 0.4, 0.5], 2, {"distribution": "log_normal"}, RATE),
        ([0, 1, 2], 2, [0, 1, 2], "training.seed"),
        ([1, 2, 3], 2, [1, 2, 3], "data.positive_digit"),
        ([0.0, 0.3, 0.6], 0, [0.0, 0.3, 0.6], "network.layers.0.dropout"),  # none below 0
        ([1, 2, 3], 0, [1, 2, 3], "training.batch_size"),
        ([False, True, None], 1, [False, True, None], "optimizer.nesterov"),
        (["sgd", "adam", "adagrad"], 2, ["sgd", "adam", "adagrad"], "optimizer.name"),
    ],
)
def test_other_best_values_are_not_at_an_end(
    values: list[Any], best: int, spec: object, key: str
) -> None:
    assert edges_of(values, best, spec, key) == []


def test_without_a_complete_trial_no_value_is_at_an_end() -> None:
    assert edges_of([], 0, LOG) == []
