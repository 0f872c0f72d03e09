"""Packages import only what the page on architecture allows."""

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

ALLOWED: dict[str, set[str]] = {
    "text": set(),
    "installation": {"text"},
    "errors": {"text", "installation"},
    "files": {"errors"},
    "signals": set(),
    "system": set(),
    "nn": {"errors"},
    "config": {"text", "errors", "files", "nn"},
    "data": {"text", "errors", "files", "nn"},
    "build": {"system", "nn", "config"},
    "diagnosis": {"text", "nn", "config", "data", "build"},
    "runs": {
        "text",
        "errors",
        "files",
        "signals",
        "system",
        "nn",
        "config",
        "data",
        "build",
        "diagnosis",
    },
    "analysis": {"text", "errors", "nn", "config", "data", "build", "diagnosis", "runs"},
    "sweeps": {"text", "errors", "files", "system", "nn", "config", "data", "runs", "analysis"},
    "export": {"errors", "files", "nn", "runs", "analysis"},
    "report": {
        "text",
        "errors",
        "files",
        "nn",
        "config",
        "data",
        "diagnosis",
        "runs",
        "analysis",
        "sweeps",
    },
    "views": {"text", "nn", "config", "data", "diagnosis", "runs", "analysis", "sweeps"},
    "cli": {
        "text",
        "errors",
        "files",
        "signals",
        "system",
        "config",
        "data",
        "runs",
        "analysis",
        "sweeps",
        "export",
        "report",
        "views",
    },
    "api": {
        "errors",
        "files",
        "signals",
        "nn",
        "config",
        "runs",
        "analysis",
        "sweeps",
        "views",
    },
}
"""For each package or module of nnctl, the set of packages that it may import."""

OWNERS = {
    "click": {"cli"},
    "rich": {"views"},
    "yaml": {"config"},
    "pydantic": {"config", "runs", "sweeps"},
    "pooch": {"data"},
    "PIL": {"data", "report"},
    "pillow_heif": {"data"},
    "scipy": {"data"},
    "requests": {"data"},
    "platformdirs": {"data"},
    "filelock": {"runs"},
    "psutil": {"system"},
    "threadpoolctl": {"system"},
    "optuna": {"sweeps"},
    "distributed": {"sweeps"},
    "onnx": {"export"},
    "jinja2": {"report"},
    "matplotlib": {"report"},
    "safetensors": {"export"},
}
"""For each library, the packages that may import it; any package may import NumPy."""


def modules() -> Iterator[tuple[str, Path]]:
    """Yield every module with its package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if package not in ("__init__", "__main__"):
            yield package, path


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of all imports in a module, including those in functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "nnctl":
                yield from (f"nnctl.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def test_packages_import_only_the_packages_below_them() -> None:
    for package, path in modules():
        for name in imported(path):
            owner, _, inner = name.partition(".")
            if owner == "nnctl" and inner and not inner.startswith("__"):
                other = inner.split(".")[0]
                assert other == package or other in ALLOWED[package], f"{path} imports {name}"


def test_each_library_is_imported_only_by_its_owners() -> None:
    standard = sys.stdlib_module_names | {"nnctl", "numpy", "pydantic_core", "__future__"}
    for package, path in modules():
        if path.name == "__main__.py":
            continue
        for name in {name.split(".")[0] for name in imported(path)} - standard:
            assert package in OWNERS.get(name, set()), f"{path} imports {name}"


@pytest.mark.parametrize(
    ("statement", "unneeded"),
    [
        ("import nnctl", "numpy click rich yaml pydantic pooch requests"),
        ("import nnctl.nn.loop", "click rich yaml pydantic pooch requests"),
        ("import nnctl.cli", "numpy rich yaml pydantic pooch requests"),
        ("import nnctl.runs.training_run", "click rich pooch requests psutil"),
        ("import nnctl.analysis.prediction", "click rich pooch requests PIL scipy"),
        ("import nnctl.api", "click rich pooch requests psutil"),
        (
            "import contextlib, nnctl.cli\n"
            "with contextlib.suppress(SystemExit): nnctl.cli.main(['--help'])",
            "numpy rich yaml pydantic pooch",
        ),
    ],
)
def test_an_import_does_not_load_unneeded_libraries(
    processes: Processes, statement: str, unneeded: str
) -> None:
    code = "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    done = run_python(processes, f"import sys\n{statement}\n{code}")
    assert set() == set(unneeded.split()) & set(done.stderr.split())


def test_the_package_lists_its_public_names_before_they_are_imported(
    processes: Processes,
) -> None:
    listed = run_python(processes, "import nnctl; print(*dir(nnctl))").stdout.split()
    assert set(nnctl.__all__) <= set(listed)


def test_the_page_on_architecture_lists_every_package() -> None:
    section = (ROOT / "docs/pages/explanation/architecture.md").read_text("utf-8")
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `nnctl/")]
    documented = {
        row[1].strip(" `").removeprefix("nnctl/").rstrip("/").removesuffix(".py"): row
        for row in rows
    }
    assert ALLOWED.keys() == documented.keys()
    for package, row in documented.items():
        below = {name.strip(" `") for name in row[3].split(",")} - {"nothing"}
        assert ALLOWED[package] == below, package
