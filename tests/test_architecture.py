"""The arrows of the README's architecture: imports go one way."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nnctl
from tests.helpers import run_python
from tests.processes import ROOT, Processes

PACKAGE = Path(nnctl.__file__).parent

ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "nn": {"errors"},
    "config": {"errors", "nn"},
    "data": {"errors", "files"},
    "runs": {"errors", "files", "nn", "config", "data"},
    "sweep": {"errors", "files", "config", "data", "runs"},
    "export": {"errors", "files", "nn", "config", "runs"},
    "report": {"errors", "files", "nn", "config", "data", "runs", "sweep"},
    "views": {"errors", "nn", "data", "runs", "sweep"},
    "cli": {"errors", "files", "config", "data", "runs", "sweep", "views", "export", "report"},
    "api": {"errors", "nn", "config", "runs"},
}
"""For every room, the rooms that it may import."""

OWNERS = {
    "click": {"cli"},
    "rich": {"views"},
    "yaml": {"config"},
    "pydantic": {"config"},
    "pooch": {"data"},
    "PIL": {"data", "report"},
    "requests": {"data"},
    "platformdirs": {"data"},
    "filelock": {"runs"},
    "psutil": {"runs"},
    "threadpoolctl": {"runs"},
    "optuna": {"sweep"},
    "distributed": {"sweep"},
    "onnx": {"export"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "safetensors": {"export"},
}
"""For every library, the rooms that may import it; NumPy is for all."""


def modules() -> Iterator[tuple[str, Path]]:
    """Yield every module with its room."""
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room not in ("__init__", "__main__"):
            yield room, path


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of all that a module imports, at its top or within."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "nnctl":
                yield from (f"nnctl.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def test_rooms_import_only_the_rooms_below_them() -> None:
    for room, path in modules():
        for name in imported(path):
            owner, _, inner = name.partition(".")
            if owner == "nnctl" and inner and not inner.startswith("__"):
                other = inner.split(".")[0]
                assert other == room or other in ROOMS[room], f"{path} imports {name}"


def test_every_library_is_imported_only_by_its_owner() -> None:
    standard = sys.stdlib_module_names | {"nnctl", "numpy", "pydantic_core", "__future__"}
    for room, path in modules():
        if path.name == "__main__.py":
            continue
        for name in {name.split(".")[0] for name in imported(path)} - standard:
            assert room in OWNERS.get(name, set()), f"{path} imports {name}"


@pytest.mark.parametrize(
    ("statement", "unneeded"),
    [
        ("import nnctl", "numpy click rich yaml pydantic pooch requests"),
        ("import nnctl.nn.training", "click rich yaml pydantic pooch requests"),
        ("import nnctl.cli", "numpy rich yaml pydantic pooch requests"),
        ("import nnctl.runs.training", "click rich pooch requests psutil"),
        ("import nnctl.runs.prediction", "click rich pooch requests PIL"),
        ("import nnctl.api", "click rich pooch requests psutil"),
        (
            "import contextlib, nnctl.cli\n"
            "with contextlib.suppress(SystemExit): nnctl.cli.main(['--help'])",
            "numpy rich yaml pydantic pooch",
        ),
    ],
)
def test_an_import_loads_no_more_than_it_needs(
    processes: Processes, statement: str, unneeded: str
) -> None:
    code = "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = run_python(processes, f"import sys\n{statement}\n{code}")
    assert set() == set(unneeded.split()) & set(done.stderr.split())


def test_the_readme_s_architecture_names_every_room() -> None:
    section = (ROOT / "README.md").read_text("utf-8").split("## Architecture")[1].split("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `nnctl/")]
    documented = {
        row[1].strip(" `").removeprefix("nnctl/").rstrip("/").removesuffix(".py"): row
        for row in rows
    }
    assert ROOMS.keys() == documented.keys()
    for room, row in documented.items():
        below = {name.strip(" `") for name in row[3].split(",")} - {"nothing"}
        assert ROOMS[room] == below, room
