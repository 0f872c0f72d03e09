"""Fixtures for all tests: datasets, the command line, working directories, trained runs."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import settings

from tests.processes import ENVIRONMENT, ROOT, Done, Processes, check_done
from tests.processes import nnctl_command as nnctl_command

pytest_plugins = ["tests.budget", "tests.leftovers"]

CONFIGS = ROOT / "configs"

# A busy machine is not a failure, and a test gives the same answer each time it is run.
settings.register_profile("unhurried", deadline=None, derandomize=True)
settings.load_profile("unhurried")

Nnctl = Callable[..., Done]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow tests last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Isolate tests from the developer's settings and downloads."""
    for name in [name for name in os.environ if name.startswith("NNCTL_")]:
        if name != "NNCTL_TEST_MNIST":
            monkeypatch.delenv(name)
    monkeypatch.setenv("NNCTL_DATA_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def mnist_folder() -> Path:
    """The folder with MNIST's four files; the test is skipped if it does not exist."""
    folder = Path(os.environ.get("NNCTL_TEST_MNIST") or ROOT.parent / "shared" / "mnist")
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"needs the full MNIST in {folder}, or in the folder NNCTL_TEST_MNIST names")
    return folder


@pytest.fixture(scope="session")
def mnist_cache(mnist_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that contains MNIST, as after a download."""
    from nnctl.data.download import import_files
    from nnctl.data.registry import MNIST

    cache = tmp_path_factory.mktemp("cache")
    import_files(cache / "mnist", mnist_folder, MNIST)
    return cache


@pytest.fixture
def with_mnist(mnist_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make MNIST available as if it were already downloaded."""
    monkeypatch.setenv("NNCTL_DATA_DIR", str(mnist_cache))
    return mnist_cache


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory of the test."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def mini_folder(tmp_path: Path) -> Path:
    """A folder with four IDX files: a copy of the bundled mini dataset."""
    from nnctl.data.dataset import MINI_DIRECTORY

    folder = tmp_path / "digits"
    folder.mkdir()
    for source in MINI_DIRECTORY.glob("*.gz"):
        (folder / source.name).write_bytes(source.read_bytes())
    return folder


@pytest.fixture
def nnctl(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Nnctl:  # noqa: ARG001
    """Function that runs a command in this process: ``nnctl("train", config, code=0)``.

    Tests of pipes, signals, terminals, encodings and imports need real processes: see `processes`.
    """
    from nnctl.cli import main

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)

    def run(
        *arguments: object,
        code: int = 0,
        env: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
    ) -> Done:
        result = CliRunner().invoke(main, [*map(str, arguments)], input=stdin, env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        done = Done("nnctl", result.exit_code, result.stdout, result.stderr)
        return check_done(arguments, done, code)

    return run


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Starts real processes, which are killed at the end of the test."""
    with Processes() as started:
        yield started


@pytest.fixture
def nnctl_process(scratch: Path, processes: Processes) -> Nnctl:  # noqa: ARG001
    """Function that runs a command like `nnctl`, but in a new process."""
    return processes.run_nnctl


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run: two epochs of configs/smoke.yaml, test accuracy 91 %.

    Tests that change it use a copy: `copied_run`.
    """
    import nnctl as api

    folder = tmp_path_factory.mktemp("trained") / "run"
    return api.train(CONFIGS / "smoke.yaml", epochs=2, run_dir=folder).directory


@pytest.fixture
def copied_run(trained_run: Path, scratch: Path) -> Path:
    """A copy of `trained_run`, in the folder ``run`` of the working directory."""
    return Path(shutil.copytree(trained_run, scratch / "run"))


@pytest.fixture
def sketched_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make reports ten times as fast: charts are plotted but not drawn, with one corruption."""
    from nnctl.analysis.evaluation import Corrupted
    from nnctl.report import charts, sections

    charts.import_matplotlib()  # must be imported with its default settings
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()

    def plot_only(plot: Callable[[Any], None]) -> str:
        axes.clear()
        plot(axes)
        return "<svg></svg>"

    corruptions = [Corrupted("noise", "", [1.0], [0.5])]
    monkeypatch.setattr(charts, "_draw", plot_only)
    monkeypatch.setattr(sections, "measure_corrupted", lambda *_: corruptions)


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named so in the base class
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Function that serves a folder over HTTP on localhost: ``url = serve(folder)``."""
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(_QuietHandler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
