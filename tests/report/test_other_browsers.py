"""The page in Firefox and in WebKit; `test_browser` tests it in Chromium in more detail."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import nnctl as api
from nnctl.report.html_report import report as write_report
from tests.conftest import CONFIGS
from tests.processes import Processes
from tests.report.other_browsers import Tab, drag, firefox, press, webkit
from tests.runs.helpers import ignore
from tests.sweeps.helpers import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

ENTER, RIGHT = "\ue006", "\ue014"  # as WebDriver encodes keys
SEVEN = [(0.3, 0.25), (0.5, 0.25), (0.7, 0.25), (0.57, 0.52), (0.45, 0.8)]

ANSWER = "document.getElementById('answer').textContent"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small run."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    run = api.train(CONFIGS / "smoke.yaml", run_dir=folder)
    return write_report([run.directory], folder / "report.html", notify=ignore).file


@pytest.fixture(params=["firefox", "webkit"])
def tab(
    request: pytest.FixtureRequest, processes: Processes, page_file: Path, tmp_path: Path
) -> Iterator[Tab]:
    """The page in a browser."""
    if request.param == "firefox":
        with firefox(processes, page_file, tmp_path / "profile") as opened:
            yield opened
    else:
        with webkit(processes, page_file) as opened:
            yield opened


def test_the_page_answers_in_other_browsers(tab: Tab, page_file: Path) -> None:
    wait_until(lambda: tab.evaluate(ANSWER) != "")
    wait_until(lambda: tab.evaluate("document.querySelectorAll('.exciting .digit').length") == 6)
    evaluation = api.evaluate(page_file.parent)
    labels, predicted = evaluation.predictions.labels, evaluation.predictions.predicted
    for digit in (4, 7):
        first = int(np.flatnonzero(labels == digit)[0])
        tab.evaluate(f"document.querySelectorAll('#samples button')[{digit}].click()")
        text = f"document.getElementById('source').textContent.includes('true {digit}')"
        wait_until(partial(tab.evaluate, text))
        assert tab.evaluate(ANSWER) == str(predicted[first])
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth") is True


def test_mouse_and_keyboard_work_in_other_browsers(tab: Tab) -> None:
    wait_until(lambda: tab.evaluate(ANSWER) != "")
    drag(tab, "#draw", SEVEN)
    assert tab.evaluate(ANSWER) == "7"
    press(tab, ".units", RIGHT)
    unit = "document.querySelector('.unit h4').textContent"
    before = tab.evaluate(unit)
    press(tab, ".units", RIGHT)
    assert tab.evaluate(unit) != before
    mistake = "#worst-mistakes ~ .digits button"
    press(tab, mistake, ENTER)
    title = tab.evaluate(f"document.querySelector('{mistake}').title")
    text = f"document.getElementById('source').textContent.includes({title[1:]!r})"
    wait_until(partial(tab.evaluate, text))
