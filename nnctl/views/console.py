"""Where things are shown: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import IO, Any, Literal, Self, cast

from rich.console import Console
from rich.text import Text


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
    return Console(highlight=False, emoji=False, color_system=_colours())


def notices() -> Console:
    """Return the console of stderr."""
    file = cast("IO[str]", _Stderr())
    return Console(file=file, highlight=False, emoji=False, color_system=_colours())


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
    console.print(text, markup=False, soft_wrap=True)


def warn(text: str, console: Console | None = None) -> None:
    """Print a warning, which no ``--quiet`` silences; above what moves on a console, if it does."""
    say(console or notices(), Text.assemble(("Warning: ", "bold yellow"), text))
