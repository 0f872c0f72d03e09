"""Lists the runs and sweeps below a folder, and finds the newest one and the best of a sweep."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from nnctl.config import Config
from nnctl.errors import NnctlError, StorageError, UsageError
from nnctl.nn.events import EpochMetrics
from nnctl.runs.history import epochs_of
from nnctl.runs.lock import LOCK_NAME, DirectoryLock
from nnctl.runs.run import RUNS, Run
from nnctl.runs.summary import summarize_layers
from nnctl.sweeps.journal import NAME as JOURNAL_NAME
from nnctl.sweeps.journal import is_sweep
from nnctl.sweeps.state import SweepState
from nnctl.text import shell_command

State = Literal[
    "finished",
    "stopped_early",
    "interrupted",
    "diverged",
    "training",
    "unfinished",
    "saved",
    "damaged",
]

LATEST = "latest"
"""Word that stands for the newest run or sweep."""

_WRITTEN = frozenset({"summary.json", "last.npz", "metrics.jsonl", LOCK_NAME})
"""Files that nnctl writes next to ``config.yaml``."""
PRUNED_STATES = ("interrupted", "diverged", "unfinished")
"""States of the runs that `nnctl runs --prune` removes.

Damaged ones are left: a later version of nnctl or another program may have written them.
"""


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """A run or a sweep in a list. For a sweep, the metrics are those of its best trial.

    Parameters
    ----------
    path : Path
        Its directory.
    kind : "run" or "sweep"
        What it is.
    state : str
        How the training ended; ``training`` while a process trains it, ``unfinished`` if it was
        killed, ``saved`` for a network of `nnctl.save` that was not trained, ``damaged`` if its
        files cannot be read.
    changed : float
        Time of its last change, in seconds since 1970.
    bytes : int
        Size of its files.
    val_accuracy, test_accuracy : float, optional
        Best validation accuracy; and accuracy on the test set, if ``nnctl eval`` measured it.
    epochs, planned_epochs : int, optional
        Number of complete epochs, and of all epochs; for a sweep, of trials.
    seconds : float, optional
        Wall time of the training.
    dataset, network : str, optional
        Dataset, and sizes and activations of the layers.
    seed : int, optional
        Random seed.
    problem : str
        Why it is damaged.
    """

    path: Path
    kind: Literal["run", "sweep"]
    state: State
    changed: float
    bytes: int
    val_accuracy: float | None = None
    test_accuracy: float | None = None
    epochs: int | None = None
    planned_epochs: int | None = None
    seconds: float | None = None
    dataset: str | None = None
    network: str | None = None
    seed: int | None = None
    problem: str = ""

    @property
    def name(self) -> str:
        """The name of the directory."""
        return self.path.resolve().name

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-compatible values."""
        return {"name": self.name, **asdict(self), "path": str(self.path)}


def list_runs(folder: Path) -> list[ListedRun]:
    """Return the runs and sweeps below a folder, the oldest first.

    The trials of a sweep are listed only if the folder is the sweep itself.

    Raises
    ------
    UsageError
        The folder does not exist.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: folder not found", hint="Train a first run: nnctl train smoke")
    listed = [_listed(path) for path in find_runs(folder)]
    return sorted(listed, key=lambda entry: (entry.changed, entry.path))


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the directories of the runs and sweeps below a folder; see `list_runs`."""
    for directory, folders, files in os.walk(folder):
        path = Path(directory)
        if _is_listed(files) and not (path == folder and is_sweep(path)):
            folders.clear()
            yield path
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))


def _is_listed(files: list[str]) -> bool:
    """Return whether a directory with these files is a run or a sweep."""
    return JOURNAL_NAME in files or ("config.yaml" in files and not _WRITTEN.isdisjoint(files))


def find_latest(folder: Path = RUNS, kind: Literal["run", "sweep"] | None = None) -> Path:
    """Return the directory of the run or sweep below a folder that has changed last.

    Parameters
    ----------
    folder : Path
        Folder to search.
    kind : "run" or "sweep", optional
        What to search; either by default.

    Raises
    ------
    UsageError
        There is none.
    """
    found = (
        path for path in find_runs(folder) if kind is None or is_sweep(path) == (kind == "sweep")
    )
    newest = max(found, key=_changed, default=None)
    if newest is None:
        example = "sweep sweep-fast" if kind == "sweep" else "train smoke"
        raise UsageError(
            f"no {kind or 'run'} found in {folder}, so 'latest' has no meaning yet",
            hint=f"Train one, for example: nnctl {example}",
        )
    return newest


def named_run(
    path: Path, *, one_run: bool = True, kind: Literal["run", "sweep"] | None = None
) -> Path:
    """Return the directory of the run that a path names.

    Parameters
    ----------
    path : Path
        Directory of a run or a sweep; or ``latest``, the newest one in ``runs``.
    one_run : bool
        Whether a sweep stands for its best trial.
    kind : "run" or "sweep", optional
        What ``latest`` stands for; either by default.

    Raises
    ------
    UsageError
        No run exists yet, or the sweep has no best trial yet.
    """
    if str(path) == LATEST and not path.exists():
        path = find_latest(kind=kind)
    return best_run(path) if one_run and is_sweep(path) else path


def best_run(directory: Path) -> Path:
    """Return the directory of the best trial of a sweep, the one that ``nnctl sweep`` prints last.

    Raises
    ------
    UsageError
        No setting was trained with all its seeds yet.
    """
    settings = SweepState.read(directory).settings
    if not settings:
        raise UsageError(
            f"the sweep {directory} has no best trial yet: no setting is complete",
            hint=f"See its trials with: {shell_command('nnctl', 'runs', directory)}",
        )
    return settings[0].best.run_dir


def is_locked(directory: Path) -> bool:
    """Return whether another process trains in a directory; False where that cannot be known."""
    if not (directory / LOCK_NAME).exists():
        return False
    try:
        DirectoryLock(directory).unlock()
    except UsageError:
        return True
    except StorageError:
        return False
    return False


def _listed(path: Path) -> ListedRun:
    kind: Literal["run", "sweep"] = "sweep" if is_sweep(path) else "run"
    try:
        about = _of_sweep(path) if kind == "sweep" else _of_run(path)
    except NnctlError as error:
        about = {"state": "damaged", "problem": error.message}
    return ListedRun(path=path, kind=kind, changed=_changed(path), bytes=_size(path), **about)


def _size(path: Path) -> int:
    """Return the size of all files below a directory, in bytes."""
    size = 0
    for directory, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):  # a training replaces its files
                size += (Path(directory) / name).stat().st_size
    return size


def _changed(path: Path) -> float:
    """Return the time of the last change of what is written while a run or a sweep trains."""
    times = [0.0]
    for name in (JOURNAL_NAME, "metrics.jsonl", "last.npz", "summary.json"):
        with contextlib.suppress(OSError):  # a training replaces its files
            times.append((path / name).stat().st_mtime)
    return max(times)


def _of_run(path: Path) -> dict[str, Any]:
    run = Run.open(path)
    summary, tested = run.summary, run.test_result
    about: dict[str, Any] = {"test_accuracy": tested.accuracy if tested else None}
    if summary and summary.planned_epochs is not None:
        about |= {  # reading the configuration takes ten times as long as the summary
            "planned_epochs": summary.planned_epochs,
            "dataset": summary.dataset.name,
            "network": summary.network,
            "seed": summary.seed,
        }
    else:
        about |= _of_config(run.config)
    if summary:
        return about | {
            "state": summary.status,
            "epochs": summary.epochs,
            "val_accuracy": summary.best_val_accuracy,
            "seconds": summary.seconds,
        }
    history: list[EpochMetrics] = run.history
    accuracies = [epoch.val_accuracy for epoch in history if epoch.val_accuracy is not None]
    is_saved = not history and run.checkpoint_path("best").exists()
    return about | {
        "state": "training" if is_locked(path) else "saved" if is_saved else "unfinished",
        "epochs": epochs_of(history),
        "val_accuracy": max(accuracies, default=None),
        "seconds": sum(epoch.seconds for epoch in history),
    }


def _of_sweep(path: Path) -> dict[str, Any]:
    state = SweepState.read(path)
    about: dict[str, Any] = {}
    if settings := state.settings:
        best = settings[0].best
        tested = Run(best.run_dir).test_result
        about = _of_config(state.config(best.trial)) | {
            "val_accuracy": best.val_accuracy,
            "test_accuracy": tested.accuracy if tested else None,
        }
    ended = "unfinished" if state.left else "finished"
    return about | {
        "state": "training" if is_locked(path) else ended,
        "epochs": state.total - state.left,
        "planned_epochs": state.total,
        "seconds": sum(row.seconds for row in state.results.values()),
    }


def _of_config(config: Config) -> dict[str, Any]:
    return {
        "planned_epochs": config.training.epochs,
        "dataset": config.data.dataset,
        "network": summarize_layers(config),
        "seed": config.training.seed,
    }
