"""Shows lists of runs, and comparisons of runs, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.table import Table

from nnctl.analysis.comparison import ALPHA
from nnctl.analysis.run_comparison import ComparedRun
from nnctl.sweeps.listing import ListedRun
from nnctl.text import duration, p_equals, percent, short_value
from nnctl.views.console import make_table, notices, results, say

_MAX_WIDTH = 1000  # columns of a file or pipe, so that names, which are copied, do not break
_NAME, _WIDE = 12, 72  # columns of a name at least, and of a window with room for time and size


def _setting(value: object) -> str:
    """Return the value of a setting, or "-" if a run does not have this layer."""
    return "-" if value is None else short_value(value)


def show_runs(entries: Sequence[ListedRun], folder: Path) -> None:
    """Print a row per run or sweep."""
    console = results(_MAX_WIDTH)
    if not entries:
        say(notices(), f"No runs in {folder}.")
        return
    table = Table(box=box.SIMPLE, padding=(0, 0, 0, 1))
    is_wide = console.width >= _WIDE
    table.add_column("name", overflow="fold", min_width=_NAME)
    table.add_column("state", no_wrap=True)
    for name in ("validation", "test", "epochs", *(("time", "size") if is_wide else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in entries:
        time = "" if entry.seconds is None else duration(entry.seconds)
        table.add_row(
            _name(entry, folder),
            entry.state.replace("_", " "),
            percent(entry.val_accuracy),
            percent(entry.test_accuracy),
            _epochs(entry),
            *((time, decimal(entry.bytes, precision=0)) if is_wide else ()),
        )
    console.print(table)
    for entry in entries:
        if entry.problem:
            say(console, f"{entry.path}: {entry.problem}")


def total_size(entries: Sequence[ListedRun]) -> str:
    """Return the size of all files of runs, for example ``2.5 MB``."""
    return decimal(sum(entry.bytes for entry in entries))


def _epochs(entry: ListedRun) -> str:
    if entry.epochs is None:
        return ""
    unit = "" if entry.kind != "sweep" else " trial" if entry.epochs == 1 else " trials"
    of_all = "" if entry.epochs == entry.planned_epochs else f"/{entry.planned_epochs}"
    return f"{entry.epochs}{of_all}{unit}"


def _name(entry: ListedRun, folder: Path) -> str:
    """Return the path of a run below the listed folder."""
    relative = entry.path.relative_to(folder)
    return str(relative) if relative.parts else entry.name


def show_comparison(runs: Sequence[ComparedRun]) -> None:
    """Print the runs side by side, then the difference of each from the first in a sentence."""
    console = results(_MAX_WIDTH)
    names = [Path(run.run_dir).name for run in runs]
    table = make_table()
    for name in ("", *names):
        table.add_column(name, overflow="fold")
    rows: list[tuple[str, list[str]]] = [
        (key, [_setting(run.settings[key]) for run in runs]) for key in runs[0].settings
    ]
    rows += [
        ("validation accuracy", [percent(run.val_accuracy) for run in runs]),
        ("test accuracy", [percent(run.test_accuracy) for run in runs]),
        ("test loss", [f"{run.test_loss:.4f}" for run in runs]),
        ("best epoch", [f"{run.best_epoch} of {run.epochs}" for run in runs]),
        ("time", [duration(run.seconds) for run in runs]),
    ]
    for label, cells in rows:
        table.add_row(label, *cells)
    console.print(table)
    for name, run in zip(names[1:], runs[1:], strict=True):
        say(console, _sentence(name, names[0], run))


def _sentence(name: str, first: str, run: ComparedRun) -> str:
    if not run.only_this + run.only_first:
        return f"{name} and {first} are right on exactly the same test images."
    verdict = "significant" if run.p < ALPHA else "not significant"
    return (
        f"{run.only_this} test images only {name} gets right{_classes(run.gained)}, "
        f"{run.only_first} only {first}{_classes(run.lost)}: the difference is {verdict} "
        f"(McNemar's test, {p_equals(run.p)})."
    )


def _classes(counts: Mapping[str, int]) -> str:
    """Return the three most frequent classes: " (most often 9, 4 and 8)"."""
    most = sorted(counts, key=lambda name: -counts[name])[:3]
    return f" (most often {', '.join(most)})" if most else ""
