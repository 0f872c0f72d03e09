"""The command line: one file a command. The only room that knows click.

A command's module imports click alone at its top, and the rest of nnctl when it is carried out: so
``nnctl --help`` waits for neither NumPy nor rich.
"""

from __future__ import annotations

import os
from typing import Any

import click

import nnctl
from nnctl.cli.download import download
from nnctl.cli.evaluate import evaluate
from nnctl.cli.sweep import sweep
from nnctl.cli.train import train
from nnctl.errors import InterruptedRunError, NnctlError


class _Commands(click.Group):
    """The one place where the errors of all commands are caught, and shown."""

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out a command."""
        try:
            return super().invoke(ctx)
        except NnctlError as caught:
            error = caught
        except KeyboardInterrupt:
            error = InterruptedRunError("interrupted")
        except MemoryError:
            error = NnctlError("there is not enough memory")
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


for _command in (download, train, evaluate, sweep):
    main.add_command(_command)
