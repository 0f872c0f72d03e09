"""Helpers to find Chromium and to draw on the canvas of a page."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from playwright.sync_api import Page

Strokes = Sequence[Sequence[tuple[float, float]]]
"""Lines of points (x, y) from 0 to 1."""

QUIET = [  # root cannot use the sandbox; disable background requests
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str | None:
    """Return the path of Chromium, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def draw(page: Page, strokes: Strokes, size: float = 1.0) -> None:
    """Draw strokes with the mouse, scaled from the top left corner; size 1 fills the canvas."""
    canvas = page.locator("#draw")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    for stroke in strokes:
        points = [
            (box["x"] + size * x * box["width"], box["y"] + size * y * box["height"])
            for x, y in stroke
        ]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=5)
        page.mouse.up()
