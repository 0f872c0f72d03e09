"""``nnctl sweep --resume`` and ``--show``: a resumed sweep has the same results."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nnctl.data.dataset import Dataset
from nnctl.runs.run import Run
from nnctl.sweeps import events
from nnctl.sweeps.journal import Journal
from nnctl.sweeps.plan import read_plan
from nnctl.sweeps.trials import MetricHistory, Trial, TrialResult, run_trial
from nnctl.sweeps.workers import TrainTrial
from tests.conftest import CONFIGS, Nnctl
from tests.processes import DEADLINE, Processes, nnctl_command
from tests.sweeps import stubs
from tests.sweeps.helpers import SMALL, environment, epochs_of, journal, table

pytestmark = pytest.mark.usefixtures("in_threads")
JOURNAL = Path("sweep/journal.jsonl")
RESUME = ("sweep", "--resume", "sweep")
XOR = CONFIGS / "gates" / "xor.yaml"


def cut_journal(*, kept: int, torn: int = 0) -> None:
    """Keep the first lines of the journal, and `torn` bytes of the next one."""
    lines = JOURNAL.read_bytes().splitlines(keepends=True)
    JOURNAL.write_bytes(b"".join(lines[:kept]) + b"".join(lines[kept:])[:torn])


# Interrupted sweeps ------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [0, 50])
@pytest.mark.parametrize("kept", range(1, 11))
def test_a_sweep_resumes_from_any_line_of_its_journal(
    nnctl: Nnctl, sweep: Path, kept: int, torn: int
) -> None:
    before, lines = table(sweep), journal(sweep)
    assert len(lines) == 11
    cut_journal(kept=kept, torn=torn)
    for trial in {1, 2, 3} - {line["trial"] for line in lines[:kept] if line["event"] == "ended"}:
        shutil.rmtree(sweep / f"trial-{trial:03d}")
    done = sum(line["event"] == "ended" for line in lines[:kept])
    stderr = nnctl(*RESUME).stderr
    assert f"{done} of them already done" in stderr or not done
    assert table(sweep) == before
    assert sum(line["event"] == "ended" for line in journal(sweep)) == 3


def test_resuming_a_complete_sweep_trains_nothing(
    nnctl: Nnctl, sweep: Path, finished: tuple[Path, str], scratch: Path
) -> None:
    logs = {path: path.read_bytes() for path in sweep.glob("*/log.txt")}
    assert nnctl(*RESUME).stdout == finished[1]
    assert nnctl("sweep", "--show", "sweep").stdout == finished[1]
    last_line = finished[1].splitlines()[-1]
    shown = nnctl("sweep", "--show", scratch / "sweep").stdout
    assert shown.endswith(f"{scratch / last_line}\n")
    assert {path: path.read_bytes() for path in sweep.glob("*/log.txt")} == logs


def test_a_resumed_sweep_prints_all_its_trials_as_json(nnctl: Nnctl, sweep: Path) -> None:
    cut_journal(kept=10)
    resumed = nnctl(*RESUME, "--json").stdout.splitlines()
    assert sorted(json.loads(line)["trial"] for line in resumed) == [1, 2, 3]
    shown = nnctl("sweep", "--show", "sweep", "--json").stdout.splitlines()
    assert [json.loads(line)["trial"] for line in shown] == [1, 2, 3]
    stored = (sweep / "results.jsonl").read_text("utf-8").splitlines()
    assert list(map(json.loads, shown)) == list(map(json.loads, stored))


def test_unfinished_trials_are_shown_with_their_epochs(nnctl: Nnctl, sweep: Path) -> None:
    text = (sweep / "journal.jsonl").read_text("utf-8")
    text = text.replace('"status": "finished"', '"status": "interrupted"', 2)
    (sweep / "journal.jsonl").write_text(text, encoding="utf-8")
    stderr = nnctl("sweep", "--show", "sweep").stderr
    assert "unfinished trials: 2" in stderr
    assert stderr.count("is at epoch 3 of 3, ") == 2


def test_retry_failed_is_refused_if_no_trial_has_failed(
    nnctl: Nnctl, sweep: Path, finished: tuple[Path, str]
) -> None:
    retry = (*RESUME, "--retry-failed")
    assert nnctl(*retry).stdout == finished[1]
    cut_journal(kept=7)
    before = sorted(sweep.iterdir())
    stderr = nnctl(*retry, code=2).stderr
    assert "no trial of sweep has failed" in stderr
    assert "Unfinished trials: 2. To resume without --retry-failed: nnctl sweep" in stderr
    assert sorted(sweep.iterdir()) == before
    assert nnctl(*RESUME).stdout == finished[1]


@pytest.mark.usefixtures("sweep")
def test_a_journal_of_another_version_is_read_if_its_keys_are_known(nnctl: Nnctl) -> None:
    text = JOURNAL.read_text("utf-8")
    more = text.replace('"event": "ended"', '"event": "ended", "news": 1')
    JOURNAL.write_text(more, encoding="utf-8")
    assert "sweep/trial-00" in nnctl(*RESUME).stdout
    lines = text.replace('"config": {', '"config": {"news": 1, ').splitlines(keepends=True)
    JOURNAL.write_text("".join(line for line in lines if '"ended"' not in line), encoding="utf-8")
    assert "unknown key 'news'" in nnctl(*RESUME, code=2).stderr


def test_a_sweep_that_cannot_write_stops_with_a_hint_and_can_resume(
    nnctl: Nnctl, in_threads: Callable[..., None], finished: tuple[Path, str]
) -> None:
    in_threads(stubs.find_the_disk_full)
    words = ("sweep", SMALL, "-p", "training.seed=0,1,2", "--workers", 2, "--sweep-dir", "sweep")
    stderr = nnctl(*words, code=1).stderr
    assert "No space left on device" in stderr
    assert "What was saved before is intact." in stderr
    assert "nnctl sweep --resume sweep --workers 2" in stderr
    in_threads()
    assert "1 of them already done" in nnctl(*RESUME).stderr
    assert table("sweep") == table(finished[0])


def test_a_sweep_whose_journal_is_removed_cannot_resume(
    nnctl: Nnctl, in_threads: Callable[..., None]
) -> None:
    def remove_journal(*_: object) -> TrialResult:
        JOURNAL.unlink()
        raise ValueError

    in_threads(remove_journal)
    stderr = nnctl("sweep", SMALL, "-p", "training.seed=0,1", "--sweep-dir", "sweep", code=1).stderr
    assert "sweep/journal.jsonl cannot be written" in stderr
    assert "start the sweep again" in stderr
    assert not JOURNAL.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_killed_at_random_moments_has_the_same_results_as_an_undisturbed_one(
    nnctl: Nnctl, processes: Processes, seed: int
) -> None:
    words: tuple[object, ...] = (
        "sweep", SMALL, "-p", "training.seed=0,1,2", "-p", "optimizer.learning_rate=0.05,1e30",
        "--epochs", 40, "--workers", 2, "--quiet",
    )  # fmt: skip
    nnctl(*words, "--sweep-dir", "alone")
    rng = random.Random(seed)
    words = (*words, "--sweep-dir", "sweep")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    patience = 0.3
    while True:
        process = processes.start(nnctl_command(*words), env=environment(), **quiet)
        try:
            process.wait(timeout=patience * rng.uniform(1, 3))
        except subprocess.TimeoutExpired:
            kill_at_random(rng, process)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        patience *= 1.2  # a busy machine needs more time to make progress
        if JOURNAL.exists() and JOURNAL.stat().st_size:
            words = (*RESUME, "--workers", 2, "--quiet")
        else:  # killed before the sweep started
            shutil.rmtree("sweep", ignore_errors=True)
    assert table("alone") == table("sweep")
    ended = [line["trial"] for line in journal("sweep") if line["event"] == "ended"]
    assert sorted(ended) == [1, 2, 3, 4, 5, 6]


def kill_at_random(rng: random.Random, process: subprocess.Popen[str]) -> None:
    """Kill a sweep, one of its workers, or all processes at once."""
    family = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in family if "spawn_main" in " ".join(child.cmdline())]
    match rng.choice(["sweep", "worker", "all"]):
        case "worker" if workers:
            rng.choice(workers).kill()
            process.wait(DEADLINE)
        case "all":
            for member in [psutil.Process(process.pid), *family]:
                member.kill()
        case _:
            process.kill()
    process.wait(DEADLINE)


# Mistakes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected", "content"),
    [
        (2, "has no journal.jsonl", None),
        (2, "is empty: the sweep was interrupted before it started", ""),
        (3, "journal.jsonl:1 is damaged", "nonsense\n"),
        (3, "format version 99", '{"event": "sweep", "format_version": 99}\n'),
    ],
)
@pytest.mark.parametrize("option", ["--resume", "--show"])
def test_a_directory_without_a_valid_journal_is_refused(
    nnctl: Nnctl, option: str, code: int, expected: str, content: str | None
) -> None:
    Path("sweep").mkdir()
    if content is not None:
        JOURNAL.write_text(content, encoding="utf-8")
    assert expected in nnctl("sweep", option, "sweep", code=code).stderr


@pytest.mark.parametrize(
    ("expected", "arguments"),
    [
        ("use exactly one of CONFIG, --resume DIR and --show DIR", ()),
        ("use exactly one of CONFIG", (SMALL, "--resume", "sweep")),
        (
            "--workers and --scheduler cannot",
            (SMALL, "--scheduler", "x:1", "--workers", 2),
        ),
        ("the sweep already varies training.seed", (SMALL, "-p", "training.seed=1,2", "--seed", 3)),
        ("folds sets the validation", (SMALL, "-p", "data.validation=1,2", "--folds", 2)),
        ("are too few for 9 folds", (XOR, "-p", "training.seed=1,2", "--folds", 9)),
        ("--retry-failed needs --resume", (SMALL, "--retry-failed")),
        ("no other option can change the trials", ("--resume", "sweep", "--epochs", 3)),
        ("no other option can change the trials", ("--resume", "sweep", "--folds", 3)),
        ("no option can change the trials", ("--show", "sweep", "-p", "training.seed=1")),
        ("cannot add some", ("--resume", "sweep", "--retry-failed", "--trials", 3)),
        ("is not a sweep directory", ("--resume", "nowhere")),
        ("is not a sweep directory", ("--show", "nowhere")),
        ("not in the range", (SMALL, "--workers", 10**11)),
        ("not in the range", (SMALL, "--trial-timeout", 0)),
        ("nan is not a finite number", (SMALL, "--trial-timeout", "nan")),
        ("inf is not a finite number", (SMALL, "--trial-timeout", "1e400")),
        ("not in the range", (SMALL, "--max-failures", 0)),
    ],
)
def test_options_that_cannot_be_combined_are_a_usage_error(
    nnctl: Nnctl, expected: str, arguments: tuple[object, ...]
) -> None:
    assert expected in nnctl("sweep", *arguments, code=2).stderr


# Extended sweeps ---------------------------------------------------------------------------------


def test_a_grid_is_extended_by_values_and_seeds_and_trains_only_what_is_new(nnctl: Nnctl) -> None:
    rates = "optimizer.learning_rate=0.1,1e-3"
    nnctl("sweep", SMALL, "-p", rates, "-p", "training.batch_size=20,50", "--sweep-dir", "sweep")
    before = table("sweep")
    nnctl(*RESUME, "-p", "optimizer.learning_rate=0.2,0.1", "--workers", 1)
    grid = table("sweep")
    assert grid[:4] == before
    points = [(row["optimizer.learning_rate"], row["training.batch_size"]) for row in grid[4:]]
    assert points == [("0.2", "20"), ("0.2", "50")]
    shown = nnctl(*RESUME, "--seeds", 2).stdout
    assert "mean of 2 seeds" in shown
    both = table("sweep")
    assert both[:6] == grid
    assert [row["seed"] for row in both[6:]] == ["1"] * 6
    started = [line["trial"] for line in journal("sweep") if line["event"] == "started"]
    assert sorted(started) == list(range(1, 13))
    # The same again adds nothing, and so does a resume that does not extend.
    for again in (("-p", "optimizer.learning_rate=0.2"), ("--seeds", 2), ()):
        nnctl(*RESUME, *again)
    assert table("sweep") == both


EXTENSIBLE = {
    "random": "method: random\ntrials: 2\nseed: 3\nparameters:\n"
    "  optimizer.learning_rate: {min: 0.01, max: 0.5}\n",
    "tpe": "method: tpe\ntrials: 2\nseed: 3\nparameters:\n"
    "  optimizer.learning_rate: {min: 0.01, max: 0.5}\n",
    "pruned": "method: random\ntrials: 2\nseed: 3\nearly_terminate: {type: median}\nparameters:\n"
    "  optimizer.learning_rate: {distribution: log_uniform_values, min: 1.0e-6, max: 0.5}\n",
}


@pytest.mark.parametrize("name", EXTENSIBLE)
def test_an_extended_search_has_the_trials_of_a_longer_one(nnctl: Nnctl, name: str) -> None:
    write_sweep("search.yaml", EXTENSIBLE[name])
    nnctl("sweep", "search.yaml", "--trials", 5, "--sweep-dir", "longer")
    nnctl("sweep", "search.yaml", "--sweep-dir", "sweep")
    before = table("sweep")
    nnctl(*RESUME, "--trials", 5)
    assert table("sweep")[: len(before)] == before
    assert table("sweep") == table("longer")
    # A sweep that is killed while it is extended has all its trials in the end.
    lines = JOURNAL.read_bytes().splitlines(keepends=True)
    extended = [line["event"] for line in journal("sweep")].index("extended")
    for kept in (extended + 1, extended + 2):
        cut_journal(kept=kept)
        nnctl(*RESUME)
        assert table("sweep") == table("longer")
        JOURNAL.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    ("message", "name", "arguments"),
    [
        ("--trials 1: the sweep already has 2; it can only", "random", ("--trials", 1)),
        ("method random draws all points from the", "random", ("-p", "training.seed=1")),
        ("method tpe draws all points from the same", "tpe", ("-p", "training.seed=1")),
        ("tpe has chosen its points by the results of 1", "tpe", ("--seeds", 2)),
        ("cannot be used with seeds", "pruned", ("--seeds", 2)),
        ("the sweep tries all points of its grid", "grid", ("--trials", 9)),
        ("does not vary optimizer.momentum, but training", "grid", ("-p", "optimizer.momentum=0")),
        ("extended by values, not by a range", "grid", ("-p", "training.batch_size=int:3:5")),
        ("-p training.batch_size=0: training.batch_size", "grid", ("-p", "training.batch_size=0")),
        ("only the first 2 points of its grid", "first", ("-p", "training.batch_size=7")),
    ],
)
def test_a_change_that_is_not_an_extension_is_refused_and_changes_nothing(
    nnctl: Nnctl, message: str, name: str, arguments: tuple[object, ...]
) -> None:
    grid = "parameters: {training.batch_size: [20, 50]}\n"
    texts = {**EXTENSIBLE, "grid": grid, "first": f"trials: 2\n{grid}"}
    write_sweep("search.yaml", texts[name])
    plan = read_plan(Path("search.yaml"))
    Journal(Path("sweep")).path.parent.mkdir()
    Journal(Path("sweep")).append([events.Created(plan=plan.to_json()), events.PlanComplete()])
    before = JOURNAL.read_bytes()
    assert message in " ".join(nnctl(*RESUME, *arguments, code=2).stderr.split())
    assert JOURNAL.read_bytes() == before


# Searches and seeds ------------------------------------------------------------------------------


def write_sweep(name: str, text: str) -> None:
    """Write a sweep file whose base is the small configuration."""
    Path("base.yaml").write_bytes(SMALL.read_bytes())
    Path(name).write_text(f"base: base.yaml\n{text}", encoding="utf-8")


TPE = """\
method: tpe
trials: 14
seed: 1
parameters:
  optimizer.learning_rate: {distribution: log_uniform_values, min: 0.001, max: 1}
  training.batch_size: [20, 50, 100]
  network.layers:
    - [{units: 10, activation: softmax}]
    - - units: {distribution: int_uniform, min: 8, max: 32}
        activation: {values: [relu, tanh]}
      - {units: 10, activation: softmax}
"""


def test_tpe_draws_from_nested_choices_and_resumes_with_the_same_points(
    nnctl: Nnctl,
) -> None:
    pytest.importorskip("optuna")
    write_sweep("tpe.yaml", TPE)
    nnctl("sweep", "tpe.yaml", "--epochs", 1, "--sweep-dir", "sweep")
    layers = {row["network.layers"] for row in table("sweep")}
    assert {1, 2} == {len(json.loads(text)) for text in layers}
    before, lines = table("sweep"), journal("sweep")
    ended = [number for number, line in enumerate(lines, 1) if line["event"] == "ended"]
    cut_journal(kept=ended[11])
    for number in (13, 14):
        shutil.rmtree(f"sweep/trial-{number:03d}", ignore_errors=True)
    nnctl(*RESUME)
    assert table("sweep") == before


def test_a_dataset_folder_is_found_from_another_working_directory(
    nnctl: Nnctl, mini_folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(mini_folder, "digits")
    words = ("-p", "training.seed=0,1,2", "--dataset", "digits", "--sweep-dir", "sweep")
    nnctl("sweep", SMALL, *words)
    before = table("sweep")
    cut_journal(kept=7)
    shutil.rmtree("sweep/trial-003")
    (scratch / "elsewhere").mkdir()
    monkeypatch.chdir(scratch / "elsewhere")
    nnctl("sweep", "--resume", "../sweep")
    assert table("../sweep") == before


def test_datasets_beside_a_sweep_file_and_its_base_are_found_from_another_working_directory(
    nnctl: Nnctl, mini_folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(mini_folder, "project/digits")
    text = SMALL.read_text("utf-8").replace("dataset: mini", "dataset: digits")
    Path("project/base.yaml").write_text(text, encoding="utf-8")
    for name, space in (("fixed", "training.seed: [1]"), ("varied", "data.dataset: [digits]")):
        Path(f"project/{name}.yaml").write_text(
            f"base: base.yaml\nparameters: {{{space}}}\n", encoding="utf-8"
        )
        nnctl("sweep", f"project/{name}.yaml", "--epochs", 1, "--sweep-dir", name)
        with monkeypatch.context() as patch:
            patch.chdir("project")
            config = scratch / name / "trial-001" / "config.yaml"
            assert f"dataset: {scratch / 'project' / 'digits'}" in config.read_text("utf-8")
            nnctl("train", "--resume", config.parent, "--epochs", 2)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> TrainTrial:
    """A training that waits after two epochs until the sweep has read their metrics.

    With a tiny learning rate, it waits until it is stopped.
    """
    seen: dict[Path, int] = {}
    read = MetricHistory.read

    def read_and_record(curve: MetricHistory) -> bool:
        updated = read(curve)
        seen[curve._path.parent] = len(curve.scores)
        return updated

    def train(trial: Trial, dataset: Dataset, stop: stubs.Stop) -> TrialResult:
        is_slow = trial.point["optimizer.learning_rate"] < 1e-3

        def wait() -> bool:
            while not stop():
                was_seen = seen.get(trial.directory, 0) >= 2
                if epochs_of(trial.directory) < 2 or (was_seen and not is_slow):
                    return False
                time.sleep(0.01)
            return True

        return run_trial(trial, dataset, wait)

    monkeypatch.setattr(MetricHistory, "read", read_and_record)
    return train


@pytest.mark.parametrize("kind", ["median, min_iter: 2", "hyperband, min_iter: 2, eta: 2"])
def test_a_pruned_trial_keeps_its_metrics(
    nnctl: Nnctl, in_threads: Callable[..., None], watched: TrainTrial, kind: str
) -> None:
    pytest.importorskip("optuna")
    rates = "[0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 1.0e-6, 1.0e-5]"
    parameters = f"{{optimizer.learning_rate: {rates}}}"
    write_sweep("early.yaml", f"parameters: {parameters}\nearly_terminate: {{type: {kind}}}\n")
    in_threads(watched)
    done = nnctl("sweep", "early.yaml", "--sweep-dir", "sweep")
    rows = table("sweep")
    assert [rows[0]["status"], rows[6]["status"], rows[7]["status"]] == [
        "finished",
        "pruned",
        "pruned",
    ]
    for row in rows[6:]:
        kept = Path(f"sweep/trial-{int(row['trial']):03d}/metrics.jsonl").read_text("utf-8")
        assert len(kept.splitlines()) == int(row["epochs"]) == 2
        assert "worse than other trials after epoch" in row["reason"]
    assert "pruned trials (worse than others): " in done.stdout


def test_a_dry_run_of_tpe_checks_the_search_space_and_lists_no_points(nnctl: Nnctl) -> None:
    pytest.importorskip("optuna")
    write_sweep("tpe.yaml", TPE)
    done = nnctl("sweep", "tpe.yaml", "--dry-run")
    assert ("tpe chooses each point from earlier results" in done.stderr, done.stdout) == (True, "")
    write_sweep("wrong.yaml", TPE.replace("[20, 50, 100]", "[20, 0]").replace("tanh", "tahn"))
    stderr = nnctl("sweep", "wrong.yaml", code=2).stderr
    assert "wrong.yaml:7:3: training.batch_size=0" in stderr
    assert "did you mean 'tanh'?" in stderr


def test_seeds_are_ranked_by_their_mean_and_compared(nnctl: Nnctl) -> None:
    write_sweep(
        "seeds.yaml", "seeds: 3\nparameters:\n  optimizer.learning_rate: [0.1, 0.101, 1e-3]\n"
    )
    done = nnctl("sweep", "seeds.yaml", "--json", "--sweep-dir", "sweep")
    rows = sorted(map(json.loads, done.stdout.splitlines()), key=lambda row: row["trial"])
    assert [row["seed"] for row in rows] == [0, 1, 2] * 3
    shown = nnctl("sweep", "--show", "sweep").stdout
    assert "mean of 3 seeds ± standard deviation" in shown
    means = [sum(row["val_accuracy"] for row in rows[i : i + 3]) / 3 for i in (0, 3, 6)]
    for mean in means:
        assert f"{100 * mean:.2f} % ±" in shown
    unwrapped = " ".join(shown.split())
    assert "a paired t-test over 3 seeds" in unwrapped
    assert "not significantly better than" in unwrapped
    best = max(range(3), key=means.__getitem__)
    trial = shown.splitlines()[-1].rpartition("-")[2]
    assert int(trial) in range(3 * best + 1, 3 * best + 4)


def test_each_fold_is_held_out_once_and_a_resumed_trial_has_the_same_fold(nnctl: Nnctl) -> None:
    write_sweep("folds.yaml", "folds: 3\nparameters:\n  optimizer.learning_rate: [0.1, 1e-3]\n")
    split = ("--set", "data.split=stratified")
    nnctl("sweep", "folds.yaml", *split, "--sweep-dir", "sweep")
    shown = nnctl("sweep", "--show", "sweep").stdout
    assert "mean of 3 folds ± standard deviation" in shown
    assert "a paired t-test over 3 folds" in " ".join(shown.split())
    rows = table("sweep")
    assert [row["fold"] for row in rows] == ["1", "2", "3"] * 2
    assert {row["seed"] for row in rows} == {"0"}
    trials = [Run(Path("sweep", f"trial-{number:03d}")) for number in (1, 2, 3)]
    data = [run.config.data for run in trials]
    assert [(one.fold.number, one.fold.of) for one in data if one.fold] == [(1, 3), (2, 3), (3, 3)]
    assert [one.validation for one in data] == [1667, 1667, 1666]
    found = json.loads(nnctl("eval", trials[1].directory, "--split", "validation", "--json").stdout)
    assert (found["n"], found["accuracy"]) == (1667, float(rows[1]["val_accuracy"]))

    path = Path("sweep", "journal.jsonl")
    *lines, _ = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines), encoding="utf-8")
    nnctl("sweep", "--resume", "sweep")
    assert table("sweep") == rows


SEARCHES = {
    "tpe": "method: tpe\ntrials: 6\nseed: 1\nparameters: {training.batch_size: [20, 50]}\n",
    "seeds": "method: tpe\ntrials: 4\nseeds: 2\nparameters:\n"
    "  optimizer.learning_rate: {min: 0.01, max: 0.5}\n",
    "pruning": "early_terminate: {type: hyperband, min_iter: 1, eta: 2}\n"
    "parameters: {optimizer.learning_rate: [0.1, 0.05, 1.0e-6, 0.2, 1.0e-5]}\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_resumes_from_any_line_of_its_journal(nnctl: Nnctl, name: str) -> None:
    pytest.importorskip("optuna")
    write_sweep("search.yaml", SEARCHES[name])
    nnctl("sweep", "search.yaml", "--epochs", 1, "--sweep-dir", "sweep")
    before, lines = table("sweep"), journal("sweep")
    shutil.move("sweep", "whole")
    for kept in range(1, len(lines)):
        shutil.copytree("whole", "sweep")
        cut_journal(kept=kept, torn=kept % 2)
        done = {line["trial"] for line in lines[:kept] if line["event"] == "ended"}
        for trial in {line["trial"] for line in lines if line["event"] == "planned"} - done:
            shutil.rmtree(f"sweep/trial-{trial:03d}")
        nnctl(*RESUME)
        assert table("sweep") == before, f"after {kept} lines"
        shutil.rmtree("sweep")
