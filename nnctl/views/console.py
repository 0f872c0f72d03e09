"""The consoles: results go to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal, Self, cast

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from nnctl.text import printable

# These can be read on a white and on a black background, unlike most terminals' green, yellow and
# cyan, which stand in for them on terminals of 16 colors.
GREEN, ORANGE, BLUE = "color(28)", "color(166)", "color(31)"


class View:
    """Base of views that are shown during a ``with`` block."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the display."""

    def stop(self) -> None:
        """End the display, for example remove a progress bar."""


def results(file_width: int | None = None) -> Console:
    """Return the console of stdout; a file or pipe may have its own width in columns."""
    # Only a terminal needs escaped control characters; other programs get the text unchanged.
    console = _console(_Printable if sys.stdout.isatty() else Console)
    if file_width and not console.is_terminal:
        console.width = file_width
    return console


def notices(*, quiet: bool = False) -> Console:
    """Return the console of stderr, which prints nothing if it is quiet."""
    return _console(_Printable, cast("IO[str]", _Stderr()), quiet=quiet)


def _console(kind: type[Console], file: IO[str] | None = None, *, quiet: bool = False) -> Console:
    return kind(
        file=file,
        quiet=quiet,
        markup=False,
        highlight=False,
        emoji=False,
        color_system=_color_system(),
    )


class _Printable(Console):
    """A console that escapes control characters, which file names may contain."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render an object with the control characters in its text escaped."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


class _Stderr:
    """stderr without errors: a training continues after the terminal or pipe is closed."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def _color_system() -> Literal["auto"] | None:
    """Return rich's color system: None, without colors and bold, if NO_COLOR is set."""
    return None if os.environ.get("NO_COLOR") else "auto"


def make_table(*right: str, left: Sequence[str] = ()) -> Table:
    """Return an empty table with columns that are aligned to the right, then to the left."""
    table = Table(box=box.SIMPLE)
    for name in right:
        table.add_column(name, justify="right")
    for name in left:
        table.add_column(name)
    return table


def is_unicode(console: Console) -> bool:
    """Return whether a console can show all characters, such as those of curves."""
    return console.encoding.lower().startswith("utf")


def is_live(console: Console) -> bool:
    """Return whether a console can show progress bars; otherwise views print plain lines."""
    return (
        console.is_terminal
        and console.file.isatty()  # FORCE_COLOR makes a file a terminal for rich
        and not console.quiet
        and not console.is_dumb_terminal
        and _color_system() is not None
        and os.environ.get("CI", "").lower() not in ("1", "true")
    )


def say(console: Console, text: str | Text) -> None:
    """Print a line unchanged: without markup, and without wrapping, so that paths can be copied."""
    console.print(text, soft_wrap=True)


def heading(console: Console, text: str) -> None:
    """Print an empty line and a title."""
    say(console, Text(f"\n{text}", "bold"))


def warn(text: str, console: Console | None = None) -> None:
    """Print a warning, also with ``--quiet``.

    Parameters
    ----------
    text : str
        The warning.
    console : Console, optional
        Console of a progress bar, above which the warning appears; stderr by default.
    """
    shown = console if console and not console.quiet else notices()
    say(shown, Text.assemble(("Warning: ", f"bold {ORANGE}"), text))
