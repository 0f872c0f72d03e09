"""Edits in the directory of a trial do not affect a sweep: only its journal counts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnctl.config import Override, replaced
from nnctl.errors import ConfigError
from nnctl.runs.checkpoint import load_checkpoint, save_checkpoint
from nnctl.runs.run import Run
from nnctl.sweeps.plan import TrialFactory, read_plan
from nnctl.sweeps.scheduler import Sweep
from nnctl.sweeps.search import Search
from nnctl.sweeps.state import SweepState
from nnctl.sweeps.trials import LOG, MetricHistory, run_trial
from tests.conftest import CONFIGS, Nnctl
from tests.runs.helpers import ignore
from tests.sweeps.helpers import journal, table, train_sweep
from tests.sweeps.workers import ThreadWorkers

AGAIN = "restarted from the beginning"


def train(sweep: Sweep) -> None:
    """Train the unfinished trials of a sweep."""
    with ThreadWorkers() as workers:
        train_sweep(sweep, workers)


def begin(home: Path, *, metric: str = "val_accuracy", early: str = "null", **base: Any) -> Sweep:
    """Return a sweep over two learning rates, of which the first is far better."""
    home.parent.joinpath("plan.yaml").write_text(
        f"base: {CONFIGS / 'smoke.yaml'}\nmetric: {metric}\nearly_terminate: {early}\n"
        "parameters: {optimizer.learning_rate: [0.05, 0.001]}\n",
        encoding="utf-8",
    )
    values = {"training.epochs": 2, "data.subset": 1000, "optimizer.schedule": "constant", **base}
    overrides = [Override(key, value, key) for key, value in values.items()]
    plan = read_plan(home.parent / "plan.yaml", overrides=overrides)
    directory = Run.create_at(home).directory
    return Sweep.create(directory, plan, plan.checked_points(), TrialFactory(ignore))


def keep(home: Path, predicate: Callable[[dict[str, Any]], bool]) -> None:
    """Keep only some lines of a sweep's journal."""
    text = "".join(f"{json.dumps(line)}\n" for line in journal(home) if predicate(line))
    (home / "journal.jsonl").write_text(text, encoding="utf-8")


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text in a file."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two trials of two epochs."""
    home = tmp_path_factory.mktemp("finished") / "sweep"
    train(begin(home))
    return home


@pytest.fixture
def sweep(finished: Path, scratch: Path) -> Path:
    """A copy of the finished sweep whose journal lacks the end of the second trial."""
    home = Path(shutil.copytree(finished, scratch / "sweep"))
    keep(home, lambda line: (line["event"], line.get("trial")) != ("ended", 2))
    return home


def remove_summary(trial: Path) -> None:
    (trial / "summary.json").unlink()


def remove_epochs(trial: Path) -> None:
    for name in ("last.npz", "best.npz", "metrics.jsonl", "summary.json"):
        (trial / name).unlink()


def edit_rate(trial: Path) -> None:
    remove_epochs(trial)
    edit(trial / "config.yaml", "learning_rate: 0.001", "learning_rate: 0.05")


def edit_epochs(trial: Path) -> None:
    remove_summary(trial)
    edit(trial / "config.yaml", "epochs: 2", "epochs: 9")


def edit_into_nonsense(trial: Path) -> None:
    (trial / "config.yaml").write_text("network: {layers: [", encoding="utf-8")


def take_checkpoints(trial: Path) -> None:
    for name in ("last.npz", "best.npz", "metrics.jsonl"):
        shutil.copy(trial.parent / "trial-001" / name, trial)


def take_last_checkpoint(trial: Path) -> None:
    shutil.copy(trial.parent / "trial-001" / "last.npz", trial)


def take_best_checkpoint(trial: Path) -> None:
    shutil.copy(trial.parent / "trial-001" / "best.npz", trial)


def take_directory(trial: Path) -> None:
    shutil.rmtree(trial)
    shutil.copytree(trial.parent / "trial-001", trial)


def train_longer(trial: Path) -> None:
    saved = load_checkpoint(trial / "last.npz")
    config = replaced(saved.config, {"training.epochs": 3})
    save_checkpoint(trial / "last.npz", replace(saved, config=config))


def edit_metrics(trial: Path) -> None:
    run = Run(trial)
    first, *others = run.history
    run.metrics_path.unlink()
    for epoch in (replace(first, val_loss=1e-3, val_accuracy=0.99), *others):
        run.append_metrics(epoch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit_rate, "learning_rate: 0.05 in config.yaml, 0.001 in the sweep's journal"),
        (edit_epochs, "training.epochs: 9 in config.yaml, 2 in the sweep's journal"),
        (edit_into_nonsense, "config.yaml:"),
        (take_last_checkpoint, "learning_rate: 0.05 in last.npz, 0.001 in the sweep's journal"),
        (take_checkpoints, "learning_rate: 0.05 in last.npz, 0.001 in the sweep's journal"),
        (take_best_checkpoint, "learning_rate: 0.05 in best.npz, 0.001 in the sweep's journal"),
        (take_directory, "learning_rate: 0.05 in config.yaml, 0.001 in the sweep's journal"),
        (train_longer, "training.epochs: 3 in last.npz, 2 in the sweep's journal"),
        (edit_metrics, "its content was changed after last.npz was saved"),
    ],
)
def test_an_edited_trial_restarts_with_the_configuration_of_the_journal(
    finished: Path, sweep: Path, change: Callable[[Path], None], message: str
) -> None:
    change(sweep / "trial-002")
    train(Sweep.resume(sweep, TrialFactory(ignore)))
    log = (sweep / "trial-002" / LOG).read_text("utf-8")
    assert AGAIN in log
    assert message in log
    assert table(finished) == table(sweep)
    assert Run(sweep / "trial-002").config == Run(finished / "trial-002").config


def test_a_trial_that_was_not_edited_does_not_restart(finished: Path, sweep: Path) -> None:
    before = (sweep / "trial-002" / "metrics.jsonl").read_bytes()
    train(Sweep.resume(sweep, TrialFactory(ignore)))
    assert AGAIN not in (sweep / "trial-002" / LOG).read_text("utf-8")
    assert table(finished) == table(sweep)
    assert before == (sweep / "trial-002" / "metrics.jsonl").read_bytes()


def test_an_edited_summary_does_not_make_a_trial_the_best(finished: Path, sweep: Path) -> None:
    summary = sweep / "trial-002" / "summary.json"
    changed = {**json.loads(summary.read_text("utf-8")), "best_val_accuracy": 0.9999}
    summary.write_text(json.dumps(changed), encoding="utf-8")
    train(Sweep.resume(sweep, TrialFactory(ignore)))
    assert table(finished) == table(sweep)
    assert json.loads(summary.read_text("utf-8"))["best_val_accuracy"] < 0.9


def test_the_command_resumes_with_the_journal_s_configuration(
    nnctl: Nnctl, finished: Path, sweep: Path
) -> None:
    edit_rate(sweep / "trial-002")
    done = nnctl("sweep", "--resume", "sweep", "--workers", 1, "--quiet")
    assert done.stdout.splitlines()[-1] == "sweep/trial-001"
    assert AGAIN in Path("sweep/trial-002", LOG).read_text("utf-8")
    assert table(finished) == table(sweep)


def test_the_leaderboard_compares_only_networks_that_match_the_journal(
    nnctl: Nnctl, finished: Path, scratch: Path
) -> None:
    home = Path(shutil.copytree(finished, scratch / "sweep"))
    shown = nnctl("sweep", "--show", "sweep").stdout
    assert "McNemar's test" in shown
    take_directory(home / "trial-002")
    edited = nnctl("sweep", "--show", "sweep").stdout
    assert "McNemar's test" not in edited
    for row in table(home):
        assert f"{100 * float(row['val_accuracy']):.2f} %" in edited
    assert edited.splitlines()[-1] == "sweep/trial-001"


def test_a_report_does_not_show_another_run_as_a_trial(
    nnctl: Nnctl, finished: Path, scratch: Path
) -> None:
    home = Path(shutil.copytree(finished, scratch / "sweep"))
    take_directory(home / "trial-002")
    stderr = nnctl("report", "sweep", code=3).stderr
    assert "learning_rate: 0.05 in config.yaml, 0.001 in the sweep's journal" in stderr


@pytest.fixture(scope="module")
def by_loss(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep by loss in which the loss of the first trial is the lowest before its last epoch."""
    pytest.importorskip("optuna")
    home = tmp_path_factory.mktemp("loss") / "sweep"
    base = {"training.epochs": 12, "data.subset": 100, "optimizer.momentum": 0.9}
    train(begin(home, metric="val_loss", early="{type: median}", **base))
    return home


def test_ranking_by_loss_uses_the_lowest_loss_of_all_epochs(by_loss: Path) -> None:
    best_by_accuracy = []
    for trial, row in enumerate(table(by_loss), start=1):
        run = Run(by_loss / f"trial-{trial:03d}")
        lowest = min(run.history, key=lambda epoch: float(epoch.val_loss or 0))
        assert float(row["val_loss"]) == lowest.val_loss
        assert float(row["val_accuracy"]) == lowest.val_accuracy
        assert int(row["best_epoch"]) == lowest.epoch
        assert run.summary
        best_by_accuracy.append(run.summary.best_epoch)
    assert best_by_accuracy != [int(row["best_epoch"]) for row in table(by_loss)]
    ended = [line for line in journal(by_loss) if line["event"] == "ended"]
    assert [line["val_loss"] for line in ended] == [
        float(row["val_loss"]) for row in table(by_loss)
    ]


def test_a_sweep_by_loss_shows_the_lowest_losses(nnctl: Nnctl, by_loss: Path) -> None:
    shown = nnctl("sweep", "--show", by_loss).stdout
    for row in table(by_loss):
        assert f"{float(row['val_loss']):.4g}" in shown


def test_pruning_uses_the_scores_of_the_journal(
    by_loss: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(shutil.copytree(by_loss, scratch / "sweep"))
    expected = {
        trial: {row.epoch: row.val_loss for row in Run(home / f"trial-{trial:03d}").history}
        for trial in (1, 2)
    }
    edit_metrics(home / "trial-001")
    reported: dict[int, dict[int, float]] = {}
    monkeypatch.setattr(Search, "should_prune", lambda _, *pair: reported.update([pair]))
    with Sweep.resume(home, TrialFactory(ignore)):
        assert reported == expected


def test_scores_missing_from_an_old_journal_are_read_from_the_run_directories(
    by_loss: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(shutil.copytree(by_loss, scratch / "sweep"))
    lines = [{key: line[key] for key in line if key != "scores"} for line in journal(home)]
    (home / "journal.jsonl").write_text(
        "".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8"
    )
    reported: dict[int, dict[int, float]] = {}
    monkeypatch.setattr(Search, "should_prune", lambda _, *pair: reported.update([pair]))
    with Sweep.resume(home, TrialFactory(ignore)) as resumed:
        assert [len(scores) for scores in reported.values()] == [12, 12]
        assert resumed.results == SweepState.read(home).results


def test_trials_that_are_validated_after_some_epochs_are_compared_at_these_epochs(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    values: dict[str, Any] = {"training.epochs": 5, "training.validate_every": 2}
    train(begin(scratch / "sweep", early="{type: median}", **values))
    ended = [line for line in journal(scratch / "sweep") if line["event"] == "ended"]
    assert [line["epochs"] for line in ended] == [5, 5]
    assert [line["scored_epochs"] for line in ended] == [[2, 4, 5]] * 2
    assert {line["best_epoch"] for line in ended} <= {2, 4, 5}
    reported: dict[int, dict[int, float]] = {}
    monkeypatch.setattr(Search, "should_prune", lambda _, *pair: reported.update([pair]))
    with Sweep.resume(scratch / "sweep", TrialFactory(ignore)):
        assert [[*scores] for scores in reported.values()] == [[2, 4, 5]] * 2
    with pytest.raises(ConfigError, match="compares trials after the same epochs"):
        begin(scratch / "timed", early="{type: median}", **{"training.validate_every": "30s"})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a named pipe")
def test_a_pipe_in_place_of_the_metrics_does_not_block(sweep: Path) -> None:
    path = sweep / "trial-002" / "metrics.jsonl"
    path.unlink()
    os.mkfifo(path)
    assert not MetricHistory(path.parent, "val_loss").read()
    state = SweepState.read(sweep)
    trial = TrialFactory(ignore).make(sweep, state.planned[2])
    assert run_trial(trial, trial.dataset, lambda: False).status == "finished"
    assert path.is_file()


def test_the_scores_of_a_trial_that_ends_between_two_checks_are_compared_with(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    scores: dict[int, int] = {}
    monkeypatch.setattr(
        Search, "should_prune", lambda _, number, seen: scores.update({number: len(seen)})
    )
    monkeypatch.setattr(Sweep, "_check_running", lambda *_: None)  # both end before the next check
    train(begin(scratch / "sweep", early="{type: median}"))
    assert scores == {1: 2, 2: 2}
