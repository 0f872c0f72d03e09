"""``nnctl sweep`` as a user sees it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import CONFIGS, ROOT, Nnctl

SMOKE = CONFIGS / "smoke.yaml"
RATES = ("-p", "optimizer.learning_rate=0.05,0.1", "-p", "training.batch_size=20,50")


def test_a_grid_trains_every_combination_in_a_run_directory_of_its_own(
    nnctl: Nnctl, scratch: Path
) -> None:
    done = nnctl("sweep", SMOKE, *RATES, "--epochs", 2)
    best = scratch / done.stdout.splitlines()[-1]
    home = best.parent
    with (home / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4"]
    assert {"finished"} == {row["status"] for row in rows}
    assert [(row["optimizer.learning_rate"], row["training.batch_size"]) for row in rows] == [
        ("0.05", "20"),
        ("0.05", "50"),
        ("0.1", "20"),
        ("0.1", "50"),
    ]
    objects = [
        json.loads(line) for line in (home / "results.jsonl").read_text("utf-8").splitlines()
    ]
    assert [float(row["val_accuracy"]) for row in rows] == [row["val_accuracy"] for row in objects]
    accuracy, loss = max((row["val_accuracy"], -row["val_loss"]) for row in objects)
    winner = next(row for row in objects if row["val_accuracy"] == accuracy)
    assert (str(best.relative_to(scratch)), -loss) == (winner["run_dir"], winner["val_loss"])
    assert "batch_size" in done.stdout
    nnctl("eval", best)


def test_a_trial_is_the_same_as_a_training_of_its_configuration(
    nnctl: Nnctl, scratch: Path
) -> None:
    import nnctl as face

    nnctl("sweep", SMOKE, "-p", "training.seed=7", "--epochs", 1, "--sweep-dir", "sweep")
    nnctl("train", "sweep/trial-001/config.yaml", "--run-dir", "alone")
    trial, alone = (
        face.load(scratch / name).checkpoint("last").parameters.tobytes()
        for name in ("sweep/trial-001", "alone")
    )
    assert trial == alone


def test_a_sweep_file_names_its_base_and_can_draw_at_random(nnctl: Nnctl, scratch: Path) -> None:
    (scratch / "base.yaml").write_text(SMOKE.read_text("utf-8"), encoding="utf-8")
    (scratch / "sweep.yaml").write_text(
        "base: base.yaml\nmethod: random\ntrials: 3\nseed: 4\nmetric: val_loss\nparameters:\n"
        "  optimizer.learning_rate: {distribution: log_uniform_values, min: 0.01, max: 0.2}\n"
        "  network.layers.0: [{units: 16, activation: relu}, {units: 24, activation: tanh}]\n",
        encoding="utf-8",
    )
    plan = nnctl("sweep", "sweep.yaml", "--dry-run", "--json").stdout.splitlines()
    done = nnctl("sweep", "sweep.yaml", "--epochs", 1, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    rows.sort(key=lambda row: int(row["trial"]))
    assert [json.loads(line)["parameters"] for line in plan] == [row["parameters"] for row in rows]
    assert "by validation loss" in nnctl("sweep", "sweep.yaml", "--epochs", 1).stdout


def test_a_trial_that_diverges_or_fails_is_a_row_with_its_reason(
    nnctl: Nnctl, scratch: Path
) -> None:
    (scratch / "sweep").mkdir()
    done = nnctl("sweep", SMOKE, "-p", "optimizer.learning_rate=0.1,1e30", "--epochs", 1, "--json")
    rows = sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda r: r["trial"])
    assert [row["status"] for row in rows] == ["finished", "diverged"]
    assert "training diverged in epoch 1" in rows[1]["reason"]
    assert "diverged" in done.stderr


def test_a_dataset_that_cannot_be_had_is_asked_for_once(nnctl: Nnctl) -> None:
    arguments = ("-p", "training.seed=1,2,3", "--epochs", 1)
    done = nnctl("sweep", CONFIGS / "sigmoid.yaml", *arguments)
    assert done.stderr.count("COULD NOT BE HAD") == 1
    assert done.stderr.count("of 3 done") == 3


def test_a_sweep_of_nothing_but_failures_exits_with_1(nnctl: Nnctl) -> None:
    done = nnctl("sweep", SMOKE, "-p", "optimizer.learning_rate=1e30,1e31", "--epochs", 1, code=1)
    assert "none of the 2 trials" in done.stderr
    assert done.stdout.count("training diverged") == 2


def test_a_dry_run_lists_the_trials_and_trains_none(nnctl: Nnctl, scratch: Path) -> None:
    done = nnctl("sweep", SMOKE, *RATES, "--dry-run")
    assert len(done.stdout.splitlines()) == 4
    assert "learning_rate=0.05, batch_size=50" in done.stdout
    assert not list(scratch.iterdir())


def test_values_may_be_whatever_yaml_can_say(nnctl: Nnctl) -> None:
    done = nnctl(
        "sweep", SMOKE, "--dry-run", "--json",
        "-p", "network.layers.0={units: 64, activation: relu},{units: 128, activation: tanh}",
        "-p", "training.early_stopping=null,{patience: 2}",
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 4


def test_all_points_are_checked_before_the_first_is_trained(nnctl: Nnctl, scratch: Path) -> None:
    done = nnctl(
        "sweep", SMOKE, "-p", "training.batch_size=0,32", "-p", "loss=quadrtic,quadratic", code=2
    )
    assert "training.batch_size=0: training.batch_size: expected" in done.stderr
    assert "did you mean 'quadratic'?" in done.stderr
    assert not list(scratch.iterdir())


def test_a_mistake_in_a_sweep_file_is_told_at_its_place(nnctl: Nnctl, scratch: Path) -> None:
    (scratch / "base.yaml").write_bytes(SMOKE.read_bytes())
    (scratch / "sweep.yaml").write_text(
        "base: base.yaml\nparameters:\n  training.epochs: [0, 1]\n", encoding="utf-8"
    )
    done = nnctl("sweep", "sweep.yaml", code=2)
    assert "sweep.yaml:3:3: training.epochs=0: training.epochs: expected" in done.stderr
    assert "nnctl sweep sweep.yaml" in nnctl("train", "sweep.yaml", code=2).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (SMOKE,),
        (SMOKE, "-p", "training.seed=1", "-p", "training.seed=2"),
        ("nowhere.yaml", "-p", "a=1"),
        (SMOKE, "-p", "nonsense"),
        (SMOKE, "-p", "training.seed="),
        (SMOKE, "-p", "training.sed=1,2"),
        (SMOKE, "-p", "training.seed=[1"),
        (SMOKE, "-p", "training.seed=1", "--workers", "0"),
        (SMOKE, "-p", "training.seed=1", "--set", "data.validation=0"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)).replace(str(CONFIGS), ""),
)
def test_a_user_s_mistake_exits_with_2(nnctl: Nnctl, arguments: tuple[object, ...]) -> None:
    assert "Error" in nnctl("sweep", *arguments, code=2).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
def test_the_shell_way_of_the_readme_works(scratch: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    script = next(block for block in readme.split("```") if "for rate in" in block)
    script = script.removeprefix("sh\n")
    assert "jq" in script
    (scratch / "configs").symlink_to(CONFIGS)
    quick = script.replace("configs/sigmoid.yaml", "configs/smoke.yaml --epochs 1")
    command = f'nnctl() {{ "{sys.executable}" -m nnctl "$@"; }}\n{quick}'
    done = subprocess.run(["sh", "-e", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3


@pytest.mark.parametrize(("columns", "in_columns"), [(80, True), (70, False)])
def test_parameters_that_do_not_fit_beside_each_other_are_told_in_a_line(
    nnctl: Nnctl, columns: int, in_columns: bool
) -> None:
    done = nnctl("sweep", SMOKE, *RATES, "--epochs", 1, "--quiet", env={"COLUMNS": str(columns)})
    header, *rows = done.stdout.split("Mean validation")[0].splitlines()[2:]
    assert ("batch_size" in header, "parameters" in header) == (in_columns, not in_columns)
    assert any("learning_rate=0.05," in row for row in rows) != in_columns
