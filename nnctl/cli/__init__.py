"""The command line: one file a command. The only room that knows click.

Help texts are arguments and not docstrings, which ``python -OO`` removes.

A command's module imports click alone at its top, and the rest of nnctl when it is carried out: so
``nnctl --help`` waits for neither NumPy nor rich.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
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
from nnctl.errors import InterruptedRunError, NnctlError, UsageError, limit_hint, presentable
from nnctl.runs.stopping import hearing, interrupt

_NO_THREAD = "can't start new thread"  # CPython has no error class for this
_THREADS = (
    "Raise the limits on processes and memory (ulimit -u, ulimit -v; in a container, its limits on "
    "pids and memory). Training with --threads 1 needs no further thread."
)


def _open_standard_streams() -> None:
    """Let no file that is opened later take the place of a stream that was closed (``>&-``)."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, open(number, "r+", encoding="utf-8", closefd=False))  # noqa: SIM115


def _as_named(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return the bytes of a name that is no text as they are, and "?" for all else."""
    assert isinstance(error, UnicodeEncodeError)
    if not error.encoding.startswith(("utf-16", "utf-32")):  # where a byte alone is no letter
        with contextlib.suppress(UnicodeError):
            return codecs.lookup_error("surrogateescape")(error)
    return codecs.replace_errors(error)


codecs.register_error("nnctl.as-named", _as_named)


def _close_standard_streams() -> None:
    """Let Python not fail, when it exits, in writing what could not be written before."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _of_the_system(error: OSError) -> NnctlError:
    """Return what to tell of an error of the system that nobody foresaw."""
    about = "" if error.filename is None else f"{error.filename}: "
    kind = UsageError if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else NnctlError
    return kind(f"{about}{error.strerror or error}", hint=limit_hint(error))


@contextlib.contextmanager
def _telling_of_the_system() -> Iterator[None]:
    """Raise what to tell where the system refuses something, unless nobody reads it any more."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise _of_the_system(error) from None


class _Commands(click.Group):
    """The one place where the errors of all commands are caught, and shown."""

    def main(  # type: ignore[override]  # it always exits, as the other does by default
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Carry out a command, and exit."""
        _open_standard_streams()
        args = (sys.argv[1:] if args is None else args) or ["--help"]
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show becomes "?"
                read = stream is sys.stdout and not stream.isatty()  # by a program
                stream.reconfigure(errors="nnctl.as-named" if read else "replace")
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()
        except (NnctlError, click.ClickException) as caught:
            code = _show(caught)
        except click.Abort:
            code = _show(InterruptedRunError("interrupted"))
        except MemoryError:
            code = _show(NnctlError("there is not enough memory"))
        except RuntimeError as caught:
            if str(caught) != _NO_THREAD:
                raise
            code = _show(NnctlError("no further thread can be started", hint=_THREADS))
        except OSError as caught:
            left = caught.errno == errno.EPIPE  # whoever read the output has
            code = 1 if left else _show(_of_the_system(caught))
        finally:
            _close_standard_streams()
        return sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Carry out a command; what it has begun is undone when it is interrupted."""
        with hearing(interrupt):
            try:
                with _telling_of_the_system():
                    return super().invoke(ctx)
            except KeyboardInterrupt:
                raise InterruptedRunError("interrupted") from None
            except click.UsageError as refused:
                told = f"{refused.format_message()}{self._told_of_environment(ctx)}"
                raise click.UsageError(told, refused.ctx) from None
            except UsageError as refused:
                refused.message += self._told_of_environment(ctx)
                raise

    def _told_of_environment(self, ctx: click.Context) -> str:
        """Tell what the environment sets, as it stands in no command that somebody looks at."""
        command = self.commands.get(ctx.invoked_subcommand or "")
        names = [
            str(option.envvar)
            for option in (command.params if command else ())
            if isinstance(option, click.Option) and not option.show_envvar
        ]
        given = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
        return f"\nIn the environment: {', '.join(given)}" if given else ""


def _show(error: NnctlError | click.ClickException) -> int:
    """Tell an error, if that can be done; return its exit code."""
    with hearing(signal.SIG_IGN), contextlib.suppress(OSError):
        if isinstance(error, click.UsageError):
            click.UsageError(presentable(error.format_message()), error.ctx).show()
        elif isinstance(error, click.ClickException):
            click.echo(f"Error: {presentable(error.format_message())}", err=True)
        else:
            coloured = False if os.environ.get("NO_COLOR") else None
            click.secho(f"Error: {presentable(error.message)}", err=True, fg="red", color=coloured)
            if hint := error.hint or limit_hint(error.__context__):
                click.echo(f"Hint: {presentable(hint)}", err=True)
    return error.exit_code


@click.group(
    cls=_Commands,
    no_args_is_help=False,  # but see `main`: of help, not of a mistake
    context_settings={
        "auto_envvar_prefix": "NNCTL",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="Every option can be given by the environment: NNCTL_TRAIN_EPOCHS=3 nnctl train ...",
    help="Train MNIST digit classifiers, and see why they learn or do not.",
)
# NNCTL_VERSION is what many an environment says that installs nnctl.
@click.version_option(nnctl.__version__, prog_name="nnctl", allow_from_autoenv=False)
def main() -> None:
    """Carry out a command."""


for _command in (download, train, evaluate, report, predict, sweep, check, export):
    main.add_command(_command)
    for _option in _command.params:
        if isinstance(_option, click.Option) and _option.envvar is None:
            # click would derive it from the name of the parameter in Python.
            _long = max(_option.opts, key=len).lstrip("-").replace("-", "_")
            _option.envvar = f"NNCTL_{_command.name}_{_long}".upper()
