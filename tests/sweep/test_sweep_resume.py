"""A sweep that is ended in any way goes on, and comes to the same results."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import CONFIGS, Nnctl, nnctl_command
from tests.sweep.helpers import table

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

PLAN = (
    "sweep", CONFIGS / "smoke.yaml", "-p", "training.seed=0,1,2",
    "-p", "optimizer.learning_rate=0.05,1e30", "--epochs", 80, "--workers", 2, "--quiet",
)  # fmt: skip
"""Three trials of about two seconds, and three that diverge."""


def journal(directory: Path | str) -> list[dict[str, Any]]:
    """Return the lines of a sweep's journal."""
    lines = (Path(directory) / "journal.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def kill_at_random(rng: random.Random, process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to a sweep, or to one of its workers, or to all of them at once."""
    what = rng.choice(["sweep", "worker", "all"])
    workers = psutil.Process(process.pid).children(recursive=True)
    workers = [child for child in workers if "spawn_main" in " ".join(child.cmdline())]
    if what == "worker":
        if workers:
            rng.choice(workers).kill()
        process.wait(timeout=120)
    elif what == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait(timeout=10)


@posix
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]
)
def test_a_sweep_killed_at_random_moments_has_the_table_of_one_left_alone(
    nnctl: Nnctl, seed: int
) -> None:
    nnctl(*PLAN, "--sweep-dir", "alone")
    rng = random.Random(seed)
    arguments: tuple[object, ...] = (*PLAN, "--sweep-dir", "killed")
    while True:
        process = subprocess.Popen(
            nnctl_command(*arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(timeout=rng.choice([0.3, 1.0]) + 3 * rng.random())
        except subprocess.TimeoutExpired:
            kill_at_random(rng, process)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        if Path("killed/journal.jsonl").exists() and Path("killed/journal.jsonl").stat().st_size:
            arguments = ("sweep", "--resume", "killed", "--workers", 2, "--quiet")
        else:  # killed before it began
            shutil.rmtree("killed", ignore_errors=True)
    assert table("alone") == table("killed")
    ended = [line["trial"] for line in journal("killed") if line["event"] == "ended"]
    assert sorted(ended) == [1, 2, 3, 4, 5, 6]


@posix
def test_an_interrupted_sweep_goes_on_from_the_epochs_that_are_done(nnctl: Nnctl) -> None:
    nnctl(*PLAN, "--sweep-dir", "alone")
    process = subprocess.Popen(
        nnctl_command(*PLAN, "--sweep-dir", "sweep"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not Path("sweep/trial-001/last.npz").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    done = Path("sweep/trial-001/metrics.jsonl").read_text("utf-8")
    assert 0 < len(done.splitlines()) < 80
    command = re.search(r"Go on with: nnctl (.*)", told)
    assert command is not None
    nnctl(*command[1].split())
    assert Path("sweep/trial-001/metrics.jsonl").read_text("utf-8").startswith(done)
    assert table("alone") == table("sweep")


@posix
def test_the_second_of_two_processes_is_refused(nnctl: Nnctl) -> None:
    arguments = [*PLAN[:-1], "--set", "training.epochs=2000", "--sweep-dir", "sweep"]
    first = subprocess.Popen(
        nnctl_command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        while not Path("sweep/trial-001/last.npz").exists():
            time.sleep(0.01)
        told = nnctl("sweep", "--resume", "sweep", code=2).stderr
        assert "sweep is a sweep that is being trained by another process" in told
        assert first.poll() is None
    finally:
        first.terminate()
        first.communicate(timeout=60)


SMALL = ("sweep", CONFIGS / "smoke.yaml", "--epochs", 1, "--workers", 2, "--sweep-dir", "sweep")


def test_a_torn_last_line_of_the_journal_is_repaired(nnctl: Nnctl) -> None:
    nnctl(*SMALL, "-p", "training.seed=0,1,2")
    before, path = table("sweep"), Path("sweep/journal.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert "2 of them done before" in nnctl("sweep", "--resume", "sweep").stderr
    assert table("sweep") == before
    lines = journal("sweep")
    assert [line["event"] for line in lines].count("ended") == 3


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_plan_that_was_torn_while_it_was_written_is_made_whole(nnctl: Nnctl, kept: int) -> None:
    nnctl(*SMALL, "-p", "training.seed=0,1,2")
    before, path = table("sweep"), Path("sweep/journal.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:kept]) + lines[kept][:50])
    for trial in Path("sweep").glob("trial-*"):
        shutil.rmtree(trial)
    nnctl("sweep", "--resume", "sweep")
    assert table("sweep") == before


def test_a_folder_of_digits_is_found_from_elsewhere(nnctl: Nnctl, mini_folder: Path) -> None:
    pytest.importorskip("optuna")
    Path("base.yaml").write_bytes((CONFIGS / "smoke.yaml").read_bytes())
    Path("tpe.yaml").write_text(
        "base: base.yaml\nmethod: tpe\ntrials: 3\nparameters:\n"
        "  optimizer.learning_rate: {min: 0.01, max: 0.1}\n",
        encoding="utf-8",
    )
    shutil.copytree(mini_folder, "digits")
    arguments = ("--dataset", "digits", "--epochs", 1, "--workers", 1, "--sweep-dir", "sweep")
    nnctl("sweep", "tpe.yaml", *arguments)
    before, path = table("sweep"), Path("sweep/journal.jsonl")
    lines = path.read_text("utf-8").splitlines(keepends=True)
    ended = next(i for i, line in enumerate(lines) if '"event": "ended"' in line)
    path.write_text("".join(lines[: ended + 1]), encoding="utf-8")
    Path("elsewhere").mkdir()
    done = subprocess.run(
        nnctl_command("sweep", "--resume", "../sweep", "--workers", 1), cwd="elsewhere", check=False
    )
    assert done.returncode == 0
    assert table("sweep") == before


def test_trials_that_are_left_are_told(nnctl: Nnctl) -> None:
    nnctl(*SMALL, "-p", "training.seed=0,1,2")
    path = Path("sweep/journal.jsonl")
    path.write_text(
        path.read_text("utf-8").replace('"status": "finished"', '"status": "interrupted"', 2),
        encoding="utf-8",
    )
    told = nnctl("sweep", "--show", "sweep").stderr
    assert "still to do: 2" in told
    assert told.count("is at epoch 1 of 1, ") == 2


def test_where_nothing_has_failed_nothing_is_retried(nnctl: Nnctl) -> None:
    whole = nnctl(*SMALL, "-p", "training.seed=0,1").stdout
    retry = ("sweep", "--resume", "sweep", "--retry-failed")
    assert nnctl(*retry).stdout == whole
    path = Path("sweep/journal.jsonl")
    path.write_text("".join(path.read_text("utf-8").splitlines(True)[:-4]), encoding="utf-8")
    before = sorted(Path("sweep").iterdir())
    done = nnctl(*retry, code=2)
    assert "no trial of sweep has failed" in done.stderr
    assert "Still to do: 2; without --retry-failed, go on with: nnctl sweep" in done.stderr
    assert sorted(Path("sweep").iterdir()) == before
    assert nnctl("sweep", "--resume", "sweep").stdout.splitlines()[-1].startswith("sweep/trial-")


def test_a_journal_of_another_version_is_read_as_far_as_it_is_understood(nnctl: Nnctl) -> None:
    nnctl(*SMALL, "-p", "training.seed=0,1")
    path = Path("sweep/journal.jsonl")
    text = path.read_text("utf-8")
    more = text.replace('"event": "ended"', '"event": "ended", "news": 1')
    path.write_text(more, encoding="utf-8")
    assert "sweep/trial-00" in nnctl("sweep", "--resume", "sweep").stdout
    lines = text.replace('"config": {', '"config": {"news": 1, ').splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"ended"' not in line), encoding="utf-8")
    assert "unknown key 'news'" in nnctl("sweep", "--resume", "sweep", code=2).stderr


def test_a_sweep_that_is_done_trains_nothing_when_it_is_resumed(
    nnctl: Nnctl, scratch: Path
) -> None:
    first = nnctl(*SMALL, "-p", "training.seed=0,1,2").stdout
    logs = {path: path.read_bytes() for path in Path("sweep").glob("*/log.txt")}
    assert nnctl("sweep", "--resume", "sweep").stdout == first
    assert nnctl("sweep", "--show", "sweep").stdout == first
    assert nnctl("sweep", "--show", scratch / "sweep").stdout.endswith(
        str(scratch / first.splitlines()[-1]) + "\n"
    )
    assert {path: path.read_bytes() for path in Path("sweep").glob("*/log.txt")} == logs


def test_a_resumed_sweep_prints_all_its_trials_as_json(nnctl: Nnctl) -> None:
    nnctl(*SMALL, "-p", "training.seed=0,1,2")
    path = Path("sweep/journal.jsonl")
    path.write_text("".join(path.read_text("utf-8").splitlines(True)[:-1]), encoding="utf-8")
    resumed = nnctl("sweep", "--resume", "sweep", "--json").stdout.splitlines()
    assert sorted(json.loads(line)["trial"] for line in resumed) == [1, 2, 3]
    shown = nnctl("sweep", "--show", "sweep", "--json").stdout.splitlines()
    assert [json.loads(line)["trial"] for line in shown] == [1, 2, 3]
    stored = Path("sweep/results.jsonl").read_text("utf-8").splitlines()
    assert list(map(json.loads, shown)) == list(map(json.loads, stored))


def test_a_plan_that_changed_on_the_disk_is_gone_on_with_as_it_was(
    nnctl: Nnctl, scratch: Path
) -> None:
    base = scratch / "base.yaml"
    base.write_bytes((CONFIGS / "smoke.yaml").read_bytes())
    nnctl("sweep", base, *SMALL[2:], "-p", "training.seed=0,1")
    before = table("sweep")
    path = Path("sweep/journal.jsonl")
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:4]), encoding="utf-8")  # nothing has ended
    shutil.rmtree("sweep/trial-001")
    shutil.rmtree("sweep/trial-002")
    base.unlink()
    nnctl("sweep", "--resume", "sweep")
    assert table("sweep") == before


@posix
def test_a_disk_that_takes_no_more_ends_a_sweep_that_goes_on_when_there_is_room(
    nnctl: Nnctl,
) -> None:
    arguments = [*SMALL, "-p", "training.seed=0,1,2"]
    limited = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", *nnctl_command(*arguments)]
    done = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert "nnctl sweep --resume sweep" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [line for line in journal("sweep") if line["event"] == "ended"]
    nnctl("sweep", "--resume", "sweep")
    assert {"finished"} == {row["status"] for row in table("sweep")}


@pytest.mark.parametrize(
    ("code", "told", "content"),
    [
        (2, "has no journal.jsonl", None),
        (2, "is empty: the sweep was ended before it began", ""),
        (2, "is empty: the sweep was ended before it began", '{"event": "swe'),
        (3, "journal.jsonl:1 is damaged", "nonsense\n"),
        (3, "journal.jsonl:1 is damaged", '{"event": "started"}\n'),
        (3, "format version 99", '{"event": "sweep", "format_version": 99}\n'),
    ],
)
@pytest.mark.parametrize("option", ["--resume", "--show"])
def test_what_is_not_the_journal_of_a_sweep_is_told(
    nnctl: Nnctl, option: str, code: int, told: str, content: str | None
) -> None:
    Path("sweep").mkdir()
    if content is not None:
        Path("sweep/journal.jsonl").write_text(content, encoding="utf-8")
    assert told in nnctl("sweep", option, "sweep", code=code).stderr


@pytest.mark.parametrize(
    ("told", "arguments"),
    [
        ("give one of CONFIG, --resume DIR and --show DIR", ()),
        ("give one of CONFIG", (CONFIGS / "smoke.yaml", "--resume", "sweep")),
        ("a cluster has its own", (CONFIGS / "smoke.yaml", "--scheduler", "x:1", "--workers", 2)),
        (
            "--seed 3: the sweep varies training.seed",
            (CONFIGS / "smoke.yaml", "-p", "training.seed=1,2", "--seed", 3),
        ),
        ("--retry-failed needs --resume", (CONFIGS / "smoke.yaml", "--retry-failed")),
        ("no option can change it", ("--resume", "sweep", "--epochs", 3)),
        ("no option can change it", ("--resume", "sweep", "-p", "training.seed=1")),
        ("is not the directory of a sweep", ("--resume", "nowhere")),
        ("is not the directory of a sweep", ("--show", "nowhere")),
        ("not in the range", (CONFIGS / "smoke.yaml", "--workers", 10**11)),
        ("not in the range", (CONFIGS / "smoke.yaml", "--trial-timeout", 0)),
        ("nan is not a finite number", (CONFIGS / "smoke.yaml", "--trial-timeout", "nan")),
        ("inf is not a finite number", (CONFIGS / "smoke.yaml", "--trial-timeout", "1e400")),
        ("not in the range", (CONFIGS / "smoke.yaml", "--max-failures", 0)),
    ],
)
def test_options_that_do_not_go_together_are_told(
    nnctl: Nnctl, told: str, arguments: tuple[object, ...]
) -> None:
    assert told in nnctl("sweep", *arguments, code=2).stderr


class TestSearches:
    """Sweeps whose next point depends on the trials before."""

    @pytest.fixture(autouse=True)
    def _needs_optuna(self, scratch: Path) -> None:
        pytest.importorskip("optuna")
        (scratch / "base.yaml").write_bytes((CONFIGS / "smoke.yaml").read_bytes())
        (scratch / "tpe.yaml").write_text(
            "base: base.yaml\nmethod: tpe\ntrials: 14\nseed: 1\nparameters:\n"
            "  optimizer.learning_rate: {distribution: log_uniform_values, min: 0.001, max: 1}\n"
            "  training.batch_size: [20, 50, 100]\n"
            "  network.layers:\n"
            "    - [{units: 10, activation: softmax}]\n"
            "    - - units: {distribution: int_uniform, min: 8, max: 32}\n"
            "        activation: {values: [relu, tanh]}\n"
            "      - {units: 10, activation: softmax}\n",
            encoding="utf-8",
        )

    def test_tpe_draws_from_nested_choices_and_is_the_same_when_resumed(self, nnctl: Nnctl) -> None:
        arguments = ("sweep", "tpe.yaml", "--epochs", 2, "--workers", 1, "--sweep-dir")
        nnctl(*arguments, "alone")
        layers = {row["network.layers"] for row in table("alone")}
        assert {1, 2} == {len(json.loads(text)) for text in layers}
        path = Path("alone/journal.jsonl")
        before, lines = table("alone"), path.read_text("utf-8").splitlines(keepends=True)
        ended = [i for i, line in enumerate(lines) if '"event": "ended"' in line]
        path.write_text("".join(lines[: ended[11] + 1]), encoding="utf-8")
        for number in (13, 14):
            shutil.rmtree(f"alone/trial-{number:03d}", ignore_errors=True)
        nnctl("sweep", "--resume", "alone", "--workers", 1)
        assert table("alone") == before

    @pytest.mark.parametrize("kind", ["median, min_iter: 2", "hyperband, min_iter: 2, eta: 2"])
    def test_a_trial_that_does_worse_than_others_is_ended_and_keeps_its_metrics(
        self, nnctl: Nnctl, kind: str
    ) -> None:
        Path("early.yaml").write_text(
            "base: base.yaml\nmethod: grid\nparameters:\n"
            "  optimizer.learning_rate: [0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 1.0e-6, 1.0e-5]\n"
            f"  training.epochs: [150]\nearly_terminate: {{type: {kind}}}\n",
            encoding="utf-8",
        )
        done = nnctl("sweep", "early.yaml", "--workers", 1, "--sweep-dir", "early")
        rows = table("early")
        assert [rows[6]["status"], rows[7]["status"]] == ["pruned", "pruned"]
        assert rows[0]["status"] == "finished"
        for row in (row for row in rows if row["status"] == "pruned"):
            kept = Path(f"early/trial-{int(row['trial']):03d}/metrics.jsonl").read_text("utf-8")
            assert 2 <= len(kept.splitlines()) == int(row["epochs"]) < 150
            assert "it did worse than others" in row["reason"]
        assert "ended early, as they did worse" in done.stdout

    def test_the_points_of_a_search_are_not_listed_but_checked(self, nnctl: Nnctl) -> None:
        done = nnctl("sweep", "tpe.yaml", "--dry-run")
        assert ("follows from the trials before" in done.stderr, done.stdout) == (True, "")
        text = Path("tpe.yaml").read_text("utf-8")
        text = text.replace("[20, 50, 100]", "[20, 0]").replace("tanh", "tahn")
        Path("wrong.yaml").write_text(text, encoding="utf-8")
        told = nnctl("sweep", "wrong.yaml", code=2).stderr
        assert "wrong.yaml:7:3: training.batch_size=0" in told
        assert "did you mean 'tanh'?" in told


def test_seeds_are_ranked_by_their_mean_and_compared(nnctl: Nnctl, scratch: Path) -> None:
    (scratch / "base.yaml").write_bytes((CONFIGS / "smoke.yaml").read_bytes())
    (scratch / "sweep.yaml").write_text(
        "base: base.yaml\nseeds: 3\nparameters:\n  optimizer.learning_rate: [0.1, 0.101, 0.001]\n",
        encoding="utf-8",
    )
    done = nnctl("sweep", "sweep.yaml", "--epochs", 2, "--json", "--sweep-dir", "sweep")
    rows = sorted(map(json.loads, done.stdout.splitlines()), key=lambda row: row["trial"])
    assert [row["seed"] for row in rows] == [0, 1, 2] * 3
    shown = nnctl("sweep", "--show", "sweep").stdout
    assert "mean of 3 seeds ± standard deviation" in shown
    means = [
        sum(row["val_accuracy"] for row in rows[i : i + 3]) / 3 for i in range(0, len(rows), 3)
    ]
    for mean in means:
        assert f"{100 * mean:.2f} % ±" in shown
    assert "a paired t-test over 3 seeds" in shown
    assert "cannot be told from" in shown
    best = max(range(3), key=means.__getitem__)
    trials = shown.splitlines()[-1].rpartition("-")[2]
    assert int(trials) in range(3 * best + 1, 3 * best + 4)
