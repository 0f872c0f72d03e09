"""What the README shows works as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nnctl.config import load
from nnctl.nn.activations import ACTIVATIONS
from nnctl.nn.initializers import INITIALIZERS
from nnctl.nn.optimizer import OPTIMIZERS
from nnctl.nn.schedules import SCHEDULES
from nnctl.sweep.plan import read_plan
from tests.conftest import CONFIGS, ROOT

README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def beside_configs(scratch: Path) -> Path:
    """A folder as the README's reader stands in it: with the configurations."""
    shutil.copytree(CONFIGS, scratch / "configs")
    return scratch


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.usefixtures("beside_configs", "with_mnist")
def test_its_commands_run_as_printed() -> None:
    """In order, in one shell; one epoch each unless they say otherwise."""
    script = f'nnctl() {{ "{sys.executable}" -m nnctl "$@"; }}\n' + "\n".join(blocks("sh"))
    done = subprocess.run(
        ["sh", "-e", "-c", script],
        env={**os.environ, "NNCTL_TRAIN_EPOCHS": "1", "NNCTL_SWEEP_EPOCHS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    # One epoch is not enough for --fail-under, which the last command shows: it may exit with 5.
    assert done.returncode in (0, 5), done.stderr
    assert "Traceback" not in done.stderr
    assert "most frequent mistakes" in done.stdout


@pytest.mark.usefixtures("beside_configs", "with_mnist")
def test_its_python_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """And prints an accuracy and ten probabilities."""
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})  # our own text
    assert float(capsys.readouterr().out.split()[0]) > 0.9


def test_its_configuration_loads(beside_configs: Path) -> None:
    """Every key that it shows is one."""
    example, sweep = blocks("yaml")
    path = beside_configs / "example.yaml"
    path.write_text(example, encoding="utf-8")
    assert (
        load(path).network.layers[0].units
        == yaml.safe_load(example)["network"]["layers"][0]["units"]
    )
    path = beside_configs / "configs" / "example.yaml"
    path.write_text(sweep, encoding="utf-8")
    assert len(read_plan(path).checked_points()) == 20


def test_its_tables_name_every_entry_and_every_configuration() -> None:
    """Nothing that can be written is left out, and nothing is invented."""
    for table in (ACTIVATIONS, INITIALIZERS, SCHEDULES, OPTIMIZERS):
        assert all(f"`{name}`" in README for name in table)
    for path in CONFIGS.rglob("*.yaml"):
        below = path.relative_to(CONFIGS)
        assert f"`configs/{below}`" in README or (
            f"| `configs/{below.parent}/` |" in README and f"| `{below.name}` |" in README
        )
    for named in re.findall(r"configs/([\w./-]*\w)", README):
        assert (CONFIGS / named).exists(), named


def test_every_command_has_help_with_an_example_and_documented_options() -> None:
    """And the README speaks of it."""
    import click

    from nnctl.cli import main

    for name, command in main.commands.items():
        assert f"nnctl {name}" in README
        assert "Example: nnctl" in str(command.epilog)
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"
