"""Shows the list of presets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table

from nnctl.config.presets import Preset
from nnctl.text import percent
from nnctl.views.console import results, say

_LONG_LINE = 200  # without a terminal, a preset has one line, so that `grep` finds all of it


def show_presets(listed: Sequence[Preset]) -> None:
    """Print presets as one table per group: trainings, sweeps, and each folder."""
    console = results(_LONG_LINE)
    ordered = sorted(listed, key=_rank)
    for title, group in groupby(ordered, _title):
        members = list(group)
        with_accuracy = any(preset.test_accuracy is not None for preset in members)
        with_time = any(preset.time for preset in members)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(title, no_wrap=True)
        if with_accuracy:
            table.add_column("accuracy", justify="right", no_wrap=True)
        if with_time:
            table.add_column("time", justify="right", no_wrap=True)
        table.add_column("")
        for preset in members:
            accuracy = "" if preset.test_accuracy is None else percent(preset.test_accuracy)
            cells = [accuracy] * with_accuracy + [preset.time] * with_time
            table.add_row(preset.name, *cells, preset.summary)
        console.print(table)
        say(console, "")
    say(console, "Train one: nnctl train sigmoid. Change one: nnctl presets copy sigmoid.")


def _rank(preset: Preset) -> tuple[str, bool]:
    return preset.name.rpartition("/")[0], preset.is_sweep


def _title(preset: Preset) -> str:
    folder, _, _ = preset.name.rpartition("/")
    return folder or ("sweeps" if preset.is_sweep else "presets")
