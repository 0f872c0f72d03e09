"""Options that several commands share, and what ``--json`` prints."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
from click.shell_completion import CompletionItem

from nnctl.config import Override, possible_settings
from nnctl.config.presets import presets
from nnctl.config.words import find_answer, normalized
from nnctl.files import exists, expand_home, to_json_text
from nnctl.text import TIME_PATTERN, seconds_in, shell_command, short_value

Command = TypeVar("Command", bound=Callable[..., Any])


class _NonEmptyPath(click.Path):
    """A path that is not empty: pathlib would turn an empty one into the current directory.

    ``~`` is the home directory.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reject an empty path, which an unset shell variable usually causes."""
        if not os.fspath(value):
            self.fail("the path is empty; is a shell variable unset?", param, ctx)
        if os.fspath(value).startswith("~"):
            value = os.fspath(expand_home(value))
        return super().convert(value, param, ctx)


class _Setting(click.types.StringParamType):
    """``KEY=VALUE``; in an environment variable, a new one begins at each ``KEY=``."""

    name = "setting"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the key of a configuration, or its value if that is a word."""
        key, equals, _ = incomplete.partition("=")
        settings = dict(possible_settings())
        if not equals:
            return _completed((f"{key}=" for key in settings), incomplete)
        return _completed((f"{key}={word}" for word in settings.get(key, [])), incomplete)

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Split at white space before a key: values may contain spaces, as YAML does."""
        return re.split(r"\s+(?=[\w.]+=)", rv.strip()) if rv.strip() else []


class FiniteRange(click.FloatRange):
    """A range of finite numbers: nan passes the comparisons of click's own range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Reject nan and infinity."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number", param, ctx)
        return number


class _Time(click.types.StringParamType):
    """A time: seconds, or a number with a unit, such as ``90s``, ``10m`` or ``2h``."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the seconds."""
        time = f"{value}s" if str(value).isdecimal() else str(value)
        if not re.fullmatch(TIME_PATTERN, time):
            self.fail(f"{value!r} is not a time such as 90, 90s, 10m or 2h", param, ctx)
        return seconds_in(time)


class _ConfigPath(_NonEmptyPath):
    """A CONFIG: a file, a preset or ``-`` for standard input; see `nnctl.config.read_config`."""

    def __init__(self) -> None:
        super().__init__(allow_dash=True, path_type=Path)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the names of presets and files."""
        files = super().shell_complete(ctx, param, incomplete)
        return [*PRESET.shell_complete(ctx, param, incomplete), *files]


class _PresetName(click.types.StringParamType):
    """The name of a preset."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the names of presets."""
        return _completed([preset.name for preset in presets()], incomplete)


class _DatasetName(click.types.StringParamType):
    """The name of a dataset, or the path of a folder or file."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the names of datasets, and files."""
        from nnctl.data.dataset import NAMED

        return [*_completed(NAMED, incomplete), *PATH.shell_complete(ctx, param, incomplete)]


def _completed(words: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


class _RunPath(_NonEmptyPath):
    """The directory of a run, or the word ``latest`` for the newest run or sweep in ``runs``.

    Where one run is needed, the directory of a sweep stands for its best trial.

    Parameters
    ----------
    one_run : bool
        Whether one run is needed.
    kind : "run" or "sweep", optional
        What ``latest`` stands for, if not either.
    or_config : bool
        Whether the value may be a CONFIG as well.
    """

    def __init__(
        self,
        *,
        one_run: bool = True,
        kind: Literal["run", "sweep"] | None = None,
        or_config: bool = False,
    ) -> None:
        super().__init__(file_okay=or_config, allow_dash=or_config, path_type=Path)
        self._one_run = one_run
        self._kind = kind
        self._or_config = or_config

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the runs and sweeps in the folder of runs, and other folders."""
        from nnctl.runs.run import RUNS
        from nnctl.sweeps.listing import LATEST, find_runs

        runs = [LATEST, *sorted(map(str, find_runs(RUNS)))]
        others = _ConfigPath() if self._or_config else FOLDER
        return [*_completed(runs, incomplete), *others.shell_complete(ctx, param, incomplete)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the run directory; say which one it is if it was not named."""
        # The command is running, so that the imports cost nothing more.
        from nnctl.data.image_files import SUFFIXES
        from nnctl.errors import UsageError
        from nnctl.sweeps.listing import named_run

        name = Path(value)
        is_image = name.suffix.lower() in SUFFIXES and not (exists(name) and name.is_dir())
        if is_image and ctx and any(option.name == "image" for option in ctx.command.params):
            command = shell_command("nnctl", ctx.command.name, "latest", "--image", value)
            raise UsageError(
                f"{value} is an image, not a run", hint=f"Name a run before it: {command}"
            )
        path = named_run(super().convert(value, param, ctx), one_run=self._one_run, kind=self._kind)
        if path != Path(os.fspath(expand_home(value))):
            click.echo(f"{value}: {path}", err=True)
        return path


PATH = _NonEmptyPath(path_type=Path)
RUN = _RunPath()
RUN_OR_SWEEP = _RunPath(one_run=False)
RUN_TO_RESUME = _RunPath(one_run=False, kind="run")
SWEEP = _RunPath(one_run=False, kind="sweep")
RUN_OR_CONFIG = _RunPath(or_config=True)
PRESET = _PresetName()
DATASET = _DatasetName()
FOLDER = _NonEmptyPath(file_okay=False, path_type=Path)
EXISTING_PATH = _NonEmptyPath(exists=True, path_type=Path)
CONFIG = _ConfigPath()
FILE = _NonEmptyPath(dir_okay=False, path_type=Path)
PATH_NAME = _NonEmptyPath()
SETTING = _Setting()
TIME = _Time()
ACCURACY = FiniteRange(0, 1)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print results as JSON on stdout."
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="Print only results, no progress.")


def _export_data_dir(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Set $NNCTL_DATA_DIR during the command, as the option is its other form.

    A dataset that has to be converted is needed before the command opens it: the configuration is
    checked against its size. Worker processes inherit the variable.
    """
    if value is not None:
        name = str(param.envvar)
        before = os.environ.get(name)

        def restore() -> None:
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before

        os.environ[name] = str(value)
        # Not a context manager: click does not close it after a usage error; Python would, later.
        ctx.call_on_close(restore)


data_dir_option = click.option(
    "--data-dir",
    type=FOLDER,
    envvar="NNCTL_DATA_DIR",
    show_envvar=True,
    callback=_export_data_dir,
    expose_value=False,
    help="Folder for downloads (default: the user's cache).",
)
checkpoint_option = click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    help="Network of the best epoch, or of the last epoch.",
)


def print_json(value: object) -> None:
    """Print a result as JSON on stdout."""
    click.echo(to_json_text(value))


def output_options(command: Command) -> Command:
    """Add ``--json`` and ``--quiet``."""
    return json_option(quiet_option(command))


_SET = click.option(
    "--set",
    "settings",
    type=SETTING,
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a value: optimizer.momentum=0.9, network.layers.0.units=100. Repeatable.",
)
_SHORTCUTS = {
    "dataset": (
        "data.dataset",
        DATASET,
        "mnist, fashion-mnist and others, mini, a logic gate, or a folder or file.",
    ),
    "subset": ("data.subset", int, "Train on N examples only."),
    "epochs": ("training.epochs", int, "Total number of epochs."),
    "seed": ("training.seed", int, "Random seed."),
    "lr": ("optimizer.learning_rate", float, "Learning rate."),
    "batch-size": ("training.batch_size", int, "Examples per training step."),
    "threads": (
        "training.threads",
        int,
        "Threads per training step (default: chosen from the size of a step).",
    ),
}
"""Options that set a key of a configuration: the key, the type and the help of each."""

OVERRIDES = ("settings", *(name.replace("-", "_") for name in _SHORTCUTS))
"""Names of the options that `override_options` adds."""


def override_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that override values of a configuration.

    The command gets them as ``overrides``, a list of `Override`; later ones take precedence.
    """

    @functools.wraps(command)
    def with_overrides(*, settings: tuple[str, ...], **options: Any) -> None:
        overrides = [Override.parse(text) for text in settings]
        for name, (key, *_) in _SHORTCUTS.items():
            if (value := options.pop(name.replace("-", "_"))) is not None:
                overrides.append(Override(key, value, f"--{name} {value}"))
        command(overrides=overrides, **options)

    decorated: Callable[..., None] = with_overrides
    for name, (_, kind, text) in reversed(_SHORTCUTS.items()):
        metavar = {DATASET: "NAME", int: "N", float: "RATE"}[kind]
        decorated = click.option(f"--{name}", type=kind, metavar=metavar, help=text)(decorated)
    return _SET(decorated)


def suggest_option(error: click.NoSuchOption) -> str:
    """Return the option that sets the key which an unknown option means, or ``""``."""
    word = error.option_name.lstrip("-")
    has_settings = error.ctx and any(one.name == "settings" for one in error.ctx.command.params)
    if not has_settings:
        return ""
    # The shortest key of a name: optimizer.momentum, and not that of batch normalization.
    for key in sorted(dict(possible_settings()), key=lambda dotted: dotted.count(".")):
        if normalized(key.rpartition(".")[2]) == normalized(word):
            return f"use {_option_for(key, None)}"
    answer = find_answer(word)
    if answer is None or not answer.settings:
        return answer.note if answer else ""
    options = " ".join(_option_for(key, value) for key, value in answer.settings.items())
    return f"use {options}" + (f", {answer.note}" if answer.note else "")


def _option_for(key: str, value: object) -> str:
    """Return the option that sets a key; the value None stands for that of the user."""
    for name, (known, *_) in _SHORTCUTS.items():
        if known == key and value is None:
            return f"--{name}"
    return "--set " + shell_command(f"{key}={'VALUE' if value is None else short_value(value)}")
