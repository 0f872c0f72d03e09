"""nnctl runs no Python files from the current directory unless the user enables them."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from pathlib import Path

import pytest

import nnctl as package
from nnctl.sweeps.plan import TrialFactory, read_plan
from nnctl.sweeps.scheduler import Sweep
from tests.processes import ENVIRONMENT, ROOT, Processes, check_done, end_of
from tests.runs.helpers import ignore

INSTALLED = {"click", "distributed", "nnctl", "numpy", "psutil", "pydantic", "rich", "yaml"}
NAMES = {*sys.stdlib_module_names, *INSTALLED, "sitecustomize", "usercustomize"}


def plant(folder: Path, names: set[str]) -> Path:
    """Write a module of each name; return the path of a file that each creates when it runs."""
    log = folder.parent / "modules-that-ran"
    for name in names:
        (folder / f"{name}.py").write_text(
            f"with open({str(log)!r}, 'a') as log: log.write({name!r} + chr(10))\n"
            "raise ImportError('not the real one')\n",
            "utf-8",
        )
    return log


def paths(*folders: Path) -> dict[str, str]:
    """Return an environment in which Python finds modules in these folders, then nnctl."""
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(map(str, [*folders, ROOT]))}


def test_a_sweep_resumed_from_its_own_directory_runs_no_file_there(
    scratch: Path, processes: Processes
) -> None:
    plan = read_plan(ROOT / "configs" / "smoke.yaml", ("training.epochs=1",))
    home = scratch / "sweep"
    home.mkdir()
    with Sweep.create(home, plan, plan.checked_points(), TrialFactory(ignore)):
        pass
    modules = plant(home, NAMES)
    # The command `nnctl` is a script in another directory.
    script = scratch / "bin" / "nnctl.py"
    script.parent.mkdir()
    script.write_text(
        "from nnctl.__main__ import run\nif __name__ == '__main__':\n    run()\n", "utf-8"
    )
    script = script.rename(script.with_name("nnctl-script.py"))
    # Modules on the user's PYTHONPATH do run, also in the workers.
    user = scratch / "user"
    user.mkdir()
    (user / "sitecustomize.py").write_text(
        "import os\n"
        f"with open({str(user / 'pids')!r}, 'a') as pids: print(os.getpid(), file=pids)\n",
        "utf-8",
    )
    words = ["sweep", "--resume", ".", "--workers", "1", "--quiet"]
    process = processes.start(
        [sys.executable, str(script), *words],
        cwd=home, env=paths(user), stdout=-1, stderr=-1, encoding="utf-8",
    )  # fmt: skip
    check_done(tuple(words), end_of(process), 0)
    assert not modules.exists(), modules.read_text("utf-8")
    pids = set((user / "pids").read_text("utf-8").split())
    log = (home / "trial-001" / "log.txt").read_text("utf-8")
    worker = log.partition("started by process ")[2].split()[0]
    assert {str(process.pid), worker} <= pids


def test_python_m_nnctl_imports_no_library_from_the_current_directory(
    scratch: Path, processes: Processes
) -> None:
    modules = plant(scratch, INSTALLED - {"nnctl"})
    words = [sys.executable, "-m", "nnctl", "check", str(ROOT / "configs" / "smoke.yaml")]
    process = processes.start(words, env=paths(), stdout=-1, stderr=-1, encoding="utf-8")
    check_done(tuple(words), end_of(process), 0)
    assert not modules.exists(), modules.read_text("utf-8")


def test_python_m_nnctl_imports_from_the_current_directory_if_it_is_on_pythonpath(
    scratch: Path, processes: Processes
) -> None:
    modules = plant(scratch, {"click"})
    words = [sys.executable, "-m", "nnctl", "--version"]
    process = processes.start(words, env=paths(scratch), stdout=-1, stderr=-1, encoding="utf-8")
    assert "not the real one" in end_of(process).stderr
    assert modules.read_text("utf-8") == "click\n"


@pytest.mark.skipif(sys.platform == "win32", reason="a directory in use cannot be removed there")
def test_python_m_nnctl_works_in_a_directory_that_was_removed(
    scratch: Path, processes: Processes
) -> None:
    gone = scratch / "gone"
    gone.mkdir()
    here = f"import os, sys; os.chdir({str(gone)!r}); os.rmdir(os.getcwd()); "
    start = f"os.execv(sys.executable, [sys.executable, {'-m'!r}, 'nnctl', '--version'])"
    words = [sys.executable, "-c", here + start]
    process = processes.start(words, env=paths(), stdout=-1, stderr=-1, encoding="utf-8")
    assert check_done(tuple(words), end_of(process), 0).stdout.startswith("nnctl")


def test_a_clone_runs_from_its_folder_without_installation(
    tmp_path: Path, processes: Processes
) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(
        Path(package.__file__).parent, clone / "nnctl", ignore=shutil.ignore_patterns("mini")
    )
    words = [sys.executable, "-m", "nnctl", "--version"]
    env = {**os.environ, **ENVIRONMENT}
    process = processes.start(words, cwd=clone, env=env, stdout=-1, stderr=-1, encoding="utf-8")
    assert check_done(tuple(words), end_of(process), 0).stdout.startswith("nnctl")


def test_only_the_sweep_starts_processes() -> None:
    folder = Path(package.__file__).parent
    starters = {"asyncio.subprocess", "multiprocessing", "pty", "runpy", "subprocess"}
    imports = {}
    for path in folder.rglob("*.py"):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {str(node.module)} | {alias.name for alias in node.names}
        names = {name for name in names if name.split(".")[0] in starters}
        names |= {"ProcessPoolExecutor"} & set(path.read_text("utf-8").split())
        if names:
            imports[path.relative_to(folder).as_posix()] = names
    assert imports.pop("text.py") == {"subprocess"}  # only to quote arguments
    assert set(imports) == {"sweeps/pool.py", "sweeps/process.py"}
