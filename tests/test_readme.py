"""The commands, code and tables of the README are correct."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import yaml

import nnctl as api
from nnctl.cli import COMMANDS, main
from nnctl.config import load
from nnctl.nn import activations
from nnctl.nn.activations import ACTIVATIONS
from nnctl.nn.initializers import INITIALIZERS
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.schedules import SCHEDULES
from nnctl.sweeps.plan import read_plan
from tests.conftest import CONFIGS, Nnctl
from tests.helpers import load_command, load_commands, run_command, run_python
from tests.processes import ROOT, Processes
from tests.readme.generate import TABLES, names_of_help, renew

README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def configs_folder(scratch: Path) -> Path:
    """A working directory that contains ``configs``, as the README assumes."""
    shutil.copytree(CONFIGS, scratch / "configs")
    return scratch


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
@pytest.mark.usefixtures("configs_folder", "with_mnist")
def test_the_commands_run_as_printed(processes: Processes) -> None:
    script = f'nnctl() {{ "{sys.executable}" -m nnctl "$@"; }}\n' + "\n".join(blocks("sh"))
    few = {"NNCTL_TRAIN_EPOCHS": "1", "NNCTL_SWEEP_EPOCHS": "1"}
    done = run_command(processes, "sh", "-e", "-c", script, env={**os.environ, **few})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "most frequent mistakes" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
def test_the_commands_are_accepted(
    nnctl: Nnctl, configs_folder: Path, processes: Processes
) -> None:
    functions = """nnctl() { printf '%s\\0' "$@" '' >> calls; echo runs/first; }\njq() { cat; }\n"""
    done = run_command(processes, "sh", "-e", "-c", functions + "\n".join(blocks("sh")))
    assert done.returncode == 0, done.stderr
    calls = (configs_folder / "calls").read_text("utf-8").split("\0\0")[:-1]
    commands = [call.split("\0") for call in calls]
    assert {name for name, *_ in commands} == COMMANDS.keys()
    for name, *arguments in commands:
        if name in ("train", "sweep") and not {"--resume", "--show"} & {*arguments}:
            nnctl(name, *arguments, *([] if "--dry-run" in arguments else ["--dry-run"]))
        else:
            parent = main.make_context("nnctl", [], resilient_parsing=True)
            load_command(name).make_context(name, arguments, parent)


@pytest.mark.slow
@pytest.mark.usefixtures("configs_folder", "with_mnist")
def test_the_python_code_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("python")[:2]:
        exec(compile(block, "README.md", "exec"), {})  # text of this repository
    assert float(capsys.readouterr().out.split()[0]) > 0.9


@pytest.mark.usefixtures("configs_folder", "nnctl")
def test_the_python_code_runs_on_the_mini_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    train, save, *_ = blocks("python")
    with pytest.warns(UserWarning, match="ould not download MNIST"):
        exec(compile(train, "README.md", "exec"), {})  # text of this repository
    exec(compile(save.replace('dataset="mnist"', 'dataset="mini"'), "README.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[0]) > 0.8


def test_the_example_of_a_new_activation_is_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "ACTIVATIONS", dict(ACTIVATIONS))
    scope: dict[str, Any] = {}
    exec(compile(blocks("python")[2], "README.md", "exec"), scope)  # text of this repository
    mish = activations.ACTIVATIONS["mish"]()
    z = np.linspace(-8, 8, 1601)[:, None]
    outputs, slopes = np.empty_like(z), np.empty_like(z)
    mish.forward(z, outputs)
    mish.backward(z, outputs, np.ones_like(z), slopes)
    above, below = np.empty_like(z), np.empty_like(z)
    mish.forward(z + 1e-6, above)
    mish.forward(z - 1e-6, below)
    np.testing.assert_allclose((above - below) / 2e-6, slopes, atol=1e-8)
    assert mish.outputs == f"[{outputs.min():.4f}, ∞)"
    network = api.Network.from_arrays(
        [np.eye(784)[:, :20], np.zeros((20, 10))],
        [np.zeros(20), np.zeros(10)],
        [mish, "softmax"],
    )
    assert network.logits(np.zeros((1, 784), np.float32)).shape == (1, 10)


@pytest.mark.usefixtures("configs_folder")
def test_a_program_trains_with_the_example_of_a_new_activation(processes: Processes) -> None:
    train = """
import nnctl
settings = {"network.layers.0.activation": "mish"}
run = nnctl.train("configs/smoke.yaml", epochs=2, settings=settings)
print(nnctl.evaluate(run).accuracy)
"""
    assert float(run_python(processes, blocks("python")[2] + train).stdout) > 0.85


@pytest.mark.usefixtures("configs_folder")
def test_the_github_workflow_is_valid_and_its_steps_pass(nnctl: Nnctl) -> None:
    workflow = yaml.safe_load(blocks("yaml")[1])
    steps = workflow["jobs"]["train"]["steps"]
    commands = [step["run"].split() for step in steps if step.get("run", "").startswith("nnctl ")]
    assert commands
    for _, *arguments in commands:
        nnctl(*arguments)
    assert any("upload-artifact" in step.get("uses", "") for step in steps)
    assert Path("runs/smoke/summary.json").is_file()


def test_the_generated_parts_are_current() -> None:
    assert renew(README) == README, "run: make readme"
    marked = set(re.findall(r"<!-- begin: ([\w ]+) -->", README))
    assert marked == {"keys", *TABLES, *names_of_help()}


def test_links_within_the_readme_match_its_headings() -> None:
    headings = re.findall(r"^##+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", README)) - anchors == set()


def test_the_images_exist_and_are_small() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert len(pictures) == 2
    for picture in pictures:
        content = (ROOT / picture).read_bytes()
        assert len(content) < 150_000
        assert b"http" not in content.replace(b"http://www.w3.org/", b"")


def test_the_example_configurations_load(configs_folder: Path) -> None:
    sweep, _, example = blocks("yaml")
    path = configs_folder / "example.yaml"
    path.write_text(example, encoding="utf-8")
    assert (
        load(path).network.layers[0].units
        == yaml.safe_load(example)["network"]["layers"][0]["units"]
    )
    path = configs_folder / "configs" / "example.yaml"
    path.write_text(sweep, encoding="utf-8")
    assert len(read_plan(path).checked_points()) == 20


def test_the_tables_list_every_choice_and_every_configuration() -> None:
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
    for name, command in load_commands().items():
        assert f"nnctl {name}" in README
        assert "Example: nnctl" in str(command.epilog)
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"
