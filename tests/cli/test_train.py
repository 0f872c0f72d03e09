"""``nnctl train`` as a user sees it, on real digits."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
import yaml

import nnctl as face
from nnctl.cli import COMMANDS
from nnctl.data.dataset import open_dataset
from nnctl.errors import ConfigError
from tests.conftest import CONFIGS, Nnctl
from tests.data.conftest import idx_bytes
from tests.helpers import load_command
from tests.processes import DEADLINE, Processes, nnctl_command
from tests.terminal import COLOR

SMOKE = CONFIGS / "smoke.yaml"


def test_the_last_line_of_stdout_is_the_run_directory(nnctl: Nnctl, scratch: Path) -> None:
    done = nnctl("train", SMOKE, "--epochs", 2)
    run = scratch / done.stdout.splitlines()[-1]
    assert re.fullmatch(r"smoke-\d{8}-\d{6}", run.name)
    assert {"config.yaml", "metrics.jsonl", "summary.json", "best.npz", "last.npz"} == {
        path.name for path in run.iterdir()
    }
    assert f"nnctl eval {run.relative_to(scratch)}" in done.stdout
    assert "best epoch" in done.stdout


def test_metrics_have_an_object_per_epoch(trained_run: Path) -> None:
    lines = (trained_run / "metrics.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["epoch"] for row in rows] == [1, 2]
    expected = {"epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"}
    expected |= {"val_class_accuracies", "learning_rate", "seconds", "health"}
    assert all(expected == row.keys() for row in rows)
    health = {"mean", "std", "dead", "saturated", "error", "error_ratio", "update_ratio"}
    assert all([health] * 2 == [layer.keys() for layer in row["health"]] for row in rows)
    assert all(row["health"][0]["error_ratio"] > 0 for row in rows)
    assert all(row["health"][1]["error_ratio"] is None for row in rows)
    assert rows[0]["train_loss"] > rows[1]["train_loss"]


def test_json_replaces_the_results_by_the_summary(nnctl: Nnctl, scratch: Path) -> None:
    done = nnctl("train", SMOKE, "--epochs", 2, "--json")
    summary = json.loads(done.stdout)
    saved = (scratch / summary["run_dir"] / "summary.json").read_text("utf-8")
    assert summary == json.loads(saved)
    assert summary["status"] == "finished"
    assert summary["best_epoch"] in (1, 2)
    assert summary["dataset"]["name"] == "mini"
    assert all(len(sha256) == 64 for sha256 in summary["dataset"]["hashes"].values())
    assert summary["blas"]["threads"] == 1
    assert summary["threads"] == 1
    assert summary["versions"]["numpy"] == np.__version__
    for key in ("best_val_accuracy", "best_val_loss", "final_train_loss", "seed", "seconds"):
        assert isinstance(summary[key], int | float)


@pytest.mark.parametrize(("options", "used"), [((), 1), (("--threads", 2), 2)])
def test_threads_are_chosen_by_the_size_of_a_step_or_by_the_user(
    nnctl: Nnctl, scratch: Path, options: tuple[object, ...], used: int
) -> None:
    done = nnctl("train", SMOKE, "--epochs", 1, "--run-dir", "run", "--json", *options)
    assert json.loads(done.stdout)["threads"] == used
    assert f"threads: {used}}}" in (scratch / "run" / "config.yaml").read_text("utf-8")


def test_the_best_epoch_has_the_highest_validation_accuracy(nnctl: Nnctl, scratch: Path) -> None:
    unsteady = ("--set", "optimizer.learning_rate=0.2", "--set", "optimizer.schedule=constant")
    done = nnctl("train", SMOKE, "--epochs", 5, *unsteady, "--run-dir", "run", "--json")
    rows = face.load("run").history
    best = min(rows, key=lambda row: (-(row.val_accuracy or 0), row.val_loss))
    assert best.epoch == json.loads(done.stdout)["best_epoch"] < 5
    evaluation = face.evaluate(scratch / "run", split="validation", checkpoint="best")
    assert best.val_accuracy == pytest.approx(evaluation.accuracy)


def test_quiet_prints_only_the_results(nnctl: Nnctl) -> None:
    assert nnctl("train", SMOKE, "--epochs", 1, "--quiet").stderr == ""


def test_progress_is_a_row_per_epoch_with_the_best_marked(nnctl: Nnctl) -> None:
    done = nnctl("train", SMOKE, "--epochs", 3)
    rows = [line for line in done.stderr.splitlines() if re.match(r"[ *] +\d", line)]
    assert [int(row[1:].split()[0]) for row in rows] == [1, 2, 3]
    assert rows[0].startswith("*")
    assert "\x1b" not in done.stderr + done.stdout


def test_two_runs_of_the_same_second_do_not_share_a_directory(nnctl: Nnctl) -> None:
    gate = CONFIGS / "gates" / "and.yaml"
    names = {nnctl("train", gate, "--epochs", 1, "-q").stdout.splitlines()[-1] for _ in range(4)}
    assert len(names) == 4


def test_a_run_directory_that_is_not_empty_is_not_changed(nnctl: Nnctl, copied_run: Path) -> None:
    before = (copied_run / "last.npz").read_bytes()
    done = nnctl("train", SMOKE, "--epochs", 1, "--run-dir", "run", code=2)
    assert "nnctl train --resume run" in done.stderr
    assert before == (copied_run / "last.npz").read_bytes()


def test_the_resolved_configuration_reproduces_the_run(nnctl: Nnctl, scratch: Path) -> None:
    overrides = ("--set", "network.layers.0.units=17", "--seed", 5, "--subset", 1000)
    nnctl("train", SMOKE, "--epochs", 2, *overrides, "--run-dir", "one")
    resolved = yaml.safe_load((scratch / "one" / "config.yaml").read_text("utf-8"))
    assert resolved["network"]["layers"][0]["units"] == 17
    settled = {"dataset": "mini", "fallback": None, "validation": 833, "subset": 1000}
    assert settled.items() <= resolved["data"].items()
    nnctl("train", "one/config.yaml", "--run-dir", "two")
    one, two = (face.load(scratch / name).checkpoint("last") for name in ("one", "two"))
    assert one.parameters.tobytes() == two.parameters.tobytes()


@pytest.mark.usefixtures("scratch")
def test_numpy_scalars_are_numbers_in_a_configuration_from_python() -> None:
    config = yaml.safe_load(SMOKE.read_text("utf-8"))
    config["network"]["layers"][0]["units"] = np.int64(5)
    config["optimizer"] |= {"learning_rate": np.float32(0.5), "nesterov": np.bool_(True)}
    settings = {"training.early_stopping": {"patience": np.int32(3)}}
    run = face.train(config, epochs=1, subset=100, settings=settings, run_dir="run")
    optimizer, training = run.config.optimizer, run.config.training
    assert (run.config.network.layers[0].units, optimizer.learning_rate) == (5, 0.5)
    assert optimizer.nesterov is True
    assert training.early_stopping is not None
    assert training.early_stopping.patience == 3
    config["network"]["layers"][0]["units"] = np.float64(2.5)
    with pytest.raises(ConfigError, match=r"expected a whole number, got 2\.5"):
        face.train(config)


def test_options_settings_and_flags_can_come_from_the_environment(nnctl: Nnctl) -> None:
    options = {"NNCTL_TRAIN_EPOCHS": "1", "NNCTL_TRAIN_SEED": "9", "NNCTL_TRAIN_JSON": "1"}
    summary = json.loads(nnctl("train", SMOKE, env=options).stdout)
    assert (summary["epochs"], summary["seed"]) == (1, 9)
    env = {"NNCTL_TRAIN_SET": "training.seed=4 training.epochs=1", "NNCTL_TRAIN_JSON": "1"}
    summary = json.loads(nnctl("train", SMOKE, env=env).stdout)
    assert (summary["seed"], summary["epochs"]) == (4, 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("data.augment={rotate: 10}", {"rotate": 10.0}),
        ("training.seed=3  data.augment={rotate: 10, shift: 1}", {"rotate": 10.0, "shift": 1.0}),
        ("\n data.augment={rotate:\n 10}\ntraining.seed=3\n", {"rotate": 10.0}),
        (" \n", None),
    ],
)
def test_a_setting_in_the_environment_may_contain_spaces(
    nnctl: Nnctl, value: str, expected: dict[str, float] | None
) -> None:
    done = nnctl("train", SMOKE, "--dry-run", "--json", env={"NNCTL_TRAIN_SET": value})
    config = json.loads(done.stdout)
    assert config["training"]["seed"] == (3 if "seed" in value else 0)
    augment = config["data"]["augment"] and {
        key: value for key, value in config["data"]["augment"].items() if value
    }
    assert augment == expected


def test_parameters_of_a_sweep_in_the_environment_may_contain_spaces(nnctl: Nnctl) -> None:
    schedules = "optimizer.schedule=constant, {name: cosine} training.seed=1, 2"
    done = nnctl("sweep", SMOKE, "--dry-run", env={"NNCTL_SWEEP_PARAMETER": schedules})
    assert len(done.stdout.splitlines()) == 4


@pytest.mark.parametrize("value", ["data.augment", "rotate: 10", "data.augment={rotate: 10"])
def test_a_bad_setting_in_the_environment_is_reported_as_a_whole(nnctl: Nnctl, value: str) -> None:
    done = nnctl("train", SMOKE, "--dry-run", env={"NNCTL_TRAIN_SET": value}, code=2)
    assert f"--set {value}: " in done.stderr


@pytest.mark.parametrize(
    ("variable", "advice"),
    [
        ("NNCTL_TRAIN_EPOCH", "; did you mean NNCTL_TRAIN_EPOCHS?"),
        ("NNCTL_TRIAN_EPOCHS", "; did you mean NNCTL_TRAIN_EPOCHS?"),
        ("NNCTL_EPOCHS", "; did you mean NNCTL_TRAIN_EPOCHS?"),
        ("NNCTL_DATADIR", "; did you mean NNCTL_DATA_DIR?"),
        ("NNCTL_TRAIN_XYZZY", "; see: nnctl train --help"),
    ],
)
def test_a_misspelled_variable_of_an_option_is_a_warning(
    nnctl: Nnctl, variable: str, advice: str
) -> None:
    done = nnctl("train", SMOKE, "--dry-run", "--json", env={variable: "3"})
    message = f"unknown environment variable {variable}{advice}"
    assert done.stderr == f"Warning: {message}\n"
    assert json.loads(done.stdout)["training"]["epochs"] == 10


def test_the_variables_of_other_commands_and_programs_are_no_mistake(nnctl: Nnctl) -> None:
    names = ("TEST_MNIST", "VERSION", "MIRROR", "SWEEP_WORKERS", "HOME", "X", "", "CONFIGURATION")
    env = {f"NNCTL_{name}": "3" for name in names} | {"nnctl_train_epoch": "3", "EPOCHS": "3"}
    assert nnctl("train", SMOKE, "--dry-run", env=env).stderr == ""
    assert "NNCTL_TRAIN_EPOCH" not in nnctl("--help", env={"NNCTL_TRAIN_EPOCH": "1"}).stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_an_environment_variable_named_after_it(command: str) -> None:
    name = command.replace("-", "_").upper()
    general = {"DATA_DIR": "NNCTL_DATA_DIR", "MIRROR": "NNCTL_MIRROR"}
    for option in load_command(command).params:
        if isinstance(option, click.Option):
            long = max(option.opts, key=len).removeprefix("--").replace("-", "_").upper()
            assert general.get(long, f"NNCTL_{name}_{long}") == option.envvar


@pytest.mark.parametrize("value", ["1", "0.1.0"])
def test_a_version_in_the_environment_changes_nothing(nnctl: Nnctl, value: str) -> None:
    done = nnctl("train", SMOKE, "--dry-run", env={"NNCTL_VERSION": value})
    assert done.stdout.startswith("data: {dataset: mini")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NNCTL_TRAIN_EPOCHS", "many", "valid integer."),
        ("NNCTL_TRAIN_EPOCHS", "0", "or 'auto', got 0"),
        ("NNCTL_TRAIN_SET", "x=1", ""),
    ],
)
def test_a_bad_value_in_the_environment_is_a_usage_error(
    nnctl: Nnctl, name: str, value: str, message: str
) -> None:
    done = nnctl("train", SMOKE, env={name: value}, code=2)
    assert f"{message}\nSet in the environment: {name}={value}\n" in done.stderr


def test_an_impossible_file_name_is_a_usage_error(nnctl: Nnctl) -> None:
    folder = "x" * 5000
    done = nnctl("eval", folder, code=2)
    assert folder in done.stderr


def test_control_characters_are_escaped(nnctl: Nnctl, scratch: Path) -> None:
    config = scratch / "a\x1b[2Jb.yaml"
    config.write_text('"\\e]0;x\\a": 1\n', "utf-8")
    printed = nnctl("train", config.name, code=2).stderr + nnctl("\x1b[31mtrain", code=2).stderr
    assert "\x1b" not in printed
    assert all(
        shown in printed for shown in (r"a\x1b[2Jb.yaml:1:1: \x1b]0;x\x07: ", r"'\x1b[31mtrain'")
    )


@pytest.mark.parametrize("size", ["0", "-1", "abc", "²", "1000000000", "9" * 5000])
def test_an_impossible_window_size_is_ignored(nnctl: Nnctl, size: str) -> None:
    arguments = ("train", SMOKE, "--epochs", 1, "--subset", 100)
    done = nnctl(*arguments, env={"COLUMNS": size, "LINES": size})
    assert re.fullmatch(r"runs.smoke-\d{8}-\d{6}", done.stdout.splitlines()[-1])


def test_the_name_of_a_run_directory_fits_every_file_system(nnctl: Nnctl, scratch: Path) -> None:
    config = scratch / f"{'𝔷' * 60}.yaml"
    config.write_bytes((CONFIGS / "gates" / "and.yaml").read_bytes())
    run = nnctl("train", config, "--epochs", 1).stdout.splitlines()[-1]
    assert re.fullmatch(r"𝔷{25}-\d{8}-\d{6}", Path(run).name)


def test_a_dry_run_shows_the_resolved_configuration_and_writes_nothing(
    nnctl: Nnctl, scratch: Path
) -> None:
    done = nnctl("train", SMOKE, "--epochs", 7, "--dry-run")
    assert yaml.safe_load(done.stdout)["training"]["epochs"] == 7
    as_json = nnctl("train", SMOKE, "--epochs", 7, "--dry-run", "--json").stdout
    assert yaml.safe_load(done.stdout) == json.loads(as_json)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("words", [("train", "--dry-run"), ("check",)])
def test_a_folder_without_files_exits_with_3_before_training_too(
    nnctl: Nnctl, scratch: Path, words: tuple[str, ...]
) -> None:
    (scratch / "empty").mkdir()
    assert "empty contains no dataset" in nnctl(*words, SMOKE, "--dataset", "empty", code=3).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--epochs", 6, "--subset", 100),
        ("sweep", "-p", "training.seed=1,2", "--epochs", 1, "--subset", 100, "--workers", 1),
    ],
)
def test_colors_that_are_forced_move_nothing_in_a_file(
    nnctl: Nnctl, words: tuple[object, ...]
) -> None:
    command, *options = words
    env = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "CI": ""}
    printed = nnctl(command, SMOKE, *options, env=env).stderr
    assert "\x1b" not in COLOR.sub("", printed)
    assert "\r" not in printed
    assert "batches" not in printed
    assert bool(COLOR.search(printed)) == (command == "train")


@pytest.mark.parametrize("command", ["train", "check"])
def test_all_mistakes_are_printed_at_once_with_their_positions(
    nnctl: Nnctl, scratch: Path, command: str
) -> None:
    (scratch / "wrong.yaml").write_text(
        "network:\n  layers:\n    - {units: 30, activation: sigmod}\n"
        "    - {units: 5, activation: softmax}\n"
        "optimizer: {learning_rate: 0.1, momentun: 0.9}\ntraining: {epochs: no}\n",
        encoding="utf-8",
    )
    done = nnctl(command, "wrong.yaml", "--set", "training.seed=-1", code=2)
    for mistake in (
        "wrong.yaml:3:31: network.layers.0.activation: unknown activation 'sigmod'",
        "did you mean 'sigmoid'?",
        "wrong.yaml:4:15: network.layers.1.units: the last layer has 5 units",
        "wrong.yaml:5:33: optimizer.momentun: unknown key 'momentun'",
        "wrong.yaml:6:20: training.epochs: expected a whole number",
        "--set training.seed=-1: training.seed: expected",
    ):
        assert mistake in done.stderr
    assert done.stdout == ""
    assert [path.name for path in scratch.iterdir()] == ["wrong.yaml"]


@pytest.mark.parametrize(
    ("setting", "epochs"),
    [
        ({}, 30),
        ({"training.steps": 100}, 2),  # 79 steps per epoch
        ({"training.steps": 158}, 2),
        ({"training.steps": 159}, 3),
        ({"training.steps": 100, "training.epochs": 5}, 5),
        ({"training.steps": 100, "training.epochs": 1}, 1),
    ],
    ids=str,
)
def test_the_number_of_epochs_follows_from_the_number_of_steps(
    nnctl: Nnctl, scratch: Path, setting: dict[str, int], epochs: int
) -> None:
    chosen = {"training.epochs": "auto", "training.batch_size": 32, "data.subset": 79 * 32 - 1}
    chosen |= setting
    settings = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    trained = json.loads(nnctl("train", SMOKE, *settings, "--run-dir", "run", "--json").stdout)
    settled = yaml.safe_load((scratch / "run" / "config.yaml").read_text("utf-8"))
    assert epochs == settled["training"]["epochs"]
    assert min(epochs, 2 if setting.get("training.steps") == 100 else 30) == trained["epochs"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.epochs=0", "expected a number of at least 1 or 'auto', got 0"),
        ("training.steps=-1", "expected a number of at least 1, got -1"),
        ("training.steps=1.5", "expected a whole number, got 1.5"),
        ("training.sampling=replacement", "expected 'shuffle' or 'with_replacement', got the text"),
    ],
)
def test_a_wrong_setting_is_a_usage_error(nnctl: Nnctl, setting: str, message: str) -> None:
    key = setting.split("=")[0]
    done = nnctl("train", SMOKE, "--set", setting, code=2)
    assert f"--set {setting}: {key}: {message}" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("train",),
        ("train", "nowhere.yaml"),
        ("train", SMOKE, "--resume", "nowhere"),
        ("train", SMOKE, "--epochs", "0"),
        ("train", SMOKE, "--set", "nonsense"),
        ("train", SMOKE, "--set", "network.layers.9.units=3"),
        ("train", SMOKE, "--dataset", "mnsit"),
        ("train", SMOKE, "--subset", "1000000"),
        ("train", SMOKE, "--fail-under", "2"),
        ("train", SMOKE, "--fail-under", "nan"),
        *(("train", SMOKE, "--max-time", time) for time in ("0", "-1", "1.5h", "10 m", "soon")),
        ("train", SMOKE, "--fail-under", "0.5", "--set", "data.validation=0"),
        ("train", CONFIGS / "gates" / "xor.yaml", "--fail-under", "0.5"),
        ("train", ""),
        ("train", "--resume", ""),
        ("train", SMOKE, "--run-dir", ""),
        ("train", SMOKE, "--unknown"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[1:])).replace(str(CONFIGS), ""),
)
def test_a_usage_error_exits_with_2(nnctl: Nnctl, arguments: tuple[object, ...]) -> None:
    assert "Error" in nnctl(*arguments, code=2).stderr


def test_a_mistake_found_with_the_dataset_leaves_no_directory(nnctl: Nnctl, scratch: Path) -> None:
    gate = CONFIGS / "gates" / "xor.yaml"
    done = nnctl("train", gate, "--set", "training.early_stopping={patience: 2}", code=2)
    assert "early stopping needs validation examples" in done.stderr
    assert not (scratch / "runs").exists()


def test_a_test_set_that_cannot_be_monitored_leaves_no_directory(
    nnctl: Nnctl, scratch: Path, mini_folder: Path
) -> None:
    (mini_folder / "t10k-images-idx3-ubyte.gz").unlink()
    images = idx_bytes(np.zeros((1000, 9, 9), np.uint8))
    (mini_folder / "t10k-images-idx3-ubyte").write_bytes(images)
    monitored = ("--dataset", mini_folder, "--set", "training.monitor=[test]")
    done = nnctl("train", SMOKE, *monitored, code=3)
    assert "784 pixels in the training set, but 81 in the test set" in done.stderr
    assert not [*(scratch / "runs").glob("*")]


def test_an_empty_path_is_not_the_current_folder(nnctl: Nnctl) -> None:
    for arguments in (("eval", ""), ("predict", "", "x.png"), ("train", "--resume", "")):
        assert "is a shell variable unset?" in nnctl(*arguments, code=2).stderr


def test_without_arguments_help_is_printed(nnctl: Nnctl) -> None:
    assert nnctl().stdout == nnctl("--help").stdout


def test_a_run_that_stopped_early_cannot_be_extended(nnctl: Nnctl) -> None:
    stopping = ("--set", "training.early_stopping={patience: 1}", "--run-dir", "run")
    nnctl("train", SMOKE, "--set", "optimizer.learning_rate=3", "--epochs", 20, *stopping)
    done = nnctl("train", "--resume", "run", "--epochs", 40)
    assert "early stopping ended this run" in done.stderr


def test_divergence_exits_with_4_and_reports_the_place_and_a_remedy(
    nnctl: Nnctl, scratch: Path
) -> None:
    done = nnctl(
        "train", SMOKE, "--set", "optimizer.learning_rate=1e30", "--run-dir", "run", code=4
    )
    assert re.search(r"diverged in epoch 1, batch \d+: the \w+ of layer \d \(\w+\)", done.stderr)
    assert "try --lr 1e+29, or 1e+28." in done.stderr
    summary = json.loads((scratch / "run" / "summary.json").read_text("utf-8"))
    assert summary["status"] == "diverged"
    assert summary["divergence"]["epoch"] == 1


def test_a_run_ends_after_max_time_with_its_state_saved_and_can_be_continued(
    nnctl: Nnctl, scratch: Path
) -> None:
    done = nnctl("train", SMOKE, "--epochs", 1_000_000, "--max-time", "1s", "--run-dir", "run")
    assert "stopped      at the time limit, after " in done.stdout
    assert "continue it  nnctl train --resume run" in done.stdout
    summary = json.loads((scratch / "run" / "summary.json").read_text("utf-8"))
    assert (summary["status"], summary["time_limit"]) == ("interrupted", True)
    epochs = summary["epochs"] + 1
    done = nnctl("train", "--resume", "run", "--epochs", epochs, "--max-time", "2h", "--json")
    summary = json.loads(done.stdout)
    assert (summary["status"], summary["epochs"]) == ("finished", epochs)
    assert "time_limit" not in summary
    ended = face.train(SMOKE, epochs=1_000_000, max_time=0.1, run_dir="another").summary
    assert ended
    assert ended.time_limit


def test_fail_under_exits_with_5_below_the_accuracy(nnctl: Nnctl) -> None:
    nnctl("train", SMOKE, "--epochs", 2, "--fail-under", "0.85")
    done = nnctl("train", SMOKE, "--epochs", 1, "--fail-under", "0.999", code=5)
    assert "is below 0.999" in done.stderr


def test_without_validation_the_last_epoch_is_the_best(nnctl: Nnctl) -> None:
    done = nnctl("train", SMOKE, "--epochs", 2, "--set", "data.validation=0", "--json")
    summary = json.loads(done.stdout)
    assert (summary["best_epoch"], summary["best_val_accuracy"]) == (2, None)
    assert "-" in nnctl("train", SMOKE, "--epochs", 1, "--set", "data.validation=0").stderr


def test_a_missing_dataset_is_replaced_by_the_fallback_with_a_warning(nnctl: Nnctl) -> None:
    done = nnctl("train", CONFIGS / "sigmoid.yaml", "--epochs", 1, "--json", "--quiet")
    assert "Could not download MNIST" in done.stderr
    assert "no mirror served train-images-idx3-ubyte.gz" in done.stderr
    assert json.loads(done.stdout)["dataset"]["name"] == "mini"


def test_without_a_fallback_a_missing_dataset_exits_with_3(nnctl: Nnctl, scratch: Path) -> None:
    done = nnctl("train", CONFIGS / "sigmoid.yaml", "--set", "data.fallback=null", code=3)
    assert "nnctl download mnist --from DIR" in done.stderr
    assert not (scratch / "runs").exists()


def test_damaged_images_exit_with_3_and_leave_no_run(
    nnctl: Nnctl, scratch: Path, mini_folder: Path
) -> None:
    path = mini_folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:200_000])
    done = nnctl("train", SMOKE, "--dataset", mini_folder, code=3)
    assert f"{path} is not a complete gzip file" in done.stderr
    assert not list(scratch.glob("runs/*"))


def test_sizes_that_are_too_large_for_the_fallback_are_reduced(nnctl: Nnctl) -> None:
    arguments = ("--epochs", 1, "--json", "--set", "data.validation=10000", "--subset", 20000)
    done = nnctl("train", CONFIGS / "sigmoid.yaml", *arguments)
    dataset = json.loads(done.stdout)["dataset"]
    assert (dataset["training"], dataset["validation"]) == (4167, 833)


def test_a_resumed_run_needs_no_configuration_and_rejects_another(
    nnctl: Nnctl, copied_run: Path
) -> None:
    done = nnctl("train", "--resume", "run", "--set", "optimizer.momentum=0.5", code=2)
    assert "optimizer.momentum: 0.9 in the run, 0.5 requested" in done.stderr
    extended = nnctl("train", "--resume", "run", "--epochs", 3, "--json")
    assert json.loads(extended.stdout)["epochs"] == 3
    assert len((copied_run / "metrics.jsonl").read_text("utf-8").splitlines()) == 3
    again = nnctl("train", SMOKE, "--resume", "run", "--epochs", 3)
    assert again.stdout.splitlines()[-1] == "run"


@pytest.mark.parametrize(
    ("config", "key", "other"),
    [
        ("gates/xor.yaml", "network.layers.0.units", 3),
        ("is-it-a-nine.yaml", "data.positive_digit", 8),
    ],
)
def test_a_resumed_training_ends_in_the_same_bits(
    nnctl: Nnctl, config: str, key: str, other: int
) -> None:
    settings = {"optimizer.schedule": "constant"}
    dataset = "xor" if "xor" in config else "mini"
    for name, epochs in (("whole", 4), ("begun", 2)):
        face.train(
            CONFIGS / config, dataset=dataset, epochs=epochs, run_dir=name, settings=settings
        )
    nnctl("train", "--resume", "begun", "--epochs", 4, "--quiet")
    whole, begun = (
        face.load(name).network("last").parameters.vector for name in ("whole", "begun")
    )
    np.testing.assert_array_equal(whole, begun)
    done = nnctl("train", "--resume", "begun", "--set", f"{key}={other}", code=2)
    assert re.search(rf"{key}: \d+ in the run, {other} requested", done.stderr)


def test_training_never_reads_the_test_set(mini_folder: Path, nnctl: Nnctl) -> None:
    (mini_folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"not digits")
    nnctl("train", SMOKE, "--dataset", mini_folder, "--epochs", 1, "--run-dir", "run")
    nnctl("eval", "run", code=3)


@pytest.mark.usefixtures("scratch")
def test_the_python_api_trains_evaluates_and_predicts() -> None:
    run = face.train(SMOKE, epochs=2, settings={"optimizer.momentum": 0.5})
    evaluation = face.evaluate(run)
    assert evaluation.accuracy > 0.8
    loaded = face.load(run.directory)
    digits = open_dataset("mini", notify=lambda _: None).test
    probabilities = loaded.predict(digits.inputs.reshape(-1, 28, 28))
    assert probabilities.shape == (1000, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    hits = probabilities.argmax(axis=1) == digits.labels
    assert evaluation.accuracy == pytest.approx(hits.mean())
    np.testing.assert_allclose(probabilities, loaded.predict(digits.inputs / 255), atol=1e-5)
    assert run.directory.parent == Path("runs")


def test_the_python_api_takes_pixels_of_any_integer_type(
    trained_run: Path,
) -> None:
    run = face.load(trained_run)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 784), dtype=np.uint8)
    assert run.predict(pixels).tolist() == run.predict(pixels.astype(np.int64)).tolist()
    assert run.predict(pixels).tolist() == run.predict(pixels.tolist()).tolist()
    with pytest.raises(face.errors.UsageError, match="unknown split 'tset'"):
        face.evaluate(run, split="tset")  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.usefixtures("scratch")
def test_a_training_continues_when_its_progress_is_not_read(processes: Processes) -> None:
    command = shlex.join(nnctl_command("train", SMOKE, "--run-dir", "run"))
    shell = processes.start(["sh", "-c", f"{command} 2>&1 >out | head -n 1 >head"])
    assert shell.wait(timeout=DEADLINE) == 0
    summary = face.load("run").summary
    assert summary
    assert summary.status == "finished"
    assert Path("out").read_text("utf-8").splitlines()[-1] == "run"


def test_a_terminal_with_only_ascii_gets_ascii(nnctl_process: Nnctl, trained_run: Path) -> None:
    run = Path(shutil.copytree(trained_run, "손 글씨"))
    Path("손글씨.yaml").write_bytes(SMOKE.read_bytes())
    env = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    for arguments in (
        ("train", "손글씨.yaml", "--epochs", 1, "--subset", 100, "--run-dir", "글씨"),
        ("eval", run),
    ):
        done = nnctl_process(*arguments, env=env)
        assert done.stderr.isascii()
    assert "precision" in done.stdout


@pytest.mark.usefixtures("scratch")
def test_the_python_api_takes_a_mapping_and_reports_its_mistakes() -> None:
    layers = [{"units": 10, "activation": "softmax"}]
    config = {
        "data": {"dataset": "mini"},
        "network": {"layers": layers},
        "optimizer": {"learning_rate": 0.1},
    }
    assert face.evaluate(face.train(config, epochs=1, run_dir="run")).accuracy > 0.7
    with pytest.raises(face.errors.ConfigError, match="did you mean 'optimizer'"):
        face.train({**config, "optimiser": {}})


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are text")
@pytest.mark.parametrize(
    ("expected", "name", "env"),
    [
        (b"r\xc3\xa9\xff\n", b"r\xc3\xa9\xff", {}),
        (b"r?\n", b"r\xc3\xa9", {"PYTHONIOENCODING": "ascii"}),
        ("r?\n".encode("utf-16-le"), b"r\xff", {"PYTHONIOENCODING": "utf-16-le"}),
    ],
)
def test_the_printed_run_directory_has_the_bytes_of_its_real_name(
    scratch: Path, processes: Processes, expected: bytes, name: bytes, env: dict[str, str]
) -> None:
    gate = CONFIGS / "gates" / "and.yaml"
    command = nnctl_command("train", gate, "--epochs", 1, "-q", "--run-dir", os.fsdecode(name))
    process = processes.start(command, env={**os.environ, **env}, stdout=subprocess.PIPE)
    stdout, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert stdout.endswith(expected)
    assert [os.fsencode(path.name) for path in scratch.iterdir()] == [name]
