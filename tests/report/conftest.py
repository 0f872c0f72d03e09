"""A browser, and pages to look at in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, sync_playwright

import nnctl as face
from nnctl.report.report import report as write_report
from tests.conftest import CONFIGS
from tests.report.browsers import QUIET, find_chromium
from tests.runs.helpers import ignore

Open = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; the tests are skipped without it."""
    path = find_chromium()
    if path is None:
        pytest.skip("needs Chromium: on Debian, apt-get install chromium")
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=path, args=QUIET)
        except Error as error:
            pytest.skip(f"{path} does not start: {error}")
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a page as a user does, from the disk; at the end of the test it has told no error."""
    told: list[str] = []
    contexts = []

    def visit(file: Path, *, width: int = 1200, dark: bool = False, touch: bool = False) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            offline=True,
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: _note_error(message, told))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: told.append(dialog.message))
        page.on("request", lambda request: _note_request(request.url, told))
        page.goto(file.resolve().as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert told == []


def _note_error(message: ConsoleMessage, told: list[str]) -> None:
    if message.type == "error":
        told.append(message.text)


def _note_request(url: str, told: list[str]) -> None:
    if not url.startswith(("data:", "file:")):
        told.append(url)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits that ship."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    return face.train(CONFIGS / "smoke.yaml", run_dir=folder).directory


@pytest.fixture(scope="session")
def report(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of that run."""
    file = tmp_path_factory.mktemp("pages") / "report.html"
    return write_report([trained], file, notify=ignore).file
