"""Where things are shown: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import IO, Any, Literal, Self, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from nnctl.errors import printable

_SIZE = re.compile("[1-9][0-9]{0,3}")  # lines or columns that a window may have


class View:
    """Something that is shown while a ``with`` block lasts."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to show."""

    def stop(self) -> None:
        """Leave the screen as it should stay."""


def results() -> Console:
    """Return the console of stdout."""
    return _console(_Printable if sys.stdout.isatty() else Console)  # a program reads what is there


def notices() -> Console:
    """Return the console of stderr."""
    file = cast("IO[str]", _Stderr())
    return _console(_Printable, file)


def _console(kind: type[Console], file: IO[str] | None = None) -> Console:
    """Return a console of a size that a window may have, whatever the environment says of it."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("COLUMNS", "LINES") or _SIZE.fullmatch(value)
    }
    return kind(
        file=file,
        markup=False,
        highlight=False,
        emoji=False,
        color_system=_colours(),
        _environ=environment,
    )


class _Printable(Console):
    """A console that spells out control characters: names may hold some that a terminal obeys."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Render something, without the control characters in its text."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


class _Stderr:
    """stderr, but nothing is lost with it: a training goes on when nobody watches any more."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def _colours() -> Literal["auto"] | None:
    """Return None, which is neither colour nor bold, for those who set NO_COLOR."""
    return None if os.environ.get("NO_COLOR") else "auto"


def is_live(console: Console) -> bool:
    """Tell whether something that moves can be shown; else there are plain lines."""
    return (
        console.is_terminal
        and not console.is_dumb_terminal
        and _colours() is not None
        and os.environ.get("CI", "").lower() not in ("1", "true")
    )


def say(console: Console, text: str | Text) -> None:
    """Print a line as it is: no markup, no wrapping, so that paths can be copied."""
    console.print(text, soft_wrap=True)


def warn(text: str, console: Console | None = None) -> None:
    """Print a warning, which no ``--quiet`` silences; above what moves on a console, if it does."""
    say(console or notices(), Text.assemble(("Warning: ", "bold yellow"), text))
