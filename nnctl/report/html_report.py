"""Write the HTML report of runs and sweeps."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnctl.errors import requiring, storage_errors
from nnctl.files import OTHER_OUTPUT, require_replaceable, write_atomically
from nnctl.report.charts import import_matplotlib
from nnctl.report.page import render
from nnctl.report.ranking import rank
from nnctl.report.run_report import RunReport
from nnctl.report.sweep_report import SweepReport
from nnctl.runs.resolve import Notify, Working
from nnctl.runs.run import Run
from nnctl.sweeps.journal import is_sweep

MAX_RUNS = 20
"""Number of runs of a sweep that a report shows: its best ones."""


@dataclass(frozen=True)
class Report:
    """The result of `report`.

    Parameters
    ----------
    file : Path
        The HTML file.
    bytes : int
        Its size.
    reports : list of RunReport
        The reported runs, the best first.
    """

    file: Path
    bytes: int
    reports: list[RunReport]

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-compatible values."""
        return {
            "file": str(self.file),
            "bytes": self.bytes,
            "runs": [
                {
                    "run_dir": str(one.run.directory),
                    "test_accuracy": one.evaluation.accuracy if one.evaluation else None,
                    "lacking": one.evaluation_error or None,
                }
                for one in self.reports
            ],
        }


def report(directories: Sequence[Path], file: Path, *, notify: Notify) -> Report:
    """Write an HTML report of runs; several runs are compared.

    Parameters
    ----------
    directories : sequence of Path
        Directories of runs and sweeps.
    file : Path
        Output file. An existing file is replaced if its name ends with ``.html``; otherwise it is
        an error.
    notify : callable
        Receives the events of a download.

    Raises
    ------
    UsageError
        A directory is neither a run nor a sweep, the file exists and its name does not end with
        ``.html``, or a library is not installed.
    DataError
        A run or sweep is corrupt.
    StorageError
        The file cannot be written.
    """
    with requiring("Jinja", "a report", extra="plot"):
        importlib.import_module("jinja2")
    with requiring("matplotlib", "a report", extra="plot"):
        import_matplotlib()
    with requiring("Pillow", "a report", extra="plot"):
        importlib.import_module("PIL")
    require_replaceable(file, ".html")
    sweeps = [SweepReport.of(path, MAX_RUNS) for path in directories if is_sweep(path)]
    runs = [Run.open(path) for path in directories if not is_sweep(path)]
    runs += [run for sweep in sweeps for run in sweep.runs]
    unique = {run.directory.resolve(): run for run in runs}
    reports = []
    for done, run in enumerate(unique.values()):
        notify(Working("evaluating", done / len(unique)))
        reports.append(RunReport.of(run, notify))
    reports = rank(reports)
    notify(Working("drawing charts"))
    # Names of directories may not be valid Unicode.
    content = render(reports, sweeps).encode(errors="replace")
    with storage_errors(file, OTHER_OUTPUT):
        write_atomically(file, content)
    return Report(file, len(content), reports)
