"""Helpers for the tests of several packages."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from nnctl.cli import COMMANDS, main
from tests.processes import Done, Processes, end_of


def load_command(name: str) -> click.Command:
    """Import a command."""
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return command


def load_commands() -> dict[str, click.Command]:
    """Import all commands."""
    return {name: load_command(name) for name in COMMANDS}


def write_idx(path: Path, array: NDArray[Any]) -> None:
    """Write unsigned bytes as an IDX file."""
    header = struct.pack(">I", 0x800 + array.ndim)
    header += b"".join(struct.pack(">I", size) for size in array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def run_command(processes: Processes, *words: object, **options: Any) -> Done:
    """Run any command to its end, and capture its output."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return end_of(processes.start([*map(str, words)], **{**streams, **options}))


def run_python(processes: Processes, code: str) -> Done:
    """Run Python code in a new process; it must succeed."""
    done = run_command(processes, sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr
    return done
