"""``nnctl runs``, ``nnctl compare``, the word ``latest``, and sweeps where a run is expected."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import nnctl as api
from nnctl.runs.lock import DirectoryLock
from nnctl.sweeps.listing import best_run, list_runs
from tests.conftest import CONFIGS, Nnctl

SMOKE = CONFIGS / "smoke.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs ``first`` (evaluated) and ``second``, and a sweep of four trials."""
    from click.testing import CliRunner

    from nnctl.cli import main

    folder = tmp_path_factory.mktemp("trained")
    short = ["--epochs", "1", "--subset", "500", "--quiet"]
    rates = ["-p", "optimizer.learning_rate=0.1,1e-6"]
    for words in (
        ["train", SMOKE, *short, "--run-dir", folder / "runs" / "first"],
        ["train", SMOKE, *short, "--seed", "1", "--run-dir", folder / "runs" / "second"],
        ["eval", folder / "runs" / "first"],
        [
            "sweep",
            SMOKE,
            *short,
            *rates,
            *("--seeds", "2", "--workers", "1"),
            "--sweep-dir",
            folder / "runs" / "rates",
        ],
    ):
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def runs(trained: Path, scratch: Path) -> Path:
    """A copy of `trained` in the working directory; ``second`` is the newest run."""
    shutil.copytree(trained / "runs", scratch / "runs")
    for age, name in enumerate(("second", "rates", "first")):
        for file in (scratch / "runs" / name).iterdir():
            os.utime(file, (1e9 - age, 1e9 - age))
    return scratch / "runs"


def test_runs_lists_runs_and_sweeps_with_the_best_accuracy(runs: Path, nnctl: Nnctl) -> None:
    lines = [line.split() for line in nnctl("runs").stdout.splitlines() if line.strip()]
    listed = {line[0]: line for line in lines}
    assert [name for name in listed if (runs / name).exists()] == ["first", "rates", "second"]
    entries = {row["name"]: row for row in json.loads(nnctl("runs", "--json").stdout)["runs"]}
    first, sweep = entries["first"], entries["rates"]
    assert first["state"] == sweep["state"] == "finished"
    assert listed["first"][2] == f"{100 * first['val_accuracy']:.2f}"
    assert listed["first"][4] == f"{100 * first['test_accuracy']:.2f}"
    assert entries["second"]["test_accuracy"] is None
    assert sweep["epochs"] == sweep["planned_epochs"] == 4
    assert sweep["val_accuracy"] > 0.5  # the trial with the tiny learning rate has about 0.1
    assert {"network": "64 relu, 10 softmax", "dataset": "mini"}.items() <= first.items()
    sorted_by_test = json.loads(nnctl("runs", "--sort", "test", "--json").stdout)["runs"]
    assert sorted_by_test[0]["name"] == "first"
    trials = json.loads(nnctl("runs", runs / "rates", "--json").stdout)["runs"]
    assert [trial["name"] for trial in trials] == [f"trial-00{i}" for i in (1, 2, 3, 4)]


def test_prune_removes_only_runs_that_did_not_end(runs: Path, nnctl: Nnctl) -> None:
    network = api.Network.from_arrays([np.ones((784, 10))], [np.zeros(10)], ["softmax"])
    api.save(network, runs / "saved", dataset="mini")
    for name in ("killed", "training", "damaged"):
        shutil.copytree(runs / "first", runs / name)
        (runs / name / "summary.json").unlink()
    (runs / "damaged" / "summary.json").write_text("{", encoding="utf-8")
    (runs / "notes").mkdir()
    (runs / "notes" / "config.yaml").write_text("mine: 1", encoding="utf-8")
    with DirectoryLock(runs / "training"):
        listed = {row["name"]: row for row in json.loads(nnctl("runs", "--json").stdout)["runs"]}
        assert "Nothing was removed" in nnctl("runs", "--prune", stdin="n\n").stderr
        assert (runs / "killed").exists()
        done = nnctl("runs", "--prune", stdin="y\n")
        assert "No runs" in nnctl("runs", "--prune", "--yes").stderr
    states = {name: row["state"] for name, row in listed.items()}
    assert states["saved"] == "saved"
    assert states["training"] == "training"
    assert "is damaged" in listed["damaged"]["problem"]
    assert "unfinished" in done.stdout
    assert "Removed: 1 of 1" in done.stderr
    left = {path.name for path in runs.iterdir()}
    assert left == {"first", "second", "rates", "training", "notes", "saved", "damaged"}


def test_a_sweep_and_other_wrong_folders_are_not_pruned(runs: Path, nnctl: Nnctl) -> None:
    (runs / "rates" / "trial-001" / "summary.json").unlink()
    assert "needs its trials" in nnctl("runs", runs / "rates", "--prune", "--yes", code=2).stderr
    assert "folder not found" in nnctl("runs", "nowhere", code=2).stderr
    assert "--yes needs --prune" in nnctl("runs", "--yes", code=2).stderr


@pytest.mark.parametrize(
    "words", [("eval", "latest"), ("check", "latest"), ("train", "--resume", "latest")], ids=str
)
def test_latest_is_the_newest_run(runs: Path, nnctl: Nnctl, words: tuple[str, ...]) -> None:
    assert f"latest: {Path('runs') / 'second'}" in nnctl(*words).stderr
    (runs.parent / "latest").mkdir()
    assert "latest" in nnctl(*words, code=2).stderr  # an empty folder of that name is not a run


def test_latest_is_a_run_or_a_sweep_where_only_one_of_them_fits(runs: Path, nnctl: Nnctl) -> None:
    assert f"latest: {Path('runs') / 'rates'}" in nnctl("sweep", "--show", "latest").stderr
    shutil.rmtree(runs / "rates")
    assert "no sweep found in runs" in nnctl("sweep", "--resume", "latest", code=2).stderr
    for name in ("first", "second"):
        shutil.rmtree(runs / name)
    assert "no run found in runs" in nnctl("train", "--resume", "latest", code=2).stderr


def test_latest_needs_a_run(nnctl: Nnctl) -> None:
    done = nnctl("eval", "latest", code=2)
    assert "no run found in runs, so 'latest' has no meaning yet" in done.stderr
    assert "nnctl train smoke" in done.stderr


def test_a_sweep_stands_for_its_best_trial(runs: Path, nnctl: Nnctl) -> None:
    expected = best_run(Path("runs/rates"))
    assert "0.1" in (expected / "config.yaml").read_text("utf-8")
    done = nnctl("eval", Path("runs/rates"), "--json")
    assert json.loads(done.stdout)["run_dir"] == str(expected)
    assert str(expected) in done.stderr
    assert "is a sweep, not a run" in nnctl("train", "--resume", runs / "rates", code=2).stderr
    assert api.load("runs/rates").directory == expected
    assert api.load("latest").directory.name == "second"


def test_the_best_trial_is_that_of_the_best_setting(runs: Path, nnctl: Nnctl) -> None:
    """The highest accuracy of one seed may be luck; the sweep ranks settings by their mean."""
    journal = runs / "rates" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text("utf-8").splitlines()]
    accuracies = {1: 0.9, 2: 0.1, 3: 0.8, 4: 0.7}
    for line in lines:
        if line["event"] == "ended":
            line["val_accuracy"] = accuracies[line["trial"]]
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    shown = nnctl("sweep", "--show", runs / "rates").stdout.splitlines()[-1]
    assert best_run(runs / "rates") == Path(shown) == runs / "rates" / "trial-003"
    ended = [line for line in lines if line["event"] != "ended" or line["trial"] in (1, 3)]
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in ended), encoding="utf-8")
    assert "has no best trial yet" in nnctl("eval", runs / "rates", code=2).stderr


def test_a_later_training_makes_the_test_result_unknown(runs: Path, nnctl: Nnctl) -> None:
    nnctl("train", "--resume", runs / "first", "--epochs", "2", "--quiet")
    listed = {entry.name: entry for entry in list_runs(runs)}
    assert listed["first"].test_accuracy is None
    (runs / "first" / "evaluation.json").write_text("[]", encoding="utf-8")
    assert {entry.name: entry for entry in list_runs(runs)}["first"].state == "finished"


def test_compare_shows_what_differs_and_how_significantly(runs: Path, nnctl: Nnctl) -> None:
    long = (runs / "second").rename(runs / ("long-" * 20 + "name"))
    done = nnctl("compare", runs / "first", long)
    assert "training.seed" in done.stdout
    assert long.name in done.stdout.splitlines()[1]  # a pipe has no width that breaks names
    assert long.name in nnctl("runs").stdout
    assert "McNemar's test, p = " in done.stdout
    rows = json.loads(nnctl("compare", runs / "first", "latest", "--json").stdout)["runs"]
    assert [row["settings"] for row in rows] == [{"training.seed": 0}, {"training.seed": 1}]
    first, second = rows
    assert first["only_this"] == first["only_first"] == 0
    gained = round(1000 * (second["test_accuracy"] - first["test_accuracy"]))
    assert gained == second["only_this"] - second["only_first"]
    assert sum(second["gained"].values()) == second["only_this"]


def test_compare_rejects_the_same_run_and_other_datasets(runs: Path, nnctl: Nnctl) -> None:
    same = nnctl("compare", runs / "first", runs / ".." / "runs" / "first", code=2)
    assert "two or more different runs" in same.stderr
    nnctl("train", CONFIGS / "gates" / "xor.yaml", "--epochs", "1", "--run-dir", "xor", "--quiet")
    assert (
        "different test images or labels" in nnctl("compare", runs / "first", "xor", code=2).stderr
    )
