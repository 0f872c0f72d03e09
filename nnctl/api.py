"""Python API: train, evaluate, load and save; it does the same as the command line."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnctl.analysis import evaluation as evaluations
from nnctl.analysis.evaluation import Evaluation, Split
from nnctl.config import Document, Override, read_config
from nnctl.errors import UsageError
from nnctl.files import expand_home
from nnctl.nn.events import BatchesDone as BatchesDone
from nnctl.nn.events import EpochDone as EpochDone
from nnctl.nn.events import Event
from nnctl.nn.events import Finished as Finished
from nnctl.runs.pretrained import Network as Network
from nnctl.runs.pretrained import save_network
from nnctl.runs.resolve import Notice, Notify, find_dataset, resolve_auto, resolve_config
from nnctl.runs.run import Run, Which, named_directory
from nnctl.runs.training_run import TrainingRun
from nnctl.signals import stop_on_signals
from nnctl.sweeps.listing import named_run


def train(
    config: str | Path | Mapping[str, Any] | None = None,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    dataset: str | None = None,
    subset: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    settings: Mapping[str, Any] | None = None,
    run_dir: str | Path | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    max_time: float | None = None,
    resume: Run | str | Path | None = None,
    progress: bool = False,
    callback: Callable[[Event], object] | None = None,
) -> Run:
    """Train a network, and return its run.

    Parameters
    ----------
    config : str, Path or mapping
        Path of a YAML file, name of a preset, or the content of a file as a mapping. Optional with
        `resume`.
    epochs, seed, dataset, subset, lr, batch_size : optional
        The same as the options of ``nnctl train``.
    settings : mapping, optional
        Other values by dotted key: ``{"optimizer.learning_rate": 0.1}``.
    run_dir : str or Path, optional
        Run directory, new or empty.
    name : str, optional
        Name of the new run directory in `runs_dir`.
    runs_dir : str or Path
        Parent of a new run directory, if `run_dir` is not given.
    max_time : float, optional
        Seconds after which the training saves its state and ends.
    resume : Run, str or Path, optional
        Run to continue, by its directory or ``"latest"``, with the same result as without the
        interruption. A larger number of `epochs` extends a complete run; other settings cannot
        be changed.
    progress : bool
        Whether to print the progress on stderr, as ``nnctl train`` does. By default nothing is
        printed.
    callback : callable, optional
        Called with each event after it is recorded: `nnctl.BatchesDone` several times per epoch,
        `nnctl.EpochDone` with the metrics of an epoch, and `nnctl.Finished` last. If it raises an
        error, the training ends with it, and can be resumed from the last complete epoch.

    Returns
    -------
    Run
        The run; its ``history`` is the metrics of each epoch, its ``summary`` the result.

    Raises
    ------
    nnctl.errors.ConfigError
        The configuration has mistakes; the error lists all of them.
    nnctl.errors.UsageError
        The run directory exists, `name` is not a name, or `resume` is not a run that these
        settings can continue.
    nnctl.errors.DataError
        The dataset is not available, or a file of the run is damaged.
    nnctl.errors.DivergenceError
        The training diverged; its epochs so far are saved.
    nnctl.errors.InterruptedRunError
        Ctrl-C was pressed; the state is saved, and `resume` continues.

    Examples
    --------
    >>> import nnctl
    >>> run = nnctl.train("smoke", epochs=1, progress=True)  # doctest: +SKIP
    >>> run = nnctl.train(resume=run, epochs=2)  # doctest: +SKIP
    >>> nnctl.evaluate(run).accuracy > 0.8  # doctest: +SKIP
    True
    """
    options = {
        "training.epochs": epochs,
        "training.seed": seed,
        "data.dataset": dataset,
        "data.subset": subset,
        "optimizer.learning_rate": lr,
        "training.batch_size": batch_size,
    }
    named = {key: value for key, value in options.items() if value is not None}
    overrides = _overrides({**(settings or {}), **named})
    if name is not None and run_dir:
        raise UsageError("name and run_dir cannot be combined")
    if max_time is not None and not isinstance(max_time, int | float):
        raise UsageError(f"max_time must be a number of seconds, got {max_time!r}")
    if resume is not None and (name is not None or run_dir):
        raise UsageError("name and run_dir cannot be combined with resume, which trains in its run")
    runs_dir = expand_home(runs_dir)
    if name is not None:
        run_dir = named_directory(name, runs_dir)
    resumed = None if resume is None else _open_run(resume, one_run=False)
    if config is None:
        if resumed is None:
            raise UsageError("expected a configuration, such as 'sigmoid', or resume=RUN")
        config = resumed.config_path
    if isinstance(config, Mapping):
        document, stem = Document("the configuration", _plain(config)), "run"
    else:
        document, stem = read_config(Path(config)), Path(config).stem
    requested = resolve_config(document, overrides)
    with _downloads(progress=progress) as notify:
        digits = find_dataset((resumed.config if resumed else requested).data, notify)
        resolved = None if resumed else resolve_auto(requested, digits, notify)
    with stop_on_signals() as stop:
        if resolved is None:
            assert resumed is not None
            extends = any(override.key == "training.epochs" for override in overrides)
            total = requested.training.epochs if extends else "auto"
            training = TrainingRun.resume(resumed, digits, requested, total)
        else:
            run = Run.create_at(expand_home(run_dir)) if run_dir else Run.create(stem, runs_dir)
            training = TrainingRun.create(run, resolved, digits)
        if training.lock.warning and not progress:
            warnings.warn(training.lock.warning, stacklevel=2)
        # Closed at once if the callback raises an error, so that the run is unlocked.
        events = contextlib.closing(training.events(stop, max_time))
        with _showing(training, progress=progress) as show, events as trained:
            for event in trained:
                show(event)
                if callback:
                    callback(event)
    training.raise_unless_finished()
    return training.run


def evaluate(
    run: Run | str | Path,
    *,
    split: Split = "test",
    checkpoint: Which = "best",
    dataset: str | None = None,
    gains: Sequence[float] = (),
) -> Evaluation:
    """Evaluate a trained network.

    The result of the best network on the test set of its own dataset is recorded in the run
    directory, as by ``nnctl eval``: `Run.test_result` and ``nnctl runs`` show it.

    Parameters
    ----------
    run : Run, str or Path
        Run or its directory; see `load`.
    split : str
        ``test``, or the run's own ``validation`` or ``train`` split.
    checkpoint : str
        ``best`` for the best epoch, or ``last``.
    dataset : str, optional
        Another dataset than the run's, for the test split only.
    gains : sequence of float
        Factors for all weights and biases; the network is also evaluated with each of them.

    Returns
    -------
    Evaluation
        ``accuracy`` (fraction of correct predictions, from 0 to 1), ``loss`` (mean), ``per_class``,
        ``confusion`` (array of int, shape (classes, classes); the rows are the true classes) and
        others.

    Raises
    ------
    nnctl.errors.UsageError
        The directory is not a run, the dataset does not fit the network, or the run does not have
        this split.
    nnctl.errors.DataError
        The checkpoint or the dataset is not available.
    """
    opened = _open_run(run)
    evaluation = evaluations.evaluate(
        opened,
        split_name=split,
        checkpoint=checkpoint,
        dataset_name=dataset,
        gains=gains,
        notify=_warn,
    )
    if evaluation.is_test_result:
        opened.record_evaluation(evaluation.record())
    return evaluation


def load(directory: str | Path) -> Run:
    """Return the run in a directory; its method `predict` classifies arrays of images.

    Parameters
    ----------
    directory : str or Path
        Run directory; the directory of a sweep, which stands for its best trial; or ``"latest"``
        for the newest run or sweep in ``runs``.

    Raises
    ------
    nnctl.errors.UsageError
        The directory does not contain a run.
    """
    return _open_run(directory)


def save(
    network: Network,
    run_dir: str | Path,
    *,
    dataset: str = "mnist",
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Save a network from another source as a run; see `Network.from_arrays`.

    The run has no epochs yet. It can be evaluated, exported, and trained further:
    ``train(resume=run, epochs=10)``.

    Parameters
    ----------
    network : Network
        Network with its weights.
    run_dir : str or Path
        Run directory, new or empty.
    dataset : str
        Dataset on which the network was trained.
    settings : mapping, optional
        Other values of the configuration by dotted key: ``{"data.positive_digit": 9}``.

    Raises
    ------
    nnctl.errors.UsageError
        The network does not fit the dataset, or the directory is not empty.
    nnctl.errors.DataError
        The dataset is not available.

    Examples
    --------
    >>> import nnctl
    >>> layers = [w1, w2], [b1, b2], ["sigmoid", "softmax"]  # doctest: +SKIP
    >>> network = nnctl.Network.from_arrays(*layers)  # doctest: +SKIP
    >>> nnctl.evaluate(nnctl.save(network, "runs/book")).accuracy  # doctest: +SKIP
    0.9352
    """
    return save_network(
        network, expand_home(run_dir), dataset, _overrides(settings or {}), notify=_warn
    )


def _open_run(run: Run | str | Path, *, one_run: bool = True) -> Run:
    """Return a run from its directory, or from another name that the command line takes."""
    if isinstance(run, Run):
        return run
    kind: Literal["run"] | None = None if one_run else "run"
    return Run.open(named_run(expand_home(run), one_run=one_run, kind=kind))


@contextlib.contextmanager
def _downloads(*, progress: bool) -> Iterator[Notify]:
    """Yield the function that receives notices: it prints them, or warns of the important ones."""
    if not progress:
        yield _warn
        return
    from nnctl.views.download import DownloadView  # rich takes long to import

    with DownloadView(quiet=False) as view:
        yield view


@contextlib.contextmanager
def _showing(training: TrainingRun, *, progress: bool) -> Iterator[Callable[[Event], object]]:
    """Yield the function that shows an event, if there is progress to print."""
    if not progress:
        yield lambda _: None
        return
    from nnctl.views.training import TrainingView

    with TrainingView(training, quiet=False) as view:
        yield view.show


def _overrides(values: Mapping[str, Any]) -> list[Override]:
    """Return values by dotted key as overrides of a configuration."""
    return [Override(key, _plain(value), f"{key}={value}") for key, value in values.items()]


def _plain(value: Any) -> Any:
    """Return a copy of a value of a configuration, with Python's numbers instead of NumPy's."""
    match value:
        case np.generic():
            return value.item()
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
    return copy.deepcopy(value)


def _warn(notice: Notice) -> None:
    """Warn if another dataset than configured is used, or an unusual number of threads."""
    if isinstance(notice, str):
        warnings.warn(notice, stacklevel=4)
