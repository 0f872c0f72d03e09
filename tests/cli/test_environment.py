"""Unusual environments: no home directory, ``python -OO``, other variables."""

from __future__ import annotations

import ast
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import platformdirs
import pytest

import nnctl as package
from nnctl.cli import COMMANDS, main
from nnctl.data.dataset import data_directory
from nnctl.errors import DataError
from tests.conftest import CONFIGS, Nnctl
from tests.helpers import load_commands
from tests.processes import Processes

# No home directory -------------------------------------------------------------------------------


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without an entry in the password database, as in many containers."""
    pwd = pytest.importorskip("pwd", reason="Windows has no password database")

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "NNCTL_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(
    "words",
    [
        ("download",),
        ("download", "--verify"),
        ("train", CONFIGS / "smoke.yaml", "--dataset", "mnist"),
    ],
)
def test_without_a_home_directory_the_options_that_help_are_named(
    nnctl: Nnctl, scratch: Path, words: tuple[object, ...]
) -> None:
    output = nnctl(*words, code=3).stderr
    assert "the home directory is unknown" in output
    assert "--data-dir" in output
    assert "NNCTL_DATA_DIR" in output
    assert [*scratch.iterdir()] == []


@pytest.mark.usefixtures("homeless")
def test_without_a_home_directory_training_uses_the_fallback(nnctl: Nnctl, scratch: Path) -> None:
    words = ("train", CONFIGS / "sigmoid.yaml", "--subset", 100, "--epochs", 1, "--run-dir", "run")
    output = nnctl(*words).stderr
    assert "the home directory is unknown" in output
    assert "Training on the bundled 'mini' dataset" in output
    nnctl("check", "run")
    nnctl("eval", "run")
    assert [path.name for path in scratch.iterdir()] == ["run"]


@pytest.mark.usefixtures("homeless")
def test_without_a_home_directory_a_folder_of_digits_is_trained_on(
    nnctl: Nnctl, mini_folder: Path
) -> None:
    nnctl(
        *("train", CONFIGS / "smoke.yaml", "--dataset", mini_folder),
        *("--subset", 100, "--epochs", 1, "--run-dir", "run"),
    )


@pytest.mark.usefixtures("homeless")
def test_with_a_data_directory_no_home_directory_is_needed(nnctl: Nnctl, tmp_path: Path) -> None:
    for options in (
        {"env": {"NNCTL_DATA_DIR": str(tmp_path)}},
        {"env": {"HOME": str(tmp_path)}},
        {"env": {"XDG_CACHE_HOME": str(tmp_path)}},
    ):
        assert f"in {tmp_path}" in nnctl("download", "--verify", code=3, **options).stderr
    verify = ("download", "--verify", "--data-dir", tmp_path)
    assert f"in {tmp_path}" in nnctl(*verify, code=3).stderr


def test_an_unexpanded_tilde_from_platformdirs_is_not_a_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NNCTL_DATA_DIR")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda _: Path("~/.cache/nnctl"))
    with pytest.raises(DataError, match="home directory"):
        data_directory()


# The home directory in a path --------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home directory of the user."""
    folder = tmp_path / "home"
    folder.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(folder))
    return folder


def test_a_tilde_in_the_data_directory_is_the_home_directory(
    nnctl: Nnctl, home: Path, scratch: Path
) -> None:
    for words, env in (
        (("--data-dir=~/mnist",), {}),
        ((), {"NNCTL_DATA_DIR": "~/mnist"}),
    ):
        assert (
            f"in {home / 'mnist'}" in nnctl("download", "--verify", *words, code=3, env=env).stderr
        )
    assert [*scratch.iterdir()] == []


def test_a_tilde_in_any_path_of_a_command_or_a_file_is_the_home_directory(
    nnctl: Nnctl, home: Path, mini_folder: Path, scratch: Path
) -> None:
    mini_folder.rename(home / "digits")
    text = (CONFIGS / "smoke.yaml").read_text("utf-8").replace("dataset: mini", "dataset: ~/digits")
    (home / "c.yaml").write_text(text, encoding="utf-8")
    (home / "sweep.yaml").write_text(
        "base: ~/c.yaml\nparameters: {training.seed: [1, 2]}\n", encoding="utf-8"
    )
    quick = ("--epochs", 1, "--subset", 100)
    run = nnctl("train", "~/c.yaml", *quick, "--runs-dir=~/runs").stdout.splitlines()[-1]
    assert Path(run).parent == home / "runs"
    assert f"dataset: {home / 'digits'}" in (Path(run) / "config.yaml").read_text("utf-8")
    nnctl("train", CONFIGS / "smoke.yaml", *quick, "--run-dir=~/run", "--dataset=~/digits")
    nnctl("check", "~/run")
    nnctl("eval", "~/run", "--dataset", "~/digits")
    output = nnctl("predict", "~/run", "~ex.png", "~/x.png", code=3).stderr
    assert "Error: ~ex.png: " in output
    assert f"Error: {home / 'x.png'}: " in output
    nnctl("export", "~/run", "--format", "safetensors", "--output=~/net.safetensors")
    nnctl("sweep", "~/sweep.yaml", "--dry-run")
    assert (home / "net.safetensors").is_file()
    assert [*scratch.iterdir()] == []


def test_a_tilde_in_a_path_of_the_python_api_is_the_home_directory(
    home: Path, scratch: Path
) -> None:
    shutil.copy(CONFIGS / "smoke.yaml", home)
    run = package.train("~/smoke.yaml", epochs=1, subset=100, run_dir="~/run")
    assert run.directory == home / "run"
    assert package.load("~/run").directory == home / "run"
    assert [*scratch.iterdir()] == []


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("words", [("--run-dir=~/run",), ("--dataset=~/digits",)])
def test_a_tilde_without_a_home_directory_is_a_usage_error(
    nnctl: Nnctl, scratch: Path, words: tuple[str, ...]
) -> None:
    output = nnctl("train", CONFIGS / "smoke.yaml", *words, code=2).stderr
    assert "the home directory is unknown" in output
    assert [*scratch.iterdir()] == []


def test_a_name_that_only_begins_with_a_tilde_is_a_name(nnctl: Nnctl, scratch: Path) -> None:
    shutil.copy(CONFIGS / "smoke.yaml", scratch / "~smoke.yaml")
    nnctl("check", "~smoke.yaml", "-q")


# Python's options --------------------------------------------------------------------------------


def test_every_command_has_help_without_docstrings() -> None:
    commands: list[click.Command] = [main, *load_commands().values()]
    for command in commands:
        assert command.help, command.name
        assert command.callback
        assert command.help != command.callback.__doc__, command.name


def test_the_list_of_commands_shows_whole_sentences_at_80_columns(nnctl: Nnctl) -> None:
    lines = nnctl("--help", env={"COLUMNS": "80"}).stdout.partition("Commands:")[2].splitlines()
    summaries = [line for line in lines if line.startswith("  ") and line.split()[0] in COMMANDS]
    assert len(summaries) == len(COMMANDS)
    assert all(line.endswith(".") and not line.endswith("...") for line in summaries), summaries


def test_the_error_of_an_unknown_command_suggests_a_similar_one(nnctl: Nnctl) -> None:
    assert "No such command 'trian'; did you mean 'train'?" in nnctl("trian", code=2).stderr
    assert "No such command 'fly'." in nnctl("fly", code=2).stderr


def test_the_list_of_commands_shows_the_first_sentence_of_their_help() -> None:
    for name, command in load_commands().items():
        assert COMMANDS[name][1] == command.get_short_help_str(limit=100)


@pytest.mark.parametrize(
    ("completed", "words"),
    [
        ({"eval", "explain", "export"}, ("nnctl", "e")),
        ({"--split"}, ("nnctl", "eval", "--sp")),
        ({"latest", "dir,"}, ("nnctl", "eval", "")),
        ({"books/scratch-4", "file,books/scratch-4"}, ("nnctl", "train", "books/scratch-4")),
        ({"training.batch_size="}, ("nnctl", "train", "--set", "training.b")),
        ({"network.layers.0.dropout="}, ("nnctl", "sweep", "-p", "network.layers.0.d")),
    ],
)
def test_the_shell_completes_commands_and_options(
    processes: Processes, tmp_path: Path, completed: set[str], words: tuple[str, ...]
) -> None:
    typed = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    env = {"_NNCTL_COMPLETE": "bash_complete", **typed}
    lines = processes.run_nnctl(env=env, cwd=tmp_path).stdout.splitlines()
    assert completed == {line.removeprefix("plain,") for line in lines}


def test_help_is_the_same_without_docstrings(processes: Processes, nnctl: Nnctl) -> None:
    output = processes.run_nnctl("train", "--help", env={"PYTHONOPTIMIZE": "2"}).stdout
    assert "Train a network as configured in CONFIG" in output
    assert output.split()[2:] == nnctl("train", "--help").stdout.split()[2:]


def test_without_asserts_the_same_network_is_trained(nnctl: Nnctl, processes: Processes) -> None:
    words = ("train", CONFIGS / "smoke.yaml", "--subset", 100, "--epochs", 1, "--run-dir")
    nnctl(*words, "with")
    processes.run_nnctl(*words, "without", env={"PYTHONOPTIMIZE": "2"})
    with np.load("with/best.npz") as ours, np.load("without/best.npz") as theirs:
        np.testing.assert_array_equal(ours["parameters"], theirs["parameters"])


def asserts() -> Iterator[tuple[Path, ast.Assert]]:
    """Yield every assert of the package."""
    for path in Path(package.__file__).parent.rglob("*.py"):
        source = path.read_text("utf-8")
        for node in ast.walk(ast.parse(source)) if "assert " in source else ():
            if isinstance(node, ast.Assert):
                yield path, node


def test_asserts_only_narrow_types() -> None:
    """``python -O`` removes asserts, so they must not validate input from users or files."""
    for path, node in asserts():
        condition = ast.unparse(node.test)
        assert re.fullmatch(
            r"[\w.]+ is not None|isinstance\([\w.]+, [\w.]+\)|.+ != 'auto'", condition
        ), f"{path}:{node.lineno}: assert {condition}"


def test_an_interrupt_that_a_lock_turns_into_another_error_is_one(
    nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RuntimeError("release unlocked lock")  # noqa: B904 - as in Python's threading

    monkeypatch.setattr("click.Group.main", interrupted)
    assert nnctl("check", code=130).stderr == "Interrupted\n"


# Windows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EINVAL])
def test_a_closed_pipe_of_windows_ends_quietly(
    nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def write(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("nnctl.cli._CLOSED_PIPE", (errno.EPIPE, errno.EINVAL))  # as in Windows
    monkeypatch.setattr("click.Group.main", write)
    assert nnctl("check", code=1).stderr == ""
