"""Writes ``report.png`` for the documentation, a screenshot of a report; see ``make pictures``.

    python -m tests.documentation.page

Requires Chromium. Draws a seven with the mouse.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import nnctl
from nnctl.report.html_report import report
from tests.conftest import CONFIGS
from tests.processes import ROOT
from tests.report.browsers import QUIET, draw, find_chromium
from tests.report.test_browser import SEVEN
from tests.runs.helpers import ignore

WIDTH, HEIGHT = 1100, 890
COLORS = 128  # enough for text, curves, gray digits and colored weights


def draw_page() -> Image.Image:
    """Train a run, write its report, draw a digit on it, and return a screenshot."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        run = nnctl.train(CONFIGS / "relu.yaml", run_dir=Path(folder) / "relu")
        written = report([run.directory], Path(folder) / "report.html", notify=ignore)
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=QUIET)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(written.file.as_uri())
        draw(page, SEVEN)
        page.evaluate("scrollTo(0, 0)")
        screenshot = page.screenshot()
        browser.close()
    return Image.open(io.BytesIO(screenshot)).convert("RGB")


def main() -> None:
    """Write the screenshot to ``docs/pages/images/report.png``."""
    target = ROOT / "docs" / "pages" / "images" / "report.png"
    target.parent.mkdir(exist_ok=True)
    # The default method would turn orange, which few pixels have, into gray.
    picture = draw_page().quantize(COLORS, Image.Quantize.MAXCOVERAGE)
    picture.save(target, optimize=True)
    print(f"{os.path.relpath(target)}: {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
