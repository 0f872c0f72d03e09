"""``nnctl sweep`` as a user sees it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import nnctl as face
from nnctl.cli import main
from tests.conftest import CONFIGS, Nnctl

pytestmark = pytest.mark.xdist_group("the sweep of four trials")

SMOKE = CONFIGS / "smoke.yaml"
RATES = ("-p", "optimizer.learning_rate=0.05,0.1", "-p", "training.batch_size=20,50")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The folder of a finished sweep of four trials, and the output of the command."""
    folder = tmp_path_factory.mktemp("sweep") / "grid"
    arguments = ["sweep", str(SMOKE), *RATES, "--epochs", "1", "--sweep-dir", str(folder)]
    return folder, CliRunner().invoke(main, arguments)


def test_a_grid_trains_every_combination_in_its_own_run_directory(
    nnctl: Nnctl, grid: tuple[Path, Result]
) -> None:
    home, result = grid
    assert result.exit_code == 0, result.output
    best = Path(result.stdout.splitlines()[-1])
    with (home / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["1", "2", "3", "4"]
    assert {"finished"} == {row["status"] for row in rows}
    combinations = [(row["optimizer.learning_rate"], row["training.batch_size"]) for row in rows]
    assert combinations == [("0.05", "20"), ("0.05", "50"), ("0.1", "20"), ("0.1", "50")]
    objects = objects_of((home / "results.jsonl").read_text("utf-8"))
    assert [float(row["val_accuracy"]) for row in rows] == [row["val_accuracy"] for row in objects]
    winner = max(objects, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert str(best) == winner["run_dir"]
    assert best.parent == home
    assert "batch_size" in result.stdout
    nnctl("eval", best)


@pytest.mark.parametrize(
    ("columns", "shown", "hidden"), [(80, "last acc.", "last loss"), (200, "last loss", "no such")]
)
def test_results_have_the_metrics_of_the_last_epoch(
    nnctl: Nnctl, grid: tuple[Path, Result], columns: int, shown: str, hidden: str
) -> None:
    width = {"COLUMNS": str(columns)}
    table = nnctl("sweep", "--show", grid[0], env=width).stdout.split("Mean validation")[0]
    assert shown in table
    assert hidden not in table
    assert max(map(len, table.splitlines())) <= columns
    for row in objects_of(nnctl("sweep", "--show", grid[0], "--json").stdout):
        last = face.load(row["run_dir"]).history[-1]
        for name in ("train_accuracy", "train_loss", "val_accuracy", "val_loss"):
            assert row[f"last_{name}"] == getattr(last, name)


@pytest.mark.parametrize(
    "config", [SMOKE, CONFIGS / "gates" / "xor.yaml"], ids=lambda path: path.stem
)
def test_without_validation_images_trials_are_ranked_by_training_loss(
    nnctl: Nnctl, scratch: Path, config: Path
) -> None:
    options = ["--epochs", 2, "--workers", 1, "--sweep-dir", "s"]
    options += ["--subset", 300, "--set", "data.validation=0"] if config == SMOKE else []
    rates = ("-p", "optimizer.learning_rate=1e-9,0.05")
    shown = nnctl("sweep", config, *rates, *options).stdout
    assert "Best by training loss" in shown
    rows = objects_of(nnctl("sweep", "--show", "s", "--json").stdout)
    best = min(rows, key=lambda row: float(row["last_train_loss"]))
    assert shown.splitlines()[-1] == best["run_dir"]
    assert best["val_loss"] is None
    (scratch / "sweep.yaml").write_text(
        f"base: {config.as_posix()}\nmetric: val_loss\n"
        "parameters: {data.validation: [0], optimizer.learning_rate: [1, 2]}",
        encoding="utf-8",
    )
    error = nnctl("sweep", "sweep.yaml", code=2).stderr
    assert "set data.validation, or rank by metric: train_loss" in " ".join(error.split())


def test_a_best_value_at_the_edge_of_its_range_is_named(nnctl: Nnctl) -> None:
    rates = ("-p", "optimizer.learning_rate=0.0001,0.0003,0.03")
    quick = ("--epochs", 1, "--subset", 500, "--workers", 1, "--sweep-dir", "s")
    message = (
        "The best optimizer.learning_rate, 0.03, is at the upper edge of its range 0.0001 to 0.03: "
        "try larger values."
    )
    assert message in " ".join(nnctl("sweep", SMOKE, *rates, *quick).stdout.split())
    assert message in " ".join(nnctl("sweep", "--show", "s").stdout.split())
    lines = nnctl("sweep", "--show", "s", "--json").stdout.splitlines()
    assert [json.loads(line)["trial"] for line in lines] == [1, 2, 3]


def test_the_name_of_another_library_in_a_parameter_is_answered(nnctl: Nnctl) -> None:
    printed = nnctl("sweep", SMOKE, "-p", "lr=0.1,0.2", code=2).stderr
    assert "unknown key 'lr'; use optimizer.learning_rate" in printed


def objects_of(lines: str) -> list[dict[str, Any]]:
    """Return the JSON objects in lines, ordered by trial."""
    rows = [json.loads(line) for line in lines.splitlines()]
    return sorted(rows, key=lambda row: int(row["trial"]))


def test_a_trial_is_the_same_as_a_training_of_its_configuration(
    nnctl: Nnctl, grid: tuple[Path, Result]
) -> None:
    trial = grid[0] / "trial-001"
    nnctl("train", trial / "config.yaml", "--run-dir", "alone")
    one, two = (face.load(run).checkpoint("last").parameters for run in (trial, "alone"))
    assert one.tobytes() == two.tobytes()


def test_a_sweep_file_names_its_base_and_can_draw_at_random(nnctl: Nnctl, scratch: Path) -> None:
    (scratch / "base.yaml").write_text(SMOKE.read_text("utf-8"), encoding="utf-8")
    (scratch / "sweep.yaml").write_text(
        "base: base.yaml\nmethod: random\ntrials: 3\nseed: 4\nmetric: val_loss\nparameters:\n"
        "  optimizer.learning_rate: {distribution: log_uniform_values, min: 0.01, max: 0.2}\n"
        "  network.layers.0: [{units: 16, activation: relu}, {units: 24, activation: tanh}]\n",
        encoding="utf-8",
    )
    plan = objects_of(nnctl("sweep", "sweep.yaml", "--dry-run", "--json").stdout)
    options = ("--epochs", 1, "--subset", 300, "--workers", 1, "--sweep-dir", "sweep")
    done = nnctl("sweep", "sweep.yaml", *options)
    rows = objects_of((scratch / "sweep" / "results.jsonl").read_text("utf-8"))
    assert [trial["parameters"] for trial in plan] == [row["parameters"] for row in rows]
    assert "by validation loss" in done.stdout


def test_a_trial_that_diverges_is_a_row_with_its_reason(nnctl: Nnctl) -> None:
    options = ("-p", "optimizer.learning_rate=0.1,1e30", "--epochs", 1, "--workers", 1)
    done = nnctl("sweep", SMOKE, *options, "--json")
    rows = objects_of(done.stdout)
    assert [row["status"] for row in rows] == ["finished", "diverged"]
    assert "training diverged in epoch 1" in rows[1]["reason"]
    assert "diverged" in done.stderr


def test_a_missing_dataset_is_one_warning_for_all_trials(nnctl: Nnctl) -> None:
    arguments = ("-p", "training.seed=1,2", "--epochs", 1, "--subset", 100)
    done = nnctl("sweep", CONFIGS / "sigmoid.yaml", *arguments)
    assert done.stderr.count("Could not download MNIST") == 1
    assert done.stderr.count("of 2 done") == 2


def test_a_sweep_is_not_extended_with_another_dataset(nnctl: Nnctl, mnist_cache: Path) -> None:
    options = ("--epochs", 1, "--subset", 100, "--sweep-dir", "s")
    nnctl("sweep", CONFIGS / "sigmoid.yaml", "-p", "training.seed=1", *options)
    extension = ("sweep", "--resume", "s", "-p", "training.seed=2")
    stderr = nnctl(*extension, env={"NNCTL_DATA_DIR": str(mnist_cache)}, code=2).stderr
    assert "the trials of s have the dataset mini; new ones would have mnist" in stderr


def test_a_sweep_in_which_all_trials_fail_exits_with_1(nnctl: Nnctl) -> None:
    options = ("-p", "optimizer.learning_rate=1e30,1e31", "--epochs", 1, "--workers", 1)
    done = nnctl("sweep", SMOKE, *options, code=1)
    assert "none of the 2 trials" in done.stderr
    assert done.stdout.count("training diverged") == 2


def test_a_dry_run_lists_the_trials_and_trains_none(nnctl: Nnctl, scratch: Path) -> None:
    done = nnctl("sweep", SMOKE, *RATES, "--dry-run")
    assert len(done.stdout.splitlines()) == 4
    assert "learning_rate=0.05, batch_size=50" in done.stdout
    assert not list(scratch.iterdir())


def test_values_may_be_any_yaml(nnctl: Nnctl) -> None:
    done = nnctl(
        "sweep", SMOKE, "--dry-run", "--json",
        "-p", "network.layers.0={units: 64, activation: relu},{units: 128, activation: tanh}",
        "-p", "training.early_stopping=null,{patience: 2}",
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 4


def test_all_trials_are_checked_before_the_first_is_trained(nnctl: Nnctl, scratch: Path) -> None:
    done = nnctl(
        "sweep", SMOKE, "-p", "training.batch_size=0,32", "-p", "loss=quadrtic,quadratic", code=2
    )
    assert "training.batch_size=0: training.batch_size: expected" in done.stderr
    assert "did you mean 'quadratic'?" in done.stderr
    assert not list(scratch.iterdir())


def test_a_mistake_in_a_sweep_file_is_an_error_with_its_position(
    nnctl: Nnctl, scratch: Path
) -> None:
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
        (SMOKE, "-p", "data.validation=0,100"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)).replace(str(CONFIGS), ""),
)
def test_a_usage_error_exits_with_2(nnctl: Nnctl, arguments: tuple[object, ...]) -> None:
    assert "Error" in nnctl("sweep", *arguments, code=2).stderr


@pytest.mark.parametrize(("columns", "in_columns"), [(80, True), (70, False)])
def test_parameters_that_are_too_wide_for_columns_are_printed_in_one_line(
    nnctl: Nnctl, grid: tuple[Path, Result], columns: int, in_columns: bool
) -> None:
    done = nnctl("sweep", "--show", grid[0], "--quiet", env={"COLUMNS": str(columns)})
    header, *rows = done.stdout.split("Mean validation")[0].splitlines()[2:]
    assert ("batch_size" in header, "parameters" in header) == (in_columns, not in_columns)
    assert any("learning_rate=0.05," in row for row in rows) != in_columns
