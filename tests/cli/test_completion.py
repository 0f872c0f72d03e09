"""Words that the shell completes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from nnctl.cli import main
from tests.conftest import Nnctl
from tests.helpers import run_command
from tests.processes import Processes, nnctl_command


@pytest.mark.parametrize(
    ("words", "expected", "other"),
    [
        ("tr", "train", "sweep"),
        ("train sig", "sigmoid", "smoke"),
        ("presets show books/nielsen-3", "books/nielsen-3-30", "sigmoid"),
        ("eval l", "latest", "runs/first"),
        ("compare latest runs/", "runs/first", "runs/first/config.yaml"),
        ("check ", "sigmoid", "runs/first/config.yaml"),
        ("train --dataset m", "mini", "kmnist"),
        ("train --set training.ba", "training.batch_size=", "training="),
        ("sweep smoke -p network.layers.0.", "network.layers.0.activation=", "network="),
        ("train --set optimizer.name=a", "optimizer.name=adam", "optimizer.name=sgd"),
        ("train --set=network.layers.0.activation=", "network.layers.0.activation=relu", "relu"),
        ("train --set optimizer.nesterov=", "optimizer.nesterov=true", "true"),
        ("train --set no.such.key=", "", "adam"),
    ],
)
def test_words_are_completed(
    scratch: Path, copied_run: Path, words: str, expected: str, other: str
) -> None:
    (scratch / "runs").mkdir()
    copied_run.rename(scratch / "runs" / "first")
    *args, incomplete = words.split(" ")
    completion = ShellComplete(main, {}, "nnctl", "_NNCTL_COMPLETE")
    values = [item.value for item in completion.get_completions(args, incomplete)]
    assert other not in values
    assert values == [] if not expected else expected in values


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_for_each_shell(nnctl: Nnctl, shell: str) -> None:
    assert f"{shell}_complete" in nnctl("completion", shell).stdout
    assert "powershell" in nnctl("completion", "powershell", code=2).stderr


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason="needs bash")
def test_bash_offers_files_beside_presets_and_the_values_after_an_equals_sign(
    nnctl: Nnctl, scratch: Path, processes: Processes
) -> None:
    (scratch / "mine.yaml").touch()
    (scratch / "my own").mkdir()
    script = f"""
        nnctl() {{ {" ".join(nnctl_command())} "$@"; }}
        compopt() {{ echo "compopt $*"; }}
        {nnctl("completion", "bash").stdout}
        complete_words() {{
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _nnctl_completion nnctl
            printf '%s|' "${{COMPREPLY[@]}}"
            echo
        }}
        complete_words nnctl train mi
        complete_words nnctl train --set optimizer.name = ada
    """
    done = run_command(processes, "bash", "--norc", "-c", script, cwd=scratch)
    assert done.stdout.splitlines() == ["mixed|mine.yaml|", "adagrad|adam|adamw|"], done.stderr
