"""Ctrl-C and its kin: the first asks a training to stop and save, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # the last two are of POSIX and of Windows


class Stop:
    """Whether somebody asked for the end; calling it tells."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        """Tell."""
        return self.requested


def ignore_signals() -> None:
    """Let nothing more disturb the end of a process that was asked twice to stop."""
    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Let signals set a `Stop` instead of ending the process, the first time.

    Outside the main thread, where Python allows no signal handlers, they keep their meaning.
    """
    stop = Stop()

    def ask(*_: object) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            number = getattr(signal, name, None)
            # What is ignored stays so: nohup ignores SIGHUP.
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                previous[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
