"""A report that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnctl.report.html_report import report as write_report
from tests.runs.helpers import ignore


@pytest.fixture(scope="session")
def report(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of `trained_run`, with all its charts."""
    file = tmp_path_factory.mktemp("pages") / "report.html"
    return write_report([trained_run], file, notify=ignore).file
