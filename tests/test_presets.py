"""Presets are found by name, described by their comments, and copied."""

from __future__ import annotations

import json
import sys
from importlib import metadata, util
from pathlib import Path

import pytest

import nnctl as nnctl_api
from nnctl.config.presets import presets
from nnctl.errors import UsageError
from nnctl.installation import install_command
from tests.conftest import CONFIGS, Nnctl

NAMES = [preset.name for preset in presets()]


def test_every_configuration_is_a_preset_with_a_summary(nnctl: Nnctl) -> None:
    files = list(CONFIGS.rglob("*.yaml"))
    assert sorted(NAMES) == sorted(
        path.relative_to(CONFIGS).with_suffix("").as_posix() for path in files
    )
    listed = json.loads(nnctl("presets", "--json").stdout)["presets"]
    shown = {line.split()[0]: line for line in nnctl("presets").stdout.splitlines() if line.strip()}
    for preset in listed:
        assert 10 < len(preset["summary"]) < 90, preset
        assert preset["summary"] in shown[preset["name"]]
    top = [row for row in listed if "/" not in row["name"] and row["kind"] == "training"]
    assert all(row["test_accuracy"] and row["seconds"] for row in top)


def test_show_prints_the_file(nnctl: Nnctl) -> None:
    text = (CONFIGS / "gates" / "and.yaml").read_text("utf-8")
    assert text == nnctl("presets", "show", "gates/and").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "smok"), "did you mean 'smoke'?"),
        (("train", "mine"), "did you mean 'mine.yml'?"),
        (("train", "nielsen-3-3"), "did you mean 'books/nielsen-3-30'?"),
        (("train", "smoke.yaml"), "did you mean 'smoke'?"),
        (("sweep", "sweep-fats", "--dry-run"), "did you mean 'sweep-fast'?"),
        (("train", "sweep-fast"), "nnctl sweep"),
        (("presets", "show", "sigmod"), "did you mean 'sigmoid'?"),
        (("presets", "copy", "../smoke"), "unknown preset '../smoke'"),
        (("train", "smoke", "--name", "a/b"), "is not a directory's name"),
        (("train", "smoke", "--name", "latest"), "stands for the newest run"),
        (("train", "smoke", "--name", "x", "--run-dir", "y"), "--name cannot be used"),
    ],
    ids=str,
)
def test_a_wrong_name_is_answered_with_what_to_do(
    nnctl: Nnctl, words: tuple[str, ...], message: str
) -> None:
    Path("mine.yml").write_text("loss: quadratic", encoding="utf-8")
    assert message in nnctl(*words, code=2).stderr


def test_a_preset_is_trained_by_name_and_an_existing_file_comes_first(nnctl: Nnctl) -> None:
    done = nnctl("train", "smoke", "--epochs", 1, "--lr", 0.25, "--batch-size", 50, "--name", "a")
    assert done.stdout.splitlines()[-1] == str(Path("runs") / "a")
    config = (Path("runs") / "a" / "config.yaml").read_text("utf-8")
    assert "learning_rate: 0.25" in config
    assert "batch_size: 50" in config
    assert "is not empty" in nnctl("train", "smoke", "--name", "a", code=2).stderr
    Path("smoke").write_text("loss: 3", encoding="utf-8")
    assert "smoke:1:7: loss: expected" in nnctl("train", "smoke", code=2).stderr


def test_check_finds_a_preset_beside_a_folder_of_that_name(nnctl: Nnctl) -> None:
    Path("smoke").mkdir()
    assert "784-64-10" in nnctl("check", "smoke").stdout
    Path("other").mkdir()
    assert "is not a run directory" in nnctl("check", "other", code=2).stderr


def test_a_configuration_is_read_from_standard_input(nnctl: Nnctl) -> None:
    text = (CONFIGS / "smoke.yaml").read_text("utf-8")
    done = nnctl("train", "-", "--epochs", 1, stdin=text)
    assert "best epoch" in done.stdout
    assert "<stdin>:1:7: loss:" in nnctl("check", "-", stdin="loss: 3", code=2).stderr
    assert "read only once" in nnctl("sweep", "-", "--base", "-", code=2).stderr
    sweep = "base: smoke\nparameters: {training.batch_size: [10, 20]}"
    listed = nnctl("sweep", "-", "--dry-run", stdin=sweep).stdout
    assert "batch_size=20" in listed
    lost = nnctl("sweep", "-", "--dry-run", stdin=sweep.replace("smoke", "smok"), code=2)
    assert "did you mean 'smoke'?" in lost.stderr
    assert "not UTF-8" in nnctl("train", "-", stdin=b"loss: \xff", code=2).stderr


def test_a_copied_sweep_works_with_its_base_and_its_schema(nnctl: Nnctl) -> None:
    written = nnctl("presets", "copy", "sweep-fast", "mine/sweep.yaml").stdout.splitlines()
    assert sorted(written) == sorted(str(path) for path in Path("mine").iterdir())
    for line in (Path("mine") / name for name in ("sweep.yaml", "fast.yaml")):
        schema = line.read_text("utf-8").splitlines()[0].partition("$schema=")[2]
        json.loads((Path("mine") / schema).read_text("utf-8"))
    assert "nnctl sweep mine/sweep.yaml" in Path("mine/sweep.yaml").read_text("utf-8")
    listed = nnctl("sweep", "mine/sweep.yaml", "--dry-run").stdout
    assert listed == nnctl("sweep", "sweep-fast", "--dry-run").stdout
    Path("mine/sweep.yaml").unlink()
    again = nnctl("presets", "copy", "sweep-fast", "mine/sweep.yaml", code=2)
    assert "fast.yaml exists and is not overwritten" in again.stderr
    assert not Path("mine/sweep.yaml").exists()


def test_the_hint_to_install_without_pip_uses_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda _: None)
    monkeypatch.setattr(sys, "executable", "/env/bin/python")
    assert install_command("all") == 'uv pip install --python /env/bin/python "nnctl[all]"'


@pytest.mark.parametrize(
    ("prefix", "origin", "expected"),
    [
        ("/home/x/.local/pipx/venvs/nnctl", "{}", 'pipx install --force "nnctl[plot]"'),
        ("/home/x/.local/share/uv/tools/nnctl", "{}", 'uv tool install "nnctl[plot]"'),
        ("/env", "{}", 'here -m pip install "nnctl[plot]"'),
        ("/env", None, 'here -m pip install "nnctl[plot]"'),
        (
            "/env",
            '{"url": "file:///a/clone", "dir_info": {"editable": true}}',
            f'here -m pip install -e "{Path("/a/clone")}[plot]"',
        ),
    ],
)
def test_the_hint_to_install_fits_how_nnctl_was_installed(
    monkeypatch: pytest.MonkeyPatch, prefix: str, origin: str | None, expected: str
) -> None:
    class Distribution:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return origin

    monkeypatch.setattr(sys, "prefix", prefix)
    monkeypatch.setattr(sys, "executable", "here")
    monkeypatch.setattr(metadata, "distribution", lambda _: Distribution())
    assert install_command("plot") == expected


@pytest.mark.usefixtures("scratch")
def test_a_program_trains_a_preset_under_a_name() -> None:
    run = nnctl_api.train("smoke", epochs=1, name="first", lr=0.2, batch_size=100)
    assert run.directory == Path("runs") / "first"
    assert (run.config.optimizer.learning_rate, run.config.training.batch_size) == (0.2, 100)
    with pytest.raises(UsageError, match="is not empty"):
        nnctl_api.train("smoke", name="first")
    with pytest.raises(UsageError, match="cannot be combined"):
        nnctl_api.train("smoke", name="second", run_dir="third")
    with pytest.raises(UsageError, match="is not a directory's name"):
        nnctl_api.train("smoke", name="../first")
    assert [path.name for path in Path("runs").iterdir()] == ["first"]
