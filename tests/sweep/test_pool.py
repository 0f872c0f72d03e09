"""A sweep on the processes of this machine: they share the work, and none of them can end it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nnctl.config import to_mapping
from nnctl.data.dataset import open_dataset
from nnctl.errors import StorageError, UsageError
from nnctl.nn.training import Training
from nnctl.runs.directory import Run
from nnctl.runs.plan import load_config, settle
from nnctl.sweep import pool
from nnctl.sweep.plan import Plan, TrialMaker, read_plan
from nnctl.sweep.pool import LocalPool
from nnctl.sweep.sweep import Limits, Sweep
from nnctl.sweep.trials import LOG, Curve, Trial, TrialResult, run_trial
from nnctl.sweep.workers import Work
from tests.conftest import CONFIGS, nnctl_command
from tests.runs.helpers import ignore
from tests.sweep import stubs

pytestmark = pytest.mark.usefixtures("scratch")
posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

SWEEP = (
    "sweep", CONFIGS / "smoke.yaml", "-p", "training.seed=0,1,2,3,4,5", "--workers", 2,
    "--sweep-dir", "sweep",
)  # fmt: skip


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start a sweep as a terminal would, in a process group of its own."""
    return subprocess.Popen(
        nnctl_command(*SWEEP, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_until(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is so, while a process runs."""
    deadline = time.monotonic() + 60
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def begun(trial: int) -> bool:
    """Tell whether a trial has complete epochs."""
    return Path(f"sweep/trial-{trial:03d}/metrics.jsonl").exists()


def workers_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the worker processes of a sweep."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def smoke_plan(*varied: str) -> Plan:
    """Return a plan that varies a small training."""
    return read_plan(CONFIGS / "smoke.yaml", varied)


def new_sweep(plan: Plan, work: Work = run_trial) -> Sweep:
    """Return a sweep in the folder ``sweep``."""
    home = Run.create_at(Path("sweep")).directory
    return Sweep.begin(home, plan, plan.checked_points(), TrialMaker(None, ignore), work)


def results_of(
    sweep: Sweep, limits: Limits | None = None, stop: Callable[[], bool] = lambda: False
) -> list[TrialResult]:
    """Train what is left of a sweep on two processes, and return what comes of it."""
    with sweep, LocalPool(2) as workers:
        return [result for result in sweep.train(workers, stop, limits) if result]


@posix
def test_a_killed_worker_does_not_end_the_sweep() -> None:
    process = start("--set", "training.epochs=30")
    wait_until(lambda: begun(1), process)
    workers_of(process)[0].kill()
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    rows = Path("sweep/results.csv").read_text("utf-8").splitlines()
    assert sum(",finished," in row for row in rows) == 6, rows
    assert stdout.splitlines()[-1].startswith("sweep/trial-")
    logs = [path.read_text("utf-8") for path in Path("sweep").glob(f"trial-*/{LOG}")]
    assert sum(log.count("begun by process") for log in logs) == 7
    assert sum(log.count("its worker process died") for log in logs) == 1


@posix
def test_a_sweep_whose_journal_is_removed_ends_in_a_sentence() -> None:
    process = start("--set", "training.epochs=30")
    wait_until(lambda: begun(1), process)
    Path("sweep/journal.jsonl").unlink()
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    assert "sweep/journal.jsonl cannot be written" in stderr
    assert "begin it again" in stderr
    assert "Traceback" not in stderr
    assert not Path("sweep/journal.jsonl").exists()


@posix
@pytest.mark.parametrize("to_group", [True, False], ids=["Ctrl-C", "SIGTERM to the parent"])
def test_a_signal_lets_the_workers_save_and_leaves_no_orphan(to_group: bool) -> None:
    process = start("--set", "training.epochs=2000")
    wait_until(lambda: begun(1) and begun(2), process)
    workers = workers_of(process)
    if to_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted: 0 of 6 trials are complete" in stderr
    assert "nnctl sweep --resume sweep" in stderr
    assert "Traceback" not in stderr
    rows = Path("sweep/results.csv").read_text("utf-8").splitlines()
    assert sum(",interrupted," in row for row in rows) == 2, rows
    assert not any(worker.is_running() for worker in workers)
    for trial in (1, 2):
        assert Path(f"sweep/trial-{trial:03d}/last.npz").exists()


@posix
def test_a_sigterm_to_the_whole_group_lets_the_workers_save() -> None:
    process = start("--set", "training.epochs=2000")
    wait_until(lambda: begun(1) and begun(2), process)
    os.killpg(process.pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    rows = Path("sweep/results.csv").read_text("utf-8").splitlines()
    assert sum(",interrupted," in row for row in rows) == 2, rows


@posix
def test_a_second_interrupt_waits_for_nobody() -> None:
    process = start("--set", "training.epochs=2000")
    wait_until(lambda: begun(1) and begun(2), process)
    workers = workers_of(process)
    for worker in workers:
        worker.suspend()  # they cannot save, as if they hung
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=10)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    psutil.wait_procs(workers, timeout=10)
    assert not any(worker.is_running() for worker in workers)


@posix
def test_workers_end_when_their_parent_is_killed() -> None:
    process = start("--set", "training.epochs=2000")
    wait_until(lambda: begun(1) and begun(2), process)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    with contextlib.suppress(psutil.NoSuchProcess):
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive


@posix
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_while_the_workers_start_ends_them(times: int) -> None:
    process = start("--set", "training.epochs=100000")
    journal = Path("sweep/journal.jsonl")
    wait_until(lambda: journal.exists() and '"started"' in journal.read_text("utf-8"), process)
    for _ in range(times):
        time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    for word in ("Traceback", "Fatal", "KeyboardInterrupt"):
        assert word not in stderr


@posix
def test_streams_that_are_closed_cost_no_trial() -> None:
    words = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *nnctl_command(*SWEEP, "--epochs", 1)]
    assert subprocess.run(words, check=False, timeout=60).returncode == 0
    rows = Path("sweep/results.csv").read_text("utf-8").splitlines()
    assert sum(",finished," in row for row in rows) == 6, rows


def test_a_trial_whose_worker_died_at_its_very_beginning_is_begun_again() -> None:
    dataset = open_dataset("mini", notify=ignore)
    config = to_mapping(settle(load_config(CONFIGS / "smoke.yaml"), dataset))
    config["training"]["epochs"] = 1
    directory = Path("trial-001")
    directory.mkdir()
    (directory / ".lock").touch()
    (directory / ".config.yaml.0badcafe.nnctl-tmp").touch()
    trial = Trial(1, "id", {}, 0, json.dumps(config), dataset, directory)
    assert run_trial(trial, dataset, lambda: False).status == "finished"
    assert not list(directory.glob(".*"))


def test_a_trial_with_a_damaged_checkpoint_is_begun_anew() -> None:
    sweep = new_sweep(smoke_plan("training.epochs=2"))
    (before,) = results_of(sweep)
    journal = Path("sweep/journal.jsonl")
    lines = journal.read_text("utf-8").splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]), encoding="utf-8")  # as if it was not known to be done
    Path("sweep/trial-001/summary.json").unlink()
    damaged = bytearray(Path("sweep/trial-001/last.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    Path("sweep/trial-001/last.npz").write_bytes(damaged)
    (after,) = results_of(Sweep.resume(Path("sweep"), TrialMaker(None, ignore)))
    assert (after.status, after.val_loss) == ("finished", before.val_loss)
    assert "begun anew" in Path(f"sweep/trial-001/{LOG}").read_text("utf-8")


def test_a_trial_that_was_done_when_its_sweep_was_killed_is_not_trained_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep = new_sweep(smoke_plan("training.epochs=2"))
    (before,) = results_of(sweep)
    dataset = open_dataset("mini", notify=ignore)
    trial = Trial(1, before.id, before.parameters, 0, "{}", dataset, Path("sweep/trial-001"))
    monkeypatch.delattr(Training, "_take_steps")
    assert run_trial(trial, dataset, lambda: False) == before


def stop_soon() -> Callable[[], bool]:
    """Return a word to stop that is given when the trials are being trained."""
    looks = iter(range(1_000_000))
    return lambda: next(looks) > 10


class TestFailures:
    """Whatever goes wrong with a trial is a row, with its reason and the end of its log."""

    def test_a_trial_that_raises_is_a_row_with_its_traceback(self) -> None:
        first, *others = sorted(
            results_of(new_sweep(smoke_plan("training.seed=0,1,2"), stubs.raise_in_the_first)),
            key=lambda row: row.trial,
        )
        assert (first.status, first.reason) == ("failed", "ZeroDivisionError: division")
        assert "stubs.py" in first.log
        assert [row.status for row in others] == ["finished", "finished"]

    def test_what_a_worker_prints_is_in_the_log_of_its_trial(self) -> None:
        (row,) = results_of(new_sweep(smoke_plan("training.seed=0"), stubs.print_and_raise))
        assert "said by Python" in row.log
        assert "said by a library" in row.log

    @posix
    def test_a_trial_that_kills_its_worker_twice_is_a_row(self) -> None:
        first, second = sorted(
            results_of(new_sweep(smoke_plan("training.seed=0,1"), stubs.kill_the_first)),
            key=lambda row: row.trial,
        )
        assert first.reason.startswith("its worker process died twice at the same epoch: killed")
        assert first.log.count("about to die") == 2
        assert second.status == "finished"

    @posix
    def test_a_trial_whose_workers_die_but_which_gets_on_is_trained_to_its_end(self) -> None:
        (row,) = results_of(new_sweep(smoke_plan("training.epochs=6"), stubs.die_after_two_epochs))
        assert (row.status, row.epochs) == ("finished", 6)
        assert Path(f"sweep/trial-001/{LOG}").read_text("utf-8").count("process died") == 3

    @posix
    def test_a_trial_that_got_on_since_the_last_look_at_it_is_not_given_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Curve, "read", lambda _: False)
        (row,) = results_of(new_sweep(smoke_plan("training.epochs=6"), stubs.die_after_two_epochs))
        assert (row.status, row.epochs) == ("finished", 6)

    def test_a_trial_that_crashes_the_interpreter_leaves_its_stack_in_the_log(self) -> None:
        (row,) = results_of(new_sweep(smoke_plan("training.seed=0"), stubs.crash))
        assert row.status == "failed"
        assert "in crash" in row.log

    def test_a_trial_that_takes_too_long_is_stopped_and_keeps_what_it_has(self) -> None:
        plan = smoke_plan("training.epochs=1000000")
        (row,) = results_of(new_sweep(plan), Limits(trial_timeout=2))
        assert (row.status, row.reason) == ("failed", "it took longer than 2 s")
        assert Path("sweep/trial-001/last.npz").exists()

    @pytest.mark.slow
    def test_a_trial_that_hangs_is_killed_and_its_log_tells_where_it_hung(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("nnctl.sweep.sweep._GRACE", 8)
        first, second = sorted(
            results_of(
                new_sweep(smoke_plan("training.seed=0,1"), stubs.hang_in_the_first),
                Limits(trial_timeout=30),  # ample for the other, on a machine that is busy
            ),
            key=lambda row: row.trial,
        )
        assert first.status == "failed"
        assert first.reason.startswith("it hung")
        assert "in hang_in_the_first" in first.log
        assert (second.status, second.reason) == ("finished", "")

    def test_workers_that_cannot_start_are_no_endless_loop(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "_start_worker", os._exit)
        sweep = new_sweep(smoke_plan("training.seed=0,1,2,3,4,5"))
        assert {"failed"} == {row.status for row in results_of(sweep)}
        assert sweep.ended_because is not None
        assert sweep.ended_because.startswith("the first three trials failed alike: its worker")

    def test_three_failures_of_different_kinds_do_not_end_the_sweep(self) -> None:
        sweep = new_sweep(smoke_plan("training.seed=0,1,2,3"), stubs.raise_differently)
        assert [row.status for row in results_of(sweep)] == ["failed"] * 4
        assert sweep.ended_because is None

    def test_a_sweep_ends_when_it_has_as_many_failures_as_allowed(self) -> None:
        sweep = new_sweep(smoke_plan("training.seed=0,1,2,3,4,5"), stubs.raise_differently)
        rows = results_of(sweep, Limits(max_failures=2))
        assert sweep.ended_because == "2 trials have failed"
        assert 2 <= sum(row.status == "failed" for row in rows) <= 3
        again = Sweep.resume(Path("sweep"), TrialMaker(None, ignore))
        rest = results_of(again)
        assert len(rest) + sum(row.status == "failed" for row in rows) == 6
        assert {"finished"} == {row.status for row in rest}

    def test_failures_before_a_resume_count_as_well(self) -> None:
        sweep = new_sweep(smoke_plan("training.seed=0,1,2,3,4,5"), stubs.raise_with_a_number)
        assert len(results_of(sweep, Limits(max_failures=1))) in (1, 2)
        again = Sweep.resume(
            Path("sweep"), TrialMaker(None, ignore), work=stubs.raise_with_a_number
        )
        assert len(results_of(again)) <= 3
        assert again.ended_because is not None
        assert "the first three trials failed alike" in again.ended_because

    def test_retrying_can_be_interrupted_and_repeated(self) -> None:
        results_of(new_sweep(smoke_plan("training.seed=0,1"), stubs.raise_differently))
        maker = TrialMaker(None, ignore)
        assert {"interrupted"} == {
            row.status
            for row in results_of(
                Sweep.resume(Path("sweep"), maker, retry_failed=True, work=stubs.wait_for_the_word),
                stop=stop_soon(),
            )
        }
        again = Sweep.resume(Path("sweep"), maker, retry_failed=True)
        assert [row.status for row in results_of(again)] == ["finished"] * 2

    def test_only_the_failed_trials_are_retried(self) -> None:
        sweep = new_sweep(smoke_plan("training.seed=0,1,2,3,4,5"), stubs.raise_differently)
        failed = {row.trial for row in results_of(sweep, Limits(max_failures=2))}
        again = Sweep.resume(Path("sweep"), TrialMaker(None, ignore), retry_failed=True)
        retried = results_of(again)
        assert failed - {3, 4, 5, 6} <= {row.trial for row in retried} <= failed
        assert {"finished"} == {row.status for row in retried}
        assert (
            len(results_of(Sweep.resume(Path("sweep"), TrialMaker(None, ignore)))) + len(retried)
            == 6
        )

    def test_a_full_disk_ends_the_sweep_and_no_trial_is_to_blame(self) -> None:
        sweep = new_sweep(smoke_plan("training.seed=0,1,2,3"), stubs.find_the_disk_full)
        with pytest.raises(StorageError, match="No space left"):
            results_of(sweep)
        assert not [row for row in sweep.results.values() if row.status == "failed"]
        rows = results_of(Sweep.resume(Path("sweep"), TrialMaker(None, ignore)))
        assert [row.status for row in rows] == ["finished"] * 4


def test_two_processes_do_not_go_on_with_one_sweep() -> None:
    with (
        new_sweep(smoke_plan("training.seed=0")),
        pytest.raises(UsageError, match="by another process"),
    ):
        Sweep.resume(Path("sweep"), TrialMaker(None, ignore))
    with Sweep.resume(Path("sweep"), TrialMaker(None, ignore)) as free:
        assert free.total == 1


def test_a_worker_serves_one_trial_after_another() -> None:
    plan = smoke_plan("training.seed=0,1,2,3,4,5", "training.epochs=1")
    results_of(new_sweep(plan))
    begun_by = {
        line.partition("begun by ")[2]
        for path in Path("sweep").glob(f"*/{LOG}")
        for line in path.read_text("utf-8").splitlines()
        if "begun by" in line
    }
    assert len(begun_by) == 2
