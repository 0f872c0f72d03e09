"""Command line: one module per command. Only this package uses click.

Help texts are arguments and not docstrings, because ``python -OO`` removes docstrings.

A command's module imports only click at its top, and the rest of nnctl when the command runs, so
that ``nnctl --help`` does not import NumPy or rich.
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
from nnctl.errors import InterruptedRunError, NnctlError, UsageError, limit_hint
from nnctl.signals import handling_signals, interrupt
from nnctl.text import presentable

_NO_THREAD = "can't start new thread"  # CPython has no error class for this
_THREADS = (
    "Raise the limits on processes and memory (ulimit -u, ulimit -v; in a container, its limits on "
    "pids and memory). With --threads 1, training does not start more threads."
)


def _open_standard_streams() -> None:
    """Reopen closed standard streams (``>&-``), so that later files do not get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            setattr(sys, name, open(number, "r+", encoding="utf-8", closefd=False))  # noqa: SIM115


def _encode_surrogates(error: UnicodeError) -> tuple[str | bytes, int]:
    """Return undecodable bytes of a file name unchanged, and "?" for other characters."""
    assert isinstance(error, UnicodeEncodeError)
    # In UTF-16 and UTF-32 a single byte is not a valid character.
    if not error.encoding.startswith(("utf-16", "utf-32")):
        with contextlib.suppress(UnicodeError):
            return codecs.lookup_error("surrogateescape")(error)
    return codecs.replace_errors(error)


codecs.register_error("nnctl.encode-surrogates", _encode_surrogates)


def _close_standard_streams() -> None:
    """Discard output that cannot be written, so that Python does not fail when it exits."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _from_os_error(error: OSError) -> NnctlError:
    """Convert an unexpected error of the operating system."""
    prefix = "" if error.filename is None else f"{error.filename}: "
    kind = UsageError if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else NnctlError
    return kind(f"{prefix}{error.strerror or error}", hint=limit_hint(error))


@contextlib.contextmanager
def _translating_os_errors() -> Iterator[None]:
    """Convert errors of the operating system, except that of a closed output pipe."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise _from_os_error(error) from None


class _Commands(click.Group):
    """Group of all commands; the only place that catches and prints errors."""

    def main(  # type: ignore[override]  # always exits, like the default mode of click
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run a command and exit."""
        _open_standard_streams()
        args = (sys.argv[1:] if args is None else args) or ["--help"]
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal shows "?" for other characters
                piped = stream is sys.stdout and not stream.isatty()
                stream.reconfigure(errors="nnctl.encode-surrogates" if piped else "replace")
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()
        except (NnctlError, click.ClickException) as caught:
            code = _show(caught)
        except click.Abort:
            code = _show(InterruptedRunError("interrupted"))
        except MemoryError:
            code = _show(NnctlError("not enough memory"))
        except RuntimeError as caught:
            if str(caught) != _NO_THREAD:
                raise
            code = _show(NnctlError("cannot start another thread", hint=_THREADS))
        except OSError as caught:
            is_closed_pipe = caught.errno == errno.EPIPE  # for example of `nnctl ... | head`
            code = 1 if is_closed_pipe else _show(_from_os_error(caught))
        finally:
            _close_standard_streams()
        return sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an interruption raises an error, so that the command can clean up."""
        with handling_signals(interrupt):
            try:
                with _translating_os_errors():
                    return super().invoke(ctx)
            except KeyboardInterrupt:
                raise InterruptedRunError("interrupted") from None
            except click.UsageError as error:
                message = f"{error.format_message()}{self._list_environment(ctx)}"
                raise click.UsageError(message, error.ctx) from None
            except UsageError as error:
                error.message += self._list_environment(ctx)
                raise

    def _list_environment(self, ctx: click.Context) -> str:
        """List the environment variables that set options, as the typed command omits them."""
        command = self.commands.get(ctx.invoked_subcommand or "")
        names = [
            str(option.envvar)
            for option in (command.params if command else ())
            if isinstance(option, click.Option) and not option.show_envvar
        ]
        variables = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
        return f"\nSet in the environment: {', '.join(variables)}" if variables else ""


def _show(error: NnctlError | click.ClickException) -> int:
    """Print an error to stderr, if that is still open, and return its exit code."""
    with handling_signals(signal.SIG_IGN), contextlib.suppress(OSError):
        if isinstance(error, click.UsageError):
            click.UsageError(presentable(error.format_message()), error.ctx).show()
        elif isinstance(error, click.ClickException):
            click.echo(f"Error: {presentable(error.format_message())}", err=True)
        else:
            color = False if os.environ.get("NO_COLOR") else None
            click.secho(f"Error: {presentable(error.message)}", err=True, fg="red", color=color)
            if hint := error.hint or limit_hint(error.__context__):
                click.echo(f"Hint: {presentable(hint)}", err=True)
    return error.exit_code


@click.group(
    cls=_Commands,
    no_args_is_help=False,  # `main` prints the help, and exits with 0
    context_settings={
        "auto_envvar_prefix": "NNCTL",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="Environment variables can set all options: NNCTL_TRAIN_EPOCHS=3 nnctl train",
    help="Train neural networks on MNIST, and see why they learn or do not learn.",
)
# Installers often set NNCTL_VERSION, which must not turn on --version.
@click.version_option(nnctl.__version__, prog_name="nnctl", allow_from_autoenv=False)
def main() -> None:
    """Run a command."""


for _command in (download, train, evaluate, report, predict, sweep, check, export):
    main.add_command(_command)
    for _option in _command.params:
        if isinstance(_option, click.Option) and _option.envvar is None:
            # click would use the name of the Python parameter instead.
            _long = max(_option.opts, key=len).lstrip("-").replace("-", "_")
            _option.envvar = f"NNCTL_{_command.name}_{_long}".upper()
