"""Tests of the built wheel and its metadata."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import zipfile
from pathlib import Path

import pytest

import nnctl
from tests.conftest import CONFIGS
from tests.helpers import run_command
from tests.processes import ROOT, Processes


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the source tree."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


def _run(*command: object, cwd: Path | None = None) -> str:
    with Processes() as processes:
        done = run_command(processes, *command, cwd=cwd)
    if "No matching distribution" in done.stderr or "Could not find a version" in done.stderr:
        pytest.skip("needs a package index to install the dependencies from")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_wheel_contains_the_digits_the_schemas_and_the_licenses(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        schema = archive.read("nnctl/configs/schema.json")
    assert sum(name.startswith("nnctl/data/mini/") and name.endswith(".gz") for name in names) == 4
    assert "nnctl/data/mini/LICENSE.md" in names
    assert "nnctl/configs/books/nielsen-3-30.yaml" in names
    assert "nnctl/py.typed" in names
    for part in ("best.npz", "config.yaml", "summary.json"):
        assert f"nnctl/analysis/photographs/{part}" in names
    for part in (
        "page.html",
        "page.css",
        "page.js",
        "units.js",
        "steps.js",
        "network.js",
        "handwriting.js",
    ):
        assert f"nnctl/report/{part}" in names
    assert (CONFIGS / "schema.json").read_bytes() == schema
    assert not any(name.startswith("tests") for name in names)


@pytest.mark.slow
def test_the_wheel_trains_in_a_fresh_environment_outside_the_source_tree(
    wheel: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    _run(sys.executable, "-m", "venv", environment)
    scripts = environment / ("Scripts" if sys.platform == "win32" else "bin")
    _run(scripts / "python", "-m", "pip", "install", "--quiet", wheel)
    listed = _run(scripts / "nnctl", "presets", "--json", cwd=tmp_path)
    assert len(json.loads(listed)["presets"]) == len(list(CONFIGS.rglob("*.yaml")))
    _run(scripts / "nnctl", "presets", "copy", "sweep-fast", cwd=tmp_path)
    _run(scripts / "nnctl", "sweep", "sweep-fast.yaml", "--dry-run", cwd=tmp_path)
    _run(scripts / "nnctl", "train", "smoke", "--fail-under", "0.9", cwd=tmp_path)
    evaluated = _run(scripts / "nnctl", "eval", "latest", "--json", cwd=tmp_path)
    assert '"n": 1000' in evaluated
    where = _run(scripts / "python", "-c", "import nnctl; print(nnctl.__file__)", cwd=tmp_path)
    assert str(environment) in where


def test_all_dependencies_have_a_minimum_version(tmp_path: Path) -> None:
    command = (sys.executable, "-I", ROOT / "tests" / "oldest.py")
    constraints = _run(*command, cwd=tmp_path).split()
    assert "numpy==2.0" in constraints
    assert len(constraints) == len({constraint.split("==")[0] for constraint in constraints})
    declared = importlib.metadata.requires("nnctl") or []
    needed = {re.split(r"\W*[>;]", line)[0] for line in declared if "extra" not in line}
    assert needed < {constraint.split("==")[0] for constraint in constraints}


def test_the_version_is_printed() -> None:
    assert nnctl.__version__ in _run(sys.executable, "-m", "nnctl", "--version")
