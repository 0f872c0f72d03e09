"""Command line: one module per command. Only this package uses click.

Help texts are arguments and not docstrings, because ``python -OO`` removes docstrings.

The module of a command is imported when the command runs, so that ``nnctl --help`` does not import
NumPy or rich.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

import nnctl
from nnctl.errors import InterruptedRunError, NnctlError, UsageError, limit_hint
from nnctl.signals import exit_immediately, handling_signals
from nnctl.text import did_you_mean, nearest, presentable

COMMANDS = {
    "presets": ("presets", "List the configurations that come with nnctl."),
    "check": ("check", "Check a configuration before training, or diagnose a run."),
    "lr-find": ("lr_find", "Suggest a learning rate for CONFIG by a range test."),
    "train": ("train", "Train a network as configured in CONFIG."),
    "sweep": ("sweep", "Train many variants of a configuration and rank them."),
    "runs": ("runs", "List the runs and sweeps below DIR, by default runs."),
    "eval": ("evaluate", "Evaluate the network trained in RUN on the test set."),
    "predict": ("predict", "Classify each IMAGE, with the network trained in RUN if given."),
    "explain": ("explain", "Follow one example through the network trained in RUN, and back."),
    "compare": ("compare", "Compare two or more RUNs."),
    "report": ("report", "Write an HTML report of RUN that works offline."),
    "export": ("export", "Export the network trained in RUN to ONNX or safetensors."),
    "download": ("download", "Download MNIST or another dataset, and verify it."),
    "completion": ("completion", "Print a script that completes words in SHELL."),
}
"""Module and function of each command, and the first sentence of its help.

They are in the order in which users need them, which is that of ``nnctl --help``.
"""

_NOT_OPTIONS = ("NNCTL_DATA_DIR", "NNCTL_MIRROR", "NNCTL_TEST_", "NNCTL_VERSION")
"""Beginnings of variables that are not of every command, or not of an option."""

_CLOSED_PIPE = (errno.EPIPE, errno.EINVAL) if os.name == "nt" else (errno.EPIPE,)
"""Error numbers of a pipe whose reader exited, such as ``head``; Windows reports EINVAL."""

_NO_THREAD = "can't start new thread"  # CPython has no error class for this
_THREADS = (
    "Raise the limits on processes and memory (ulimit -u, ulimit -v; in a container, its limits on "
    "pids and memory). With --threads 1, training does not start more threads."
)


class _Commands(click.Group):
    """Group that imports commands when they run; the only place that catches and prints errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, and name the environment variables of its options."""
        if cmd_name not in COMMANDS:
            return None
        name, _ = COMMANDS[cmd_name]
        # Modules that are being imported may catch a KeyboardInterrupt.
        with handling_signals(exit_immediately):
            command: click.Command = getattr(importlib.import_module(f"nnctl.cli.{name}"), name)
        for option in command.params:
            if isinstance(option, click.Option) and option.envvar is None:
                # click would use the name of the Python parameter instead.
                long = max(option.opts, key=len).lstrip("-").replace("-", "_")
                option.envvar = f"{_prefix(cmd_name)}{long.upper()}"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and warn of misspelled environment variables before it runs.

        The error of an unknown command suggests one with a similar name.
        """
        if similar := "" if args[0] in COMMANDS else did_you_mean(args[0], COMMANDS):
            ctx.fail(f"No such command '{args[0]}'{similar}")
        name, command, rest = super().resolve_command(ctx, args)
        if name and command and not ctx.resilient_parsing:  # set while the shell completes words
            for message in _misspelled_variables(name, command):
                from nnctl.views.console import warn

                warn(message)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command without importing them."""
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        commands = [CompletionItem(name, help=COMMANDS[name][1]) for name in names]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def main(  # type: ignore[override]  # always exits, like the default mode of click
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run a command and exit."""
        args = (sys.argv[1:] if args is None else args) or ["--help"]
        _prepare_terminal()
        if "_NNCTL_COMPLETE" in os.environ:
            importlib.import_module("nnctl.cli.completion")  # registers the completion for bash
        try:
            code = super().main(args, prog_name, standalone_mode=False, **extra)
            sys.stdout.flush()
        except Exception as caught:
            error = _user_error(caught)
            suffix = self._list_environment(args[0]) if error.exit_code == 2 else ""
            code = 1 if _is_closed_pipe(caught) else _show(error, suffix)
        finally:
            _discard_unwritten_output()
        return sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; a signal raises an error, so that the command can clean up."""
        try:
            with handling_signals(signal.default_int_handler):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedRunError("interrupted") from None

    def _list_environment(self, name: str) -> str:
        """List the environment variables that set options, as the typed command omits them."""
        command = self.get_command(click.Context(self), name)
        names = [
            str(option.envvar)
            for option in (command.params if command else ())
            if isinstance(option, click.Option) and not option.show_envvar
        ]
        variables = [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]
        return f"\nSet in the environment: {', '.join(variables)}" if variables else ""


def _prefix(command: str) -> str:
    """Return the beginning of the environment variables of a command's options."""
    return f"NNCTL_{command.replace('-', '_')}_".upper()


def _misspelled_variables(name: str, command: click.Command) -> Iterator[str]:
    """Yield a message for each environment variable that seems to be a misspelled option.

    Variables of other commands and programs are not reported: a name without the command is
    reported only if it is similar to the variable of an option.
    """
    known = [str(option.envvar) for option in command.params if isinstance(option, click.Option)]
    others = (*(_prefix(other) for other in COMMANDS if other != name), *_NOT_OPTIONS)
    own = _prefix(name)
    for variable in sorted(os.environ):
        if variable in known or variable.startswith(others) or not variable.startswith("NNCTL_"):
            continue
        start = own if variable.startswith(own) else "NNCTL_"
        endings = {option.removeprefix(start).lower(): option for option in known}
        meant = nearest(variable.removeprefix(start), endings)
        if meant or start == own:
            advice = f"did you mean {endings[meant]}?" if meant else f"see: nnctl {name} --help"
            yield f"unknown environment variable {variable}; {advice}"


def _prepare_terminal() -> None:
    """Make the standard streams and the window's size in the environment safe to use."""
    for name in ("stdin", "stdout", "stderr"):
        # Python sets a stream that is closed (``>&-``) to None. /dev/null takes its number, which
        # a file that is opened later must not get.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Other programs get names of files unchanged, also if they are not valid UTF-8.
            piped = stream is sys.stdout and not stream.isatty() and stream.encoding == "utf-8"
            stream.reconfigure(errors="surrogateescape" if piped else "replace")
    for name in ("COLUMNS", "LINES"):  # rich accepts 0, a billion and ²
        if not re.fullmatch("[1-9][0-9]{0,3}", os.environ.get(name, "80")):
            del os.environ[name]


def _discard_unwritten_output() -> None:
    """Discard output that cannot be written, so that Python does not fail when it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_closed_pipe(error: Exception) -> bool:
    """Check whether output could not be written because its reader exited."""
    return isinstance(error, OSError) and error.filename is None and error.errno in _CLOSED_PIPE


def _user_error(error: Exception) -> NnctlError | click.ClickException:
    """Return the error to show to the user; raise errors in nnctl itself again."""
    match error:
        case NnctlError() | click.ClickException():
            return error
        case click.Abort():
            return InterruptedRunError("interrupted")
        case MemoryError():
            return NnctlError("not enough memory")
        case RuntimeError() if str(error) == _NO_THREAD:
            return NnctlError("cannot start another thread", hint=_THREADS)
        case RuntimeError() if isinstance(error.__context__, KeyboardInterrupt):
            # An interrupt within threading leaves a lock in a state that raises another error.
            return InterruptedRunError("interrupted")
        case OSError():
            prefix = "" if error.filename is None else f"{error.filename}: "
            kind = UsageError if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else NnctlError
            return kind(f"{prefix}{error.strerror or error}", hint=limit_hint(error))
    raise error


def _format_message(error: click.ClickException) -> str:
    """Return the message of click's error; for an unknown option with that of a similar meaning."""
    if isinstance(error, click.NoSuchOption):
        from nnctl.cli.options import suggest_option

        if suggestion := suggest_option(error):
            return f"No such option '{error.option_name}'; {suggestion}"
    return error.format_message()


def _show(error: NnctlError | click.ClickException, suffix: str) -> int:
    """Print an error to stderr, if that is still open, and return its exit code."""
    message = error.message if isinstance(error, NnctlError) else _format_message(error)
    text = presentable(message + suffix)
    with handling_signals(signal.SIG_IGN), contextlib.suppress(OSError):
        if isinstance(error, click.UsageError):
            click.UsageError(text, error.ctx).show()
        elif isinstance(error, click.ClickException):
            click.echo(f"Error: {text}", err=True)
        else:
            color = False if os.environ.get("NO_COLOR") else None
            if isinstance(error, InterruptedRunError):  # as the user requested: not an error
                click.secho(f"{text[:1].upper()}{text[1:]}", err=True, color=color)
            else:
                click.secho(f"Error: {text}", err=True, fg="red", color=color)
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
        "show_default": True,
    },
    epilog="Environment variables can set all options: NNCTL_TRAIN_EPOCHS=3 nnctl train",
    help="Train neural networks on MNIST, and see why they learn or do not learn.",
)
# Installers often set NNCTL_VERSION, which must not turn on --version.
@click.version_option(nnctl.__version__, prog_name="nnctl", allow_from_autoenv=False)
def main() -> None:
    """Run a command."""
