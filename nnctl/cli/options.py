"""Options that several commands have."""

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


class _Named(click.Path):
    """A path that has a name: of an empty one, the current folder would be made."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what an unset variable of a shell comes to."""
        if not os.fspath(value):
            self.fail("an empty name; is a variable of the shell unset?", param, ctx)
        return super().convert(value, param, ctx)


class FiniteRange(click.FloatRange):
    """A range of numbers, in which nan is not, though no comparison says so, nor infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Refuse what is not finite."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number", param, ctx)
        return number


FOLDER = _Named(file_okay=False, path_type=Path)
EXISTING_FOLDER = _Named(exists=True, file_okay=False, path_type=Path)
FILE = _Named(dir_okay=False, path_type=Path)
ACCURACY = FiniteRange(0, 1)


def output_options(function: Command) -> Command:
    """Add ``--json`` and ``--quiet``."""
    function = click.option("--quiet", "-q", is_flag=True, help="No progress, only results.")(
        function
    )
    return click.option("--json", "as_json", is_flag=True, help="Results as JSON on stdout.")(
        function
    )


def data_dir_option(function: Command) -> Command:
    """Add ``--data-dir``."""
    return click.option(
        "--data-dir",
        type=FOLDER,
        envvar="NNCTL_DATA_DIR",
        show_envvar=True,
        help="Where downloads are kept; default: the user's cache.",
    )(function)


def checkpoint_option(function: Command) -> Command:
    """Add ``--checkpoint``."""
    return click.option(
        "--checkpoint",
        type=click.Choice(["best", "last"]),
        default="best",
        show_default=True,
        help="The best epoch's network, or the last one.",
    )(function)


def config_options(function: Command) -> Command:
    """Add the options that lay values over a configuration; see `read_overrides`."""
    for decorate in reversed(
        (
            click.option(
                "--set",
                "settings",
                metavar="KEY=VALUE",
                multiple=True,
                help="Set a key: optimizer.momentum=0.9, network.layers.0.units=100. Repeatable.",
            ),
            click.option(
                "--dataset",
                metavar="NAME",
                help="mnist, mini, a gate, or a folder of four IDX files.",
            ),
            click.option("--subset", type=int, metavar="N", help="Train on N examples."),
            click.option("--epochs", type=int, metavar="N", help="Train for N epochs in all."),
            click.option(
                "--seed",
                type=int,
                metavar="N",
                help="Seed of all random numbers.",
            ),
            click.option(
                "--threads",
                type=int,
                metavar="N",
                help="Threads that share a step; default: as many as it is worth.",
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
    """Return what `config_options` set, in the order in which it counts."""
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
