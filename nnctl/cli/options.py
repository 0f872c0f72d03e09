"""Options that several commands share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from nnctl.config import Override

Command = TypeVar("Command", bound=Callable[..., Any])


class _NonEmptyPath(click.Path):
    """A path that is not empty: pathlib would turn an empty one into the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Reject an empty path, which an unset shell variable usually causes."""
        if not os.fspath(value):
            self.fail("the path is empty; is a shell variable unset?", param, ctx)
        return super().convert(value, param, ctx)


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


FOLDER = _NonEmptyPath(file_okay=False, path_type=Path)
EXISTING_FOLDER = _NonEmptyPath(exists=True, file_okay=False, path_type=Path)
FILE = _NonEmptyPath(dir_okay=False, path_type=Path)
ACCURACY = FiniteRange(0, 1)


def output_options(function: Command) -> Command:
    """Add ``--json`` and ``--quiet``."""
    function = click.option("--quiet", "-q", is_flag=True, help="Print only results, no progress.")(
        function
    )
    return click.option("--json", "as_json", is_flag=True, help="Print results as JSON on stdout.")(
        function
    )


def data_dir_option(function: Command) -> Command:
    """Add ``--data-dir``."""
    return click.option(
        "--data-dir",
        type=FOLDER,
        envvar="NNCTL_DATA_DIR",
        show_envvar=True,
        help="Folder for downloads (default: the user's cache).",
    )(function)


def checkpoint_option(function: Command) -> Command:
    """Add ``--checkpoint``."""
    return click.option(
        "--checkpoint",
        type=click.Choice(["best", "last"]),
        default="best",
        show_default=True,
        help="Network of the best epoch, or of the last epoch.",
    )(function)


def config_options(function: Command) -> Command:
    """Add the options that override values of a configuration; see `read_overrides`."""
    for decorate in reversed(
        (
            click.option(
                "--set",
                "settings",
                metavar="KEY=VALUE",
                multiple=True,
                help="Override a value: optimizer.momentum=0.9, network.layers.0.units=100. "
                "Repeatable.",
            ),
            click.option(
                "--dataset",
                metavar="NAME",
                help="mnist, mini, a logic gate, or a folder of four IDX files.",
            ),
            click.option("--subset", type=int, metavar="N", help="Train on N examples only."),
            click.option("--epochs", type=int, metavar="N", help="Total number of epochs."),
            click.option(
                "--seed",
                type=int,
                metavar="N",
                help="Random seed.",
            ),
            click.option(
                "--threads",
                type=int,
                metavar="N",
                help="Threads per training step (default: chosen from the size of a step).",
            ),
        )
    ):
        function = decorate(function)
    return function


def read_overrides(
    settings: tuple[str, ...],
    dataset: str | None = None,
    subset: int | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    threads: int | None = None,
) -> list[Override]:
    """Return the overrides from `config_options`; later ones take precedence."""
    from nnctl.config import Override

    named = {
        "data.dataset": ("--dataset", dataset),
        "data.subset": ("--subset", subset),
        "training.epochs": ("--epochs", epochs),
        "training.seed": ("--seed", seed),
        "training.threads": ("--threads", threads),
    }
    return [Override.parse(text) for text in settings] + [
        Override(key, value, f"{option} {value}")
        for key, (option, value) in named.items()
        if value is not None
    ]
