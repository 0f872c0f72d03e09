"""The commands, code, tables and links of the README and of the website are correct."""

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
from nnctl.config import read_file, resolve
from nnctl.nn import activations
from nnctl.nn.activations import ACTIVATIONS
from nnctl.nn.initializers import INITIALIZERS
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.schedules import SCHEDULES
from nnctl.sweeps.plan import read_plan
from tests.conftest import CONFIGS, Nnctl
from tests.documentation import activation_plots
from tests.documentation.generate import PAGES, TABLES, names_of_help, renew
from tests.helpers import load_command, load_commands, run_command, run_python
from tests.processes import ROOT, Processes

SITE = ROOT / "docs" / "pages"
TEXTS = {path: path.read_text("utf-8") for path in PAGES}
KOREAN = {ROOT / "README.ko.md": ROOT / "README.md"} | {
    path: SITE / "tutorial" / path.name
    for path in PAGES
    if path.parent.name == "ko" and path.stem != "problems"  # has no English original
}
"""Pages in Korean, and the pages that they translate."""
ALL = "\n".join(text for path, text in TEXTS.items() if path not in KOREAN)


def blocks(language: str, page: str | None = None) -> list[str]:
    """Return the code blocks in a language, of a page or of all pages."""
    text = TEXTS[SITE / page] if page else ALL
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands_of(page: str) -> list[str]:
    """Return the shell commands of a page, which is read and run on its own."""
    return re.findall(r"```sh\n(.*?)```", TEXTS[ROOT / page], re.DOTALL)


WITH_COMMANDS = [
    name for name in (path.relative_to(ROOT).as_posix() for path in PAGES) if commands_of(name)
]


def run_code(code: str, scope: dict[str, Any] | None = None) -> None:
    """Run the code of a page, which is text of this repository."""
    exec(compile(code, "a page", "exec"), {} if scope is None else scope)


@pytest.fixture
def configs_folder(scratch: Path) -> Path:
    """A working directory that contains ``configs``, as a clone does."""
    shutil.copytree(CONFIGS, scratch / "configs")
    return scratch


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
@pytest.mark.usefixtures("with_mnist")
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run_as_printed(
    page: str, scratch: Path, processes: Processes
) -> None:
    for opener in ("xdg-open", "open"):  # `report --open` opens no window
        (scratch / "bin").mkdir(exist_ok=True)
        (scratch / "bin" / opener).symlink_to("/bin/true")
    script = f'nnctl() {{ "{sys.executable}" -m nnctl "$@"; }}\n' + "\n".join(commands_of(page))
    path = f"{scratch / 'bin'}{os.pathsep}{os.environ['PATH']}"
    few = {"NNCTL_TRAIN_EPOCHS": "1", "NNCTL_SWEEP_EPOCHS": "1", "PATH": path}
    done = run_command(processes, "sh", "-e", "-c", script, env={**os.environ, **few})
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_are_accepted(
    page: str, nnctl: Nnctl, scratch: Path, processes: Processes
) -> None:
    def add_run(name: str) -> None:
        (scratch / "runs" / name).mkdir(parents=True)
        for file in ("config.yaml", "summary.json"):
            (scratch / "runs" / name / file).touch()

    add_run("first")
    functions = """nnctl() { printf '%s\\0' "$@" '' >> calls; echo runs/first; }\njq() { cat; }\n"""
    done = run_command(processes, "sh", "-e", "-c", functions + "\n".join(commands_of(page)))
    assert done.returncode == 0, done.stderr
    calls = (scratch / "calls").read_text("utf-8").split("\0\0")[:-1]
    for name, *arguments in [call.split("\0") for call in calls]:
        if name == "presets":  # its copies are used by later commands
            nnctl(name, *arguments)
        elif name in ("train", "sweep") and not {"--resume", "--show"} & {*arguments}:
            nnctl(name, *arguments, *([] if "--dry-run" in arguments else ["--dry-run"]))
            if "--name" in arguments:
                add_run(arguments[arguments.index("--name") + 1])
        else:
            parent = main.make_context("nnctl", [], resilient_parsing=True)
            load_command(name).make_context(name, arguments, parent)


def test_every_command_is_run_by_a_page() -> None:
    scripts = "\n".join(block for page in WITH_COMMANDS for block in commands_of(page))
    assert {*re.findall(r"nnctl ([a-z-]+)", scripts)} >= COMMANDS.keys()


@pytest.mark.slow
@pytest.mark.usefixtures("configs_folder", "with_mnist")
def test_the_python_code_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("python", "how-to/python.md"):
        run_code(block)
    assert float(capsys.readouterr().out.split()[0]) > 0.9


@pytest.mark.usefixtures("configs_folder", "nnctl")
def test_the_python_code_runs_on_the_mini_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    train, resume, save = blocks("python", "how-to/python.md")
    with pytest.warns(UserWarning, match="ould not download MNIST") as caught:
        run_code(train)
    assert [warning.filename for warning in caught] == ["a page"]
    run_code(resume)
    run_code(save.replace('dataset="mnist"', 'dataset="mini"'))
    assert float(capsys.readouterr().out.split()[0]) > 0.8


def test_the_example_of_a_new_activation_is_correct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "ACTIVATIONS", dict(ACTIVATIONS))
    scope: dict[str, Any] = {}
    run_code(blocks("python", "explanation/add-an-activation.md")[0], scope)
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
    (example,) = blocks("python", "explanation/add-an-activation.md")
    train = """
import nnctl
settings = {"network.layers.0.activation": "mish"}
run = nnctl.train("smoke", epochs=2, settings=settings)
print(nnctl.evaluate(run).accuracy)
"""
    assert float(run_python(processes, example + train).stdout) > 0.85


@pytest.mark.usefixtures("configs_folder")
def test_the_github_workflow_is_valid_and_its_steps_pass(nnctl: Nnctl) -> None:
    workflow = yaml.safe_load(blocks("yaml", "how-to/ci.md")[0])
    steps = workflow["jobs"]["train"]["steps"]
    commands = [step["run"].split() for step in steps if step.get("run", "").startswith("nnctl ")]
    assert commands
    for _, *arguments in commands:
        nnctl(*arguments)
    assert any("upload-artifact" in step.get("uses", "") for step in steps)
    assert Path("runs/smoke/summary.json").is_file()


def test_the_generated_parts_are_current() -> None:
    for text in TEXTS.values():
        assert renew(text) == text, "run: make reference"
    marked = re.findall(r"<!-- begin: ([\w -]+) -->", ALL)
    assert sorted(marked) == sorted(
        ["keys", "words", "presets", "presets all", *TABLES, *names_of_help()]
    )


@pytest.mark.parametrize("page", KOREAN, ids=lambda page: page.name)
def test_a_translation_has_the_commands_and_outputs_of_the_original(page: Path) -> None:
    code = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
    assert code.findall(TEXTS[page]) == code.findall(TEXTS[KOREAN[page]])


def test_the_plots_of_activations_are_current() -> None:
    number = r"-?\d+\.\d"
    stored, drawn = activation_plots.FILE.read_text("utf-8"), activation_plots.draw_all()
    assert re.sub(number, "N", stored) == re.sub(number, "N", drawn), "run: make reference"
    expected, found = (np.array(re.findall(number, text), float) for text in (drawn, stored))
    np.testing.assert_allclose(found, expected, atol=0.11)  # another rounding of the last digit


def test_every_link_between_files_has_a_target() -> None:
    for path, text in TEXTS.items():
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert link.startswith("http") or (path.parent / link).is_file(), f"{path}: {link}"


@pytest.mark.slow
def test_the_website_builds_without_a_warning(processes: Processes, tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs mkdocs-material")
    options = ["--strict", "--quiet", "--config-file", "docs/mkdocs.yml", "--site-dir", tmp_path]
    command = (sys.executable, "-m", "mkdocs", "build", *options)
    done = run_command(
        processes, *command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(
        r'(?:src|href)="https?://(?!github\.com|squidfunk)',
        (tmp_path / "index.html").read_text("utf-8"),
    )
    assert len(list(tmp_path.rglob("*.html"))) > len(list(SITE.rglob("*.md")))


def test_the_images_exist_and_are_small() -> None:
    pictures = list((SITE / "images").iterdir())
    assert all(f"images/{picture.name}" in ALL for picture in pictures)
    for picture in pictures:
        content = picture.read_bytes()
        assert len(content) < 150_000
        assert b"http" not in content.replace(b"http://www.w3.org/", b"")


def test_the_example_configurations_load(configs_folder: Path) -> None:
    (sweep,), (example,) = (blocks("yaml", f"how-to/{name}.md") for name in ("sweeps", "configure"))
    path = configs_folder / "example.yaml"
    path.write_text(example, encoding="utf-8")
    assert (
        resolve(read_file(path)).network.layers[0].units
        == yaml.safe_load(example)["network"]["layers"][0]["units"]
    )
    path = configs_folder / "configs" / "example.yaml"
    path.write_text(sweep, encoding="utf-8")
    assert len(read_plan(path).checked_points()) == 20


def test_the_tables_list_every_choice() -> None:
    for table in (ACTIVATIONS, INITIALIZERS, SCHEDULES, OPTIMIZERS):
        assert all(f"`{name}`" in ALL for name in table)
    for named in re.findall(r"configs/([\w./-]*\w)", ALL):
        assert (CONFIGS / named).exists(), named


def test_every_command_has_help_with_an_example_and_documented_options() -> None:
    for name, command in load_commands().items():
        assert f"nnctl {name}" in ALL
        assert "Example: nnctl" in str(command.epilog)
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name} {parameter.name}"
