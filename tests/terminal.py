"""Commands in a pseudo-terminal, as a user sees them; Windows has none."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping

import pyte

from tests.processes import DEADLINE, Processes, nnctl_command

COLOR = re.compile(r"\x1b\[[0-9;]*m")


def start_in_terminal(
    processes: Processes,
    *arguments: object,
    columns: int = 80,
    env: Mapping[str, str] | None = None,
) -> tuple[subprocess.Popen[bytes], int]:
    """Start nnctl in a terminal; return its process and the file descriptor of its output."""
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    test_variables = ("CI", "NO_COLOR", "COLUMNS", "LINES")
    clean = {name: value for name, value in os.environ.items() if name not in test_variables}
    process = processes.start(
        nnctl_command(*arguments),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**clean, "TERM": "xterm-256color", "PYTHONUTF8": "1", **(env or {})},
    )
    os.close(slave)
    return process, master


def read_terminal(master: int, on_output: Callable[[], object] = lambda: None) -> bytes:
    """Return the output until the process closes the terminal; call a function after each chunk."""
    printed = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:  # Linux reports the end of a terminal's output as an error
            break
        if not chunk:
            break
        printed += chunk
        on_output()
    os.close(master)
    return printed


def in_terminal(
    *arguments: object,
    columns: int = 80,
    env: Mapping[str, str] | None = None,
    code: int = 0,
    meanwhile: Callable[[int, subprocess.Popen[bytes]], None] | None = None,
) -> str:
    """Run nnctl in a terminal to its end and return the output.

    `meanwhile` is called after each chunk of output, with the terminal's file descriptor and the
    process.
    """
    with Processes() as processes:
        process, master = start_in_terminal(processes, *arguments, columns=columns, env=env)
        printed = read_terminal(master, lambda: meanwhile(master, process) if meanwhile else None)
        assert process.wait(timeout=DEADLINE) == code, printed
    return printed.decode()


def on_screen(printed: str, columns: int = 80) -> list[str]:
    """Return the lines on the screen of a terminal after this output."""
    screen = pyte.Screen(columns, 200)
    pyte.Stream(screen).feed(printed)
    return [line.rstrip() for line in screen.display]
