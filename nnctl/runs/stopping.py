"""Ctrl-C and its kin: the first asks a training to stop and save, the second stops at once.

They may come at any moment. Where nothing has begun yet, or Python or a library would swallow what
is raised, they end the process; all that is written is written so that this may happen.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from contextlib import contextmanager

TYPE_CHECKING = False  # that of typing, which takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import Any, NoReturn

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last two are of POSIX and of Windows
_CODE = 130


class Stop:
    """Whether somebody asked for the end; calling it tells."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        """Tell."""
        return self.requested


def end_at_once(*_: object) -> NoReturn:
    """End this process, as a handler of signals, with a sentence and nothing more."""
    with contextlib.suppress(OSError):
        os.write(2, b"Error: interrupted\n")
    os._exit(_CODE)


def interrupt(_: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as a handler of signals, where it is sure to be heard.

    A module that is interrupted while it is imported may take it for something else.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            end_at_once()
        frame = frame.f_back
    raise KeyboardInterrupt


def hear(handler: Any) -> dict[int, Any]:
    """Let signals that ask for the end call a handler; return the handlers before.

    What is ignored stays so: nohup ignores SIGHUP. Outside the main thread, where Python allows no
    signal handlers, all keep their meaning.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    kept = (signal.SIG_IGN, None)  # None is not Python's
    heard = [number for number in numbers if signal.getsignal(number) not in kept]
    return {number: signal.signal(number, handler) for number in heard}


def ignore_signals() -> None:
    """Let nothing more disturb the end of a process."""
    hear(signal.SIG_IGN)


@contextmanager
def hearing(handler: Any) -> Iterator[None]:
    """Let signals call a handler for a while; see `hear`."""
    before = hear(handler)
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextmanager
def stop_on_signals(again: Any = signal.default_int_handler) -> Iterator[Stop]:
    """Let signals set a `Stop` the first time, and call a handler again; see `hear`.

    The usual one raises KeyboardInterrupt: it is no library's to end a process.
    """
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            again(number, frame)
        stop.requested = True

    with hearing(ask):
        yield stop


def end_on_what_nobody_catches() -> None:
    """Let an interrupt end the process where Python would only print that it ignores it."""

    def instead_of(show: Callable[..., object]) -> Callable[..., None]:
        def hook(*what: Any) -> None:
            kind = what[0] if isinstance(what[0], type) else what[0].exc_type
            if issubclass(kind, KeyboardInterrupt):
                end_at_once()
            show(*what)

        return hook

    sys.excepthook = instead_of(sys.excepthook)
    sys.unraisablehook = instead_of(sys.unraisablehook)
