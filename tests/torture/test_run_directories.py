"""Crafted directories of runs and sweeps: with any content, or with links and pipes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnctl.analysis.inspection import inspect_run
from nnctl.config.sweeps import SweepConfig
from nnctl.data.dataset import find_cached
from nnctl.errors import NnctlError
from nnctl.runs.run import Run
from nnctl.sweeps.plan import TrialFactory
from nnctl.sweeps.results import compute_p_values, ranked
from nnctl.sweeps.scheduler import Sweep
from nnctl.sweeps.state import SweepState
from nnctl.views.sweep import show_results, show_unfinished
from tests.runs.helpers import ignore
from tests.torture.conftest import Torture
from tests.torture.hostile import (
    KEPT_RUN,
    KEPT_SWEEP,
    PATIENCE,
    REFUSED,
    changed,
    json_values,
    mutated,
    run_command,
    some_of,
)

pytestmark = PATIENCE
LONG = settings(max_examples=settings().max_examples // 2)

KEPT_TEXTS = ("config.yaml", "metrics.jsonl", "summary.json")
ROWS = [json.loads(line) for line in (KEPT_RUN / "metrics.jsonl").read_text("utf-8").splitlines()]
SUMMARY = json.loads((KEPT_RUN / "summary.json").read_text("utf-8"))
DIVERGENCE = {"epoch": 1, "batch": 1, "layer": 2, "what": "outputs", "last_finite_loss": None}
DIVERGED = {**SUMMARY, "status": "diverged", "divergence": DIVERGENCE}
CONFIG = (KEPT_RUN / "config.yaml").read_bytes()
JOURNAL = (KEPT_SWEEP / "journal.jsonl").read_bytes()
LINES = [json.loads(line) for line in JOURNAL.splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose files the tests replace."""
    return Path(shutil.copytree(KEPT_RUN, tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep whose files the tests replace."""
    return Path(shutil.copytree(KEPT_SWEEP, tmp_path_factory.mktemp("sweeps") / "sweep"))


def mend(directory: Path, kept: Path = KEPT_RUN) -> None:
    """Restore a directory."""
    shutil.rmtree(directory)
    shutil.copytree(kept, directory)


def as_lines(values: Any) -> bytes:
    """Return values as lines of JSON; a string is an unchanged line."""
    values = values if isinstance(values, list) else [values]
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return "".join(f"{text}\n" for text in texts).encode("utf-8", "replace")


WHOLE = {name: (KEPT_RUN / name).read_bytes() for name in KEPT_TEXTS}
ANY_TEXTS = st.one_of(
    st.tuples(
        st.just("summary.json"),
        (changed(SUMMARY) | changed(DIVERGED) | json_values).map(lambda value: as_lines([value])),
    ),
    st.tuples(
        st.just("metrics.jsonl"),
        (changed(ROWS) | st.lists(json_values | st.text(max_size=20), max_size=3)).map(as_lines),
    ),
    *(st.tuples(st.just(name), mutated(content)) for name, content in WHOLE.items()),
)


@LONG
@given(file=ANY_TEXTS)
def test_any_content_of_a_run_is_shown_or_rejected(
    torture: Torture, run: Path, file: tuple[str, bytes]
) -> None:
    for name, content in {**WHOLE, file[0]: file[1]}.items():
        (run / name).write_bytes(content)
    torture.tried("any texts of a run, read")
    with contextlib.suppress(NnctlError):
        inspect_run(Run.open(run), None)


def resume_without_training(directory: Path) -> None:
    """Use a sweep as ``sweep --resume`` does before its first trial."""
    with Sweep.resume(directory, TrialFactory(ignore)) as resumed:
        _ = (resumed.state.total, resumed.state.left)


def show(directory: Path) -> None:
    """Use a sweep as ``sweep --show`` and a report do."""
    record = SweepState.read(directory)
    config: SweepConfig = record.plan.sweep
    rows = sorted(record.results.values(), key=lambda row: row.trial)
    settings = ranked(rows, config.ranked_by, config.seeds)
    compared = compute_p_values(settings, config.ranked_by, find_cached) if settings else []
    show_results(rows, settings, compared, config.ranked_by)
    show_unfinished(record)


@LONG
@given(
    content=mutated(JOURNAL)
    | changed(LINES).map(as_lines)
    | st.lists(st.sampled_from(LINES) | json_values, max_size=9).map(as_lines)
)
@pytest.mark.usefixtures("capsys")
def test_any_journal_is_resumed_or_rejected(torture: Torture, sweep: Path, content: bytes) -> None:
    (sweep / "journal.jsonl").write_bytes(content)
    torture.tried("any journal.jsonl, shown and resumed")
    for use in (show, resume_without_training):
        with contextlib.suppress(NnctlError):
            use(sweep)


TEXTS: dict[str, tuple[str, Any]] = {
    "no epochs": ("metrics.jsonl", []),
    "an epoch twice": ("metrics.jsonl", [ROWS[0], ROWS[0]]),
    "huge losses": ("metrics.jsonl", [{**row, "train_loss": 1e99} for row in ROWS]),
    "huge epochs": ("metrics.jsonl", [{**ROWS[0], "epoch": 2**63 - 1}]),
    "a hole": ("metrics.jsonl", [{**ROWS[0], "epoch": 7}]),
    "no layers": ("metrics.jsonl", [{**ROWS[0], "health": []}]),
    "empty layers": ("metrics.jsonl", [{**row, "health": [{}, {}]} for row in ROWS]),
    "partial layers": (
        "metrics.jsonl",
        [{**row, "health": [{"error": 1}, {"error": None}]} for row in ROWS],
    ),
    "no accuracies": ("metrics.jsonl", [{**row, "val_accuracy": None} for row in ROWS]),
    "no losses": ("metrics.jsonl", [{**row, "val_loss": None} for row in ROWS]),
    "deep": ("metrics.jsonl", ["[" * 10**5]),
    "no JSON": ("metrics.jsonl", ["\x00", "\x1b[2J"]),
    "an empty summary": ("summary.json", [{}]),
    "a summary that is a list": ("summary.json", [[SUMMARY]]),
    "a layer too many": (
        "summary.json",
        [{**DIVERGED, "divergence": {**DIVERGENCE, "layer": 9}}],
    ),
    "another dataset": ("summary.json", [{**SUMMARY, "dataset": {"name": "\x1b", "hashes": {}}}]),
    "strange versions": ("summary.json", [{**SUMMARY, "versions": {"seed": [1], "": None}}]),
    "a bare config": ("config.yaml", ["{}"]),
    "a python tag": ("config.yaml", ["loss: !!python/object/apply:os.mkdir [executed]"]),
    "autos": ("config.yaml", [CONFIG.decode().replace("validation: 100", "validation: auto")]),
    "more held out": (
        "config.yaml",
        [CONFIG.decode().replace("validation: 100", "validation: 5000")],
    ),
    "another network": ("config.yaml", [CONFIG.decode().replace("units: 2", "units: 3")]),
    "a larger subset": ("config.yaml", [CONFIG.decode().replace("subset: 200", "subset: 4900")]),
    "huge": ("config.yaml", [CONFIG.decode().replace("units: 2,", "units: 100000,")]),
}
"""Contents of a file of a run, by name."""


def commands(directory: Path) -> list[tuple[object, ...]]:
    """Return every command that reads a run."""
    return [
        ("eval", directory),
        ("eval", directory, "--split", "validation"),
        ("check", directory),
        ("check", directory, "--gradients", "--samples", 2),
        ("export", directory, "--format", "onnx"),
        ("report", directory, directory, "-o", directory.parent / "report.html"),
        ("train", "--resume", directory, "--epochs", 3, "--quiet"),
        ("train", "--resume", directory),
    ]


@pytest.mark.usefixtures("sketched_in_few")
def test_every_command_reads_or_rejects_hostile_files(torture: Torture, run: Path) -> None:
    random = torture.random("texts")
    for name in some_of(torture, [*TEXTS], 3):
        file, values = TEXTS[name]
        for command in random.sample(commands(run), torture.cases(1, full=2)):
            mend(run)
            (run / file).write_bytes(as_lines(values))
            run_command(*command)
            torture.tried("hostile texts of a run, by command")
    assert not Path("executed").exists()
    mend(run)


KINDS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link without end": lambda path: path.symlink_to("/dev/zero"),
    "a link to a full disk": lambda path: path.symlink_to("/dev/full"),
    "a pipe": lambda path: os.mkfifo(path),
}
"""Functions that replace a file, by name."""


posix = pytest.mark.skipif(sys.platform == "win32", reason="has no pipes among its files")


@posix
@pytest.mark.usefixtures("sketched_in_few")
def test_no_command_waits_for_a_pipe_or_a_device(torture: Torture, run: Path) -> None:
    files = ("config.yaml", "metrics.jsonl", "summary.json", "best.npz", "last.npz", ".lock")
    random = torture.random("kinds")
    for file, kind in some_of(torture, [*itertools.product(files, KINDS)], 5):
        for command in random.sample(commands(run), torture.cases(1, full=2)):
            mend(run)
            (run / file).unlink(missing_ok=True)
            KINDS[kind](run / file)
            run_command(*command, codes=[0, 1, *REFUSED])
            torture.tried("pipes, devices and links in a run, by command")
    mend(run)


@posix
@pytest.mark.usefixtures("sketched_in_few")
def test_no_sweep_waits_for_a_pipe_or_a_device(torture: Torture, sweep: Path) -> None:
    files = ("journal.jsonl", "results.jsonl", "results.csv", ".lock", "trial-001/metrics.jsonl")
    random = torture.random("sweeps")
    uses: list[tuple[object, ...]] = [
        ("sweep", "--show", sweep),
        ("report", sweep, "-o", sweep.parent / "report.html"),
        ("sweep", "--resume", sweep, "--workers", 1, "--quiet"),
    ]
    for file, kind in some_of(torture, [*itertools.product(files, KINDS)], 3):
        for command in random.sample(uses, torture.cases(1, full=2)):
            mend(sweep, KEPT_SWEEP)
            (sweep / file).unlink(missing_ok=True)
            KINDS[kind](sweep / file)
            run_command(*command, codes=[0, 1, *REFUSED])
            torture.tried("pipes, devices and links in a sweep, by command")
    mend(sweep, KEPT_SWEEP)
