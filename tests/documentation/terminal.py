"""Writes ``docs/pages/images/training.svg``, an animation of a training; see ``make pictures``.

    python -m tests.documentation.terminal

The program runs in a pseudo-terminal of 80 columns, and a terminal emulator interprets its output.
Each line is drawn once, and CSS shows it for the time that it was on the screen, so the animation
is hardly larger than a still image. Viewers without animation show the last frame.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from html import escape
from typing import NamedTuple

import pyte

from tests.processes import ROOT
from tests.terminal import in_terminal

COLUMNS = 80
COMMAND = "nnctl train relu"
PROMPT = "\x1b[32m$\x1b[0m "

WIDTH, HEIGHT = 8.4, 18  # size of a character, in pixels
MARGIN = 14
SECONDS = 8.0  # duration of the training in the animation
STILL = 7.0  # seconds for which the last frame is shown before the animation repeats

BACKGROUND, FOREGROUND = "#16181d", "#d7dae0"
COLORS = {
    "black": "#3b4048",
    "red": "#ef6b73",
    "green": "#8fd07a",
    "brown": "#e5c07b",  # pyte's name for yellow
    "blue": "#6cb6ff",
    "magenta": "#d58fe6",
    "cyan": "#5fc9d8",
    "white": FOREGROUND,
    "default": FOREGROUND,
}
COLORS |= {"008700": COLORS["green"], "d75f00": COLORS["brown"], "0087af": COLORS["cyan"]}
BRAILLE = 0x2800
DOTS = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]
"""Column and row of the dot for each bit of a braille character."""
BARS = {"━": (0.0, 1.0), "╸": (0.0, 0.5), "╺": (0.5, 1.0)}
"""Start and end of each bar character within its cell."""

PIECES = re.compile(r"[━╸╺]+|[\u2800-\u28ff ]*[\u2800-\u28ff]|[^━╸╺\u2800-\u28ff]+")
"""Matches a run of bar characters, of braille characters, or of other text."""


class Style(NamedTuple):
    """Color and weight of a character."""

    color: str
    bold: bool


Line = tuple[tuple[str, Style], ...]
"""Line of the screen: pieces of text, each with its style."""


class VisibleLine(NamedTuple):
    """Line, and the frames that show it: `first` up to, but not including, `last`."""

    row: int
    line: Line
    first: int
    last: int


def frames(printed: str) -> Iterator[list[Line]]:
    """Yield the screen each time before the program redraws its live region."""
    screen = pyte.Screen(COLUMNS, 60)
    stream = pyte.Stream(screen)
    for part in re.split(r"(?=\r\x1b\[2K)", printed):
        stream.feed(part)
        yield [_line(screen, row) for row in range(screen.lines)]


def _line(screen: pyte.Screen, row: int) -> Line:
    cells = [screen.buffer[row][column] for column in range(COLUMNS)]
    while cells and cells[-1].data == " ":
        cells.pop()
    styles = [Style(_color(cell.fg), cell.bold) for cell in cells]
    for i, cell in enumerate(cells):
        if cell.data == " " and i:  # a space has the style of the text before it
            styles[i] = styles[i - 1]
    pairs = zip(cells, styles, strict=True)
    return tuple(
        ("".join(cell.data for cell, _ in group), style)
        for style, group in itertools.groupby(pairs, key=lambda pair: pair[1])
    )


def _color(name: str) -> str:
    return COLORS.get(name) or f"#{name}"


def visible_lines(screens: list[list[Line]]) -> Iterator[VisibleLine]:
    """Yield each line with the frames in which it does not change."""
    for row, lines in enumerate(zip(*screens, strict=True)):
        first = 0
        for line, group in itertools.groupby(lines):
            last = first + len(list(group))
            if line:
                yield VisibleLine(row, line, first, last)
            first = last


def draw(screens: list[list[Line]]) -> str:
    """Return an SVG that shows the screens one after the other."""
    lines = list(visible_lines(screens))
    rows = 1 + max(line.row for line in lines)
    width, height = round(COLUMNS * WIDTH + 2 * MARGIN), rows * HEIGHT + 2 * MARGIN
    period = SECONDS + STILL
    rules, drawn = [], []
    for first, last in sorted({(line.first, line.last) for line in lines}):
        name = f"f{first}-{last}"
        within = [_draw_line(line) for line in lines if (line.first, line.last) == (first, last)]
        drawn.append(f'<g class="{name}">{"".join(within)}</g>')
        begin, end = (100 * SECONDS * at / len(screens) / period for at in (first, last))
        steps = [f"0%{{visibility:{'hidden' if first else 'visible'}}}"]
        steps += [f"{begin:.2f}%{{visibility:visible}}"] if first else []
        if last < len(screens):
            steps.append(f"{end:.2f}%{{visibility:hidden}}")
        if len(steps) > 1:
            at_the_end = "" if last == len(screens) else "visibility:hidden;"
            rules.append(f".{name}{{{at_the_end}animation-name:{name}}}")
            rules.append(f"@keyframes {name}{{{''.join(steps)}}}")
    new_line = "\n"
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" \
height="{height}" role="img" fill="{FOREGROUND}">
<title>{COMMAND}, in a terminal</title>
<style>
text{{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;\
white-space:pre}}
.b{{font-weight:bold}}
path{{fill:none;stroke-width:3px}}
.d{{stroke-width:2.6px;stroke-linecap:round}}
g{{animation:{period:g}s step-end infinite}}
@media (prefers-reduced-motion:reduce){{g{{animation-duration:0s}}}}
{new_line.join(rules)}
</style>
<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>
{new_line.join(drawn)}
</svg>
"""


def _draw_line(line: VisibleLine) -> str:
    """Draw text as text, but bars and braille as shapes, because some fonts do not have them."""
    column, drawn = 0, ""
    top = MARGIN + line.row * HEIGHT
    for text, style in line.line:
        for piece in PIECES.findall(text):
            if piece[0] in BARS:
                drawn += _draw_bar(piece, column, top, style)
            elif BRAILLE <= ord(piece[-1]) <= BRAILLE + 0xFF:
                drawn += _draw_dots(piece, column, top, style)
            else:
                drawn += _draw_text(piece, column, top, style)
            column += len(piece)
    return drawn


def _draw_text(text: str, column: int, top: float, style: Style) -> str:
    column += len(text) - len(text.lstrip())
    text = text.strip()
    if not text:
        return ""
    look = f' fill="{style.color}"' if style.color != FOREGROUND else ""
    look += ' class="b"' if style.bold else ""
    return (
        f'<text x="{MARGIN + column * WIDTH:.1f}" y="{top + 14:g}"{look} '
        f'textLength="{len(text) * WIDTH:.1f}">{escape(text, quote=False)}</text>'
    )


def _draw_bar(bar: str, column: int, top: float, style: Style) -> str:
    begin = column + BARS[bar[0]][0]
    end = column + len(bar) - 1 + BARS[bar[-1]][1]
    return (
        f'<path stroke="{style.color}" '
        f'd="M{MARGIN + begin * WIDTH:.1f} {top + HEIGHT / 2:g}h{(end - begin) * WIDTH:.1f}"/>'
    )


def _draw_dots(letters: str, column: int, top: float, style: Style) -> str:
    path = ""
    for i, letter in enumerate(letters):
        for bit, (x, y) in enumerate(DOTS):
            if ord(letter) >= BRAILLE and ord(letter) - BRAILLE >> bit & 1:
                left = MARGIN + (column + i + (1 + 2 * x) / 4) * WIDTH
                path += f"M{left:.1f} {top + (1 + 2 * y) * HEIGHT / 8:.1f}h0"
    if not path:
        return ""
    return f'<path stroke="{style.color}" class="d" d="{path}"/>'


def draw_training() -> str:
    """Train a run in a terminal, and return the animation as SVG."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        printed = in_terminal(*COMMAND.split()[1:], columns=COLUMNS)
    return draw(list(frames(f"{PROMPT}{COMMAND}\r\n{printed}")))


def main() -> None:
    """Write the animation to ``docs/pages/images/training.svg``."""
    target = ROOT / "docs" / "pages" / "images" / "training.svg"
    target.parent.mkdir(exist_ok=True)
    picture = draw_training()
    target.write_text(picture, encoding="utf-8", newline="\n")
    print(f"{os.path.relpath(target)}: {len(picture.encode()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
