"""How a sweep handles the end of its trials: results, retries, and when it stops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError
from pathlib import Path

import pytest

from nnctl.data.dataset import Dataset, open_dataset
from nnctl.errors import StorageError, UsageError
from nnctl.nn.loop import TrainingLoop
from nnctl.sweeps.scheduler import Limits
from nnctl.sweeps.trials import LOG, MetricHistory, Trial, TrialResult, run_trial
from tests.conftest import Nnctl
from tests.runs.helpers import ignore
from tests.sweeps import stubs
from tests.sweeps.helpers import (
    begin_sweep,
    journal,
    resume_sweep,
    statuses,
    train_sweep,
    wait_until,
)
from tests.sweeps.workers import ThreadWorkers

pytestmark = pytest.mark.usefixtures("scratch")


@pytest.fixture
def workers() -> Iterator[ThreadWorkers]:
    """A pool of one worker in this process."""
    with ThreadWorkers() as started:
        yield started


# Trials ------------------------------------------------------------------------------------------


def only_trial(sweep: Path) -> Trial:
    """Return the first trial of a sweep, to train it outside the sweep."""
    planned = next(line for line in journal(sweep) if line["event"] == "planned")
    dataset = open_dataset("mini", notify=ignore)
    config = json.dumps(planned["config"])
    point = planned["parameters"]
    return Trial(1, planned["id"], point, planned["seed"], config, dataset, sweep / "trial-001")


def never() -> bool:
    """Return False: the trial should continue."""
    return False


def test_a_trial_that_was_complete_when_its_sweep_was_killed_is_not_trained_again(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = next(line for line in journal(sweep) if line["event"] == "ended")
    monkeypatch.delattr(TrainingLoop, "_train_block")
    trial = only_trial(sweep)
    row = run_trial(trial, trial.dataset, never)
    assert row.status == "finished"
    for key in ("id", "val_accuracy", "val_loss", "best_epoch", "epochs", "seed"):
        assert getattr(row, key) == before[key]


def test_a_trial_restarts_if_a_killed_process_left_only_temporary_files(
    sweep: Path,
) -> None:
    trial = only_trial(sweep)
    for path in trial.directory.iterdir():
        path.unlink()
    (trial.directory / ".lock").touch()
    (trial.directory / ".config.yaml.0badcafe.nnctl-tmp").touch()
    assert run_trial(trial, trial.dataset, never).status == "finished"
    assert not list(trial.directory.glob(".*"))


def test_a_trial_with_a_damaged_checkpoint_restarts(sweep: Path) -> None:
    trial = only_trial(sweep)
    before = run_trial(trial, trial.dataset, never)
    (trial.directory / "summary.json").unlink()
    checkpoint = trial.directory / "last.npz"
    damaged = bytearray(checkpoint.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    checkpoint.write_bytes(damaged)
    after = run_trial(trial, trial.dataset, never)
    assert (after.status, after.val_loss) == ("finished", before.val_loss)
    assert "restarted from the beginning" in (trial.directory / LOG).read_text("utf-8")


# Deaths ------------------------------------------------------------------------------------------


def test_a_trial_whose_workers_die_completes_if_it_makes_progress(
    workers: ThreadWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        MetricHistory, "read", lambda _: False
    )  # the sweep does not see the progress
    sweep = begin_sweep("training.epochs=6", work=stubs.die_every_two_epochs)
    (row,) = train_sweep(sweep, workers)
    assert (row.status, row.epochs) == ("finished", 6)
    log = Path(f"sweep/trial-001/{LOG}").read_text("utf-8")
    assert log.count("the worker process died") == 3
    assert log.count("started by process") == 4


def test_a_trial_whose_worker_died_waits_until_all_others_have_started(
    workers: ThreadWorkers,
) -> None:
    started = []

    def die_in_the_first(trial: Trial, *_: object) -> TrialResult:
        started.append(trial.number)
        return (stubs.die_at_once if trial.number == 1 else stubs.raise_differently)(trial)

    train_sweep(begin_sweep("training.seed=0,1,2", work=die_in_the_first), workers)
    assert started == [1, 2, 3, 1]


@pytest.mark.parametrize("how", ["cancelled", "interrupted"])
def test_a_trial_that_was_lost_without_an_error_restarts_at_once(
    workers: ThreadWorkers, how: str
) -> None:
    started = []

    def lose_the_first(trial: Trial, dataset: Dataset, stop: stubs.Stop) -> TrialResult:
        started.append(trial.number)
        if len(started) > 1:
            return run_trial(trial, dataset, stop)
        if how == "cancelled":
            raise CancelledError
        return run_trial(trial, dataset, lambda: True)

    rows = train_sweep(begin_sweep("training.seed=0,1", work=lose_the_first), workers)
    assert started == [1, 1, 2]
    assert statuses(rows) == ["finished"] * 2
    assert "died" not in Path(f"sweep/trial-001/{LOG}").read_text("utf-8")


def test_workers_that_always_die_stop_the_sweep(workers: ThreadWorkers) -> None:
    sweep = begin_sweep("training.seed=0,1,2,3,4,5", work=stubs.die_at_once)
    rows = train_sweep(sweep, workers)
    assert {"failed"} == set(statuses(rows))
    assert rows[0].reason.startswith("the worker process died twice in the same epoch: killed")
    assert sweep.ended_because == (
        f"the first three trials failed with the same error: {rows[0].reason}"
    )


def test_a_trial_that_takes_too_long_is_stopped_and_keeps_its_checkpoint(
    workers: ThreadWorkers,
) -> None:
    sweep = begin_sweep("training.epochs=9", work=stubs.hold_after_two_epochs)
    (row,) = train_sweep(sweep, workers, Limits(trial_timeout=0.5))
    assert (row.status, row.reason) == ("failed", "timeout: it took longer than 0.5 s")
    assert Path("sweep/trial-001/last.npz").exists()


def test_a_trial_that_does_not_stop_is_killed(
    workers: ThreadWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(trial: Trial, _: Dataset, stop: stubs.Stop) -> TrialResult:
        wait_until(stop)
        wait_until(lambda: workers.killed == [trial.number])
        raise BrokenExecutor

    monkeypatch.setattr("nnctl.sweeps.scheduler._GRACE", 0.2)
    (row,) = train_sweep(begin_sweep(work=hang), workers, Limits(trial_timeout=0.2))
    assert (row.status, row.reason) == (
        "failed",
        "timeout: it did not stop after 0.2 s and was killed",
    )


# Failures ----------------------------------------------------------------------------------------


def test_three_different_failures_do_not_stop_the_sweep(workers: ThreadWorkers) -> None:
    sweep = begin_sweep("training.seed=0,1,2,3", work=stubs.raise_differently)
    rows = train_sweep(sweep, workers)
    assert statuses(rows) == ["failed"] * 4
    assert rows[0].reason == "ValueError: b"
    assert sweep.ended_because is None


def test_a_sweep_stops_after_the_maximum_number_of_failures_and_can_resume(
    workers: ThreadWorkers,
) -> None:
    sweep = begin_sweep("training.seed=0,1,2,3,4", work=stubs.raise_differently)
    assert [row.trial for row in train_sweep(sweep, workers, Limits(max_failures=2))] == [1, 2]
    assert sweep.ended_because == "stopped after 2 trials failed"
    rows = train_sweep(resume_sweep(retry_failed=True), workers)
    assert [(row.trial, row.status) for row in rows] == [(1, "finished"), (2, "finished")]
    rest = train_sweep(resume_sweep(), workers)
    assert [(row.trial, row.status) for row in rest] == [(n, "finished") for n in (3, 4, 5)]


def test_failures_before_a_resume_count_too(workers: ThreadWorkers) -> None:
    sweep = begin_sweep("training.seed=0,1,2,3,4,5", work=stubs.raise_with_a_number)
    assert len(train_sweep(sweep, workers, Limits(max_failures=1))) == 1
    assert sweep.ended_because == "stopped after 1 trial failed"
    again = resume_sweep(stubs.raise_with_a_number)
    assert len(train_sweep(again, workers)) == 2
    assert again.ended_because is not None
    assert "the first three trials failed with the same error" in again.ended_because


def test_retrying_can_be_interrupted_and_repeated(workers: ThreadWorkers) -> None:
    train_sweep(begin_sweep("training.seed=0,1", work=stubs.raise_differently), workers)
    retrying = resume_sweep(stubs.wait_to_be_stopped, retry_failed=True)
    looks = iter([False])  # the first trial begins; then the sweep should stop
    rows = train_sweep(retrying, workers, stop=lambda: next(looks, True))
    assert statuses(rows) == ["interrupted"]
    assert statuses(train_sweep(resume_sweep(retry_failed=True), workers)) == ["finished"] * 2


def test_a_full_disk_stops_the_sweep_and_no_trial_fails(workers: ThreadWorkers) -> None:
    sweep = begin_sweep("training.seed=0,1,2", work=stubs.find_the_disk_full)
    with pytest.raises(StorageError, match="No space left"):
        train_sweep(sweep, workers)
    assert statuses(sweep.results.values()) == ["finished"]
    assert statuses(train_sweep(resume_sweep(), workers)) == ["finished"] * 2


@pytest.mark.usefixtures("in_threads")
def test_only_one_process_at_a_time_trains_a_sweep(nnctl: Nnctl) -> None:
    with begin_sweep("training.seed=0"):
        with pytest.raises(UsageError, match="is a sweep that is being trained by another process"):
            resume_sweep()
        assert "being trained by another" in nnctl("sweep", "--resume", "sweep", code=2).stderr
    with resume_sweep() as free:
        assert free.state.total == 1
