"""Handles Ctrl-C and other signals: the first one requests a stop, the second interrupts.

Outside a training, a signal interrupts a command at once. This is safe: files are always written
so that a process may end at any time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # SIGHUP: POSIX only, SIGBREAK: Windows only
_EXIT_CODE = 130


def exit_immediately(*_: object) -> NoReturn:
    """Exit immediately with a short message; a signal handler."""
    with contextlib.suppress(OSError):
        os.write(2, b"Interrupted\n")
    os._exit(_EXIT_CODE)


def install_handlers(handler: Any) -> dict[int, Any]:
    """Install a handler for the signals that request a stop; return the previous handlers.

    Signals that are ignored stay ignored, such as SIGHUP under nohup. Outside the main thread,
    where Python does not allow signal handlers, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    unchanged = (signal.SIG_IGN, None)  # None: the handler was not installed by Python
    handled = [number for number in numbers if signal.getsignal(number) not in unchanged]
    return {number: signal.signal(number, handler) for number in handled}


def ignore_signals() -> None:
    """Ignore further signals while the process exits."""
    install_handlers(signal.SIG_IGN)


@contextmanager
def handling_signals(handler: Any) -> Iterator[None]:
    """Install a signal handler for a ``with`` block; see `install_handlers`."""
    before = install_handlers(handler)
    try:
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


@contextmanager
def deferring_signals() -> Iterator[None]:
    """Handle signals that arrive in a block after it: an exception there would break a library."""
    received: list[int] = []
    try:
        with handling_signals(lambda number, _: received.append(number)):
            yield
    finally:
        for number in received:
            signal.raise_signal(number)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a signal was received; later ones are interrupts."""
    received: list[int] = []

    def request_stop(number: int, frame: FrameType | None) -> None:
        if received:
            signal.default_int_handler(number, frame)
        received.append(number)

    with handling_signals(request_stop):
        yield lambda: bool(received)
