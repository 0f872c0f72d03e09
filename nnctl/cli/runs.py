"""``nnctl runs``: list, sort and remove runs and sweeps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from nnctl.cli.options import FOLDER, json_option, print_json
from nnctl.errors import UsageError, storage_errors
from nnctl.runs.run import RUNS
from nnctl.sweeps.journal import is_sweep
from nnctl.sweeps.listing import PRUNED_STATES, ListedRun, is_locked, list_runs
from nnctl.views.runs import show_runs, total_size

_SORT_KEYS = {
    "name": "name",
    "state": "state",
    "validation": "val_accuracy",
    "test": "test_accuracy",
    "epochs": "epochs",
    "time": "seconds",
    "size": "bytes",
    "changed": "changed",
}
_BEST_FIRST = ("validation", "test")


@click.command(
    epilog="Example: nnctl runs --sort test",
    help="""List the runs and sweeps below DIR, by default runs.

    A sweep is shown with its best trial; give its own directory to list its trials. The test
    accuracy is known after nnctl eval. With --prune, removes runs whose training did not end:
    interrupted, diverged or killed ones. Sweeps and damaged runs are left.
    """,
)
@click.argument("folder", metavar="[DIR]", type=FOLDER, default=RUNS)
@click.option(
    "--sort",
    "sort_by",
    type=click.Choice([*_SORT_KEYS]),
    default="changed",
    help="Column to sort by; accuracies are sorted from the highest to the lowest.",
)
@click.option("--prune", is_flag=True, help="Remove runs that did not end, after asking.")
@click.option("--yes", is_flag=True, help="With --prune: remove without asking.")
@json_option
def runs(folder: Path, sort_by: str, prune: bool, yes: bool, as_json: bool) -> None:
    if yes and not prune:
        raise click.UsageError("--yes needs --prune")
    listed = list_runs(folder)
    if prune:
        listed = [entry for entry in listed if entry.kind == "run" and entry.state in PRUNED_STATES]
    known = [entry for entry in listed if _value(entry, sort_by) is not None]
    unknown = [entry for entry in listed if _value(entry, sort_by) is None]
    known.sort(key=lambda entry: _value(entry, sort_by), reverse=sort_by in _BEST_FIRST)
    ordered = [*known, *unknown]
    if as_json:
        print_json({"runs": [entry.to_json() for entry in ordered]})
    else:
        show_runs(ordered, folder)
    if prune and ordered:
        _prune(ordered, folder, yes=yes)


def _value(entry: ListedRun, sort_by: str) -> Any:
    return getattr(entry, _SORT_KEYS[sort_by])


def _prune(entries: list[ListedRun], folder: Path, *, yes: bool) -> None:
    """Remove runs, unless the user declines or a sweep still needs them."""
    if is_sweep(folder):
        raise UsageError(
            f"{folder} is a sweep, which needs its trials",
            hint="Remove the whole directory if you do not need the sweep.",
        )
    size = total_size(entries)
    what = "this run" if len(entries) == 1 else f"these {len(entries)} runs"
    if not yes and not click.confirm(f"Remove {what} with all files, {size}?", err=True):
        click.echo("Nothing was removed.", err=True)
        return
    removed = 0
    for entry in entries:
        if is_locked(entry.path):  # its training was resumed in the meantime
            continue
        with storage_errors(entry.path):
            shutil.rmtree(entry.path)
        removed += 1
    click.echo(f"Removed: {removed} of {len(entries)} runs.", err=True)
