"""A command in a pseudo-terminal, as people see it; Windows has none."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping

from tests.conftest import nnctl_command


def start_in_terminal(
    *arguments: object, columns: int = 80, env: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command in a terminal of so many columns; return it, and where its output is read."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    of_the_tests = ("CI", "NO_COLOR", "COLUMNS", "LINES")
    clean = {name: value for name, value in os.environ.items() if name not in of_the_tests}
    process = subprocess.Popen(
        nnctl_command(*arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**clean, "TERM": "xterm-256color", "PYTHONUTF8": "1", **(env or {})},
    )
    os.close(theirs)
    return process, ours


def read_terminal(ours: int, meanwhile: Callable[[], object] = lambda: None) -> bytes:
    """Return all that is printed to a terminal until nobody has it open any more.

    What is to happen meanwhile is called each time when something was printed.
    """
    printed = b""
    while True:
        try:
            more = os.read(ours, 65536)
        except OSError:  # Linux's way of saying that the other side is closed
            break
        if not more:
            break
        printed += more
        meanwhile()
    os.close(ours)
    return printed
