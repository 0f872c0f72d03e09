"""The command line: one file a command. The only room that knows click.

A command's module imports click alone at its top, and the rest of nnctl when it is carried out: so
``nnctl --help`` waits for neither NumPy nor rich.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from typing import Any

import click

import nnctl
from nnctl.cli.check import check
from nnctl.cli.download import download
from nnctl.cli.evaluate import evaluate
from nnctl.cli.export import export
from nnctl.cli.predict import predict
from nnctl.cli.report import report
from nnctl.cli.sweep import sweep
from nnctl.cli.train import train
from nnctl.errors import InterruptedRunError, NnctlError


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _open_standard_streams() -> None:
    """Let no file that is opened later take the place of a stream that was closed (``>&-``)."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, open(number, "r+", encoding="utf-8", closefd=False))  # noqa: SIM115


class _Commands(click.Group):
    """The one place where the errors of all commands are caught, and shown."""

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out a command."""
        _open_standard_streams()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show becomes "?"
                stream.reconfigure(errors="replace")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _interrupt)  # what was begun is undone, as by Ctrl-C
        try:
            return super().invoke(ctx)
        except NnctlError as caught:
            error = caught
        except KeyboardInterrupt:
            error = InterruptedRunError("interrupted")
        except MemoryError:
            error = NnctlError("there is not enough memory")
        except OSError as caught_error:
            if caught_error.errno == errno.EPIPE:  # click's: whoever read the output has left
                raise
            error = NnctlError(f"{caught_error.strerror or caught_error}")
        coloured = False if os.environ.get("NO_COLOR") else None
        click.secho(f"Error: {error.message}", err=True, fg="red", color=coloured)
        if error.hint:
            click.echo(f"Hint: {error.hint}", err=True)
        return ctx.exit(error.exit_code)


@click.group(
    cls=_Commands,
    context_settings={
        "auto_envvar_prefix": "NNCTL",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="Every option can be given by the environment: NNCTL_TRAIN_EPOCHS=3 nnctl train ...",
)
@click.version_option(nnctl.__version__, prog_name="nnctl")
def main() -> None:
    """Train MNIST digit classifiers, and see why they learn or do not."""


for _command in (download, train, evaluate, report, predict, sweep, check, export):
    main.add_command(_command)
    for _option in _command.params:
        if isinstance(_option, click.Option) and _option.envvar is None:
            # click would derive it from the name of the parameter in Python.
            _long = max(_option.opts, key=len).lstrip("-").replace("-", "_")
            _option.envvar = f"NNCTL_{_command.name}_{_long}".upper()
