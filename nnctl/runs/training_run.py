"""Trains a run and records its progress in the run directory.

`TrainingRun` writes the results of each event of the training loop to the run directory, and then
yields the event. After an epoch it writes, in this order: its line of ``metrics.jsonl``,
``best.npz`` if the epoch is the best, ``last.npz``. If the process is killed in between, the run
resumes from the older ``last.npz``: the line is removed, and the epoch is trained again with
exactly the same result.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.build import build_loop, build_network
from nnctl.config import Config, replaced, to_mapping
from nnctl.data.dataset import Dataset, Digits, balanced_subset, hold_out, relabel_binary
from nnctl.diagnosis import Diagnosis, before_any_step, diagnose
from nnctl.errors import (
    DamagedFileError,
    DataError,
    DivergenceError,
    InterruptedRunError,
    NnctlError,
    StorageError,
    UsageError,
)
from nnctl.nn.events import Divergence, EpochDone, Event, Finished
from nnctl.nn.examples import Examples
from nnctl.nn.network import Network
from nnctl.nn.state import Progress
from nnctl.nn.streams import stream
from nnctl.nn.types import Array
from nnctl.runs.checkpoint import Checkpoint, DatasetRecord, load_checkpoint, save_checkpoint
from nnctl.runs.resolve import Notify, differences, find_dataset
from nnctl.runs.run import (
    FORMAT_VERSION,
    Run,
    Which,
    cannot_write,
    config_of,
    require_empty,
    require_same,
)
from nnctl.system import describe_blas, single_threaded_blas, versions


def split(config: Config, dataset: Dataset) -> tuple[Digits, Digits | None]:
    """Return the training and the validation examples of a configuration.

    Raises
    ------
    DataError
        The dataset does not have more examples than are held out for validation.
    """
    assert config.data.validation != "auto"
    if config.data.validation >= len(dataset.training.labels):
        raise DataError(
            f"cannot hold out {config.data.validation:,} of the {len(dataset.training.labels):,} "
            f"examples of {dataset.name}"
        )
    training, validation = hold_out(dataset.training, config.data.validation)
    if config.data.subset and config.data.selection == "first":
        training = Digits(*(array[: config.data.subset] for array in training))
    elif config.data.subset:
        rng = stream(config.training.seed, "subset")
        training = balanced_subset(training, config.data.subset, rng)
    positive = config.data.positive_digit
    if positive is not None:  # after the subset, which is balanced by digit
        training = relabel_binary(training, positive)
        validation = relabel_binary(validation, positive) if validation else None
    return training, validation


class TrainingRun:
    """Trains a run from its beginning or from its last checkpoint, and records its progress.

    Parameters
    ----------
    run : Run
        Run directory to write to.
    config : Config
        Configuration without ``auto`` values; see `nnctl.runs.resolve.resolve_auto`.
    dataset : Dataset
        Dataset of the configuration.
    """

    def __init__(self, run: Run, config: Config, dataset: Dataset) -> None:
        training, validation = split(config, dataset)
        seed = config.training.seed
        self.run = run
        self.config = config
        self._lock = run.lock()
        run.remove_temporaries()
        self.dataset = DatasetRecord(
            name=dataset.name,
            training=len(training.labels),
            validation=0 if validation is None else len(validation.labels),
            pixels=training.images.shape[1],
            hashes=dict(dataset.hashes),
        )
        self.network = build_network(config, training.images.shape[1])
        self.network.initialize(stream(seed, "initialization"))
        self.loop = build_loop(
            config,
            self.network,
            Examples(*training),
            Examples(*validation) if validation else None,
        )
        self.summary: dict[str, Any] = {}
        self.diagnoses: list[Diagnosis] = []
        self._metrics = hashlib.sha256()
        self._seconds_before = 0.0
        self._started = time.perf_counter()

    @classmethod
    def create(cls, run: Run, config: Config, dataset: Dataset) -> TrainingRun:
        """Create a training that starts from the beginning, and write its configuration.

        Raises
        ------
        UsageError
            The directory is not empty, or another process has locked it.
        """
        try:
            training_run = cls(run, config, dataset)
        except DataError:  # the images cannot be used: leave no empty run directory
            with contextlib.suppress(OSError):
                run.directory.rmdir()
            raise
        with training_run._unlocked_on_error():
            # Another process may have trained here since the directory was chosen.
            require_empty(run.directory)
            run.write_config(config)
        return training_run

    @classmethod
    def restart(cls, run: Run, config: Config, dataset: Dataset) -> TrainingRun:
        """Create a training that starts from the beginning and replaces the run's files."""
        training_run = cls(run, config, dataset)
        with training_run._unlocked_on_error():
            run.forget()
            run.write_config(config)
        return training_run

    @classmethod
    def resume(
        cls,
        run: Run,
        requested: Config | None = None,
        epochs: int | None = None,
        *,
        data_dir: Path | None = None,
        notify: Notify,
    ) -> TrainingRun:
        """Create a training that continues from the last checkpoint, or starts without one.

        Parameters
        ----------
        run : Run
            Interrupted run, or a run to extend.
        requested : Config, optional
            Configuration that the user gave; only the number of epochs may differ from the run's.
        epochs : int, optional
            Total number of epochs; that of the run if not given.
        data_dir : Path, optional
            Folder of the datasets.
        notify : callable
            Receives the notices, such as the progress of a download.

        Raises
        ------
        UsageError
            Another setting than the number of epochs differs, or more epochs are complete already.
        DataError
            The dataset has changed, or a checkpoint is damaged.
        """
        config = run.config
        if requested is not None:
            different = differences(config, requested)
            if different:
                raise UsageError(
                    "\n  ".join(
                        [
                            f"cannot resume {run.directory} with another configuration; "
                            "differences:",
                            *different,
                        ]
                    ),
                    hint="Only --epochs can be changed. For other settings, train a new run.",
                )
        if epochs is not None:
            if config.training.steps:
                raise UsageError(
                    f"{run.directory} is a run of {config.training.steps:,} steps; it cannot be "
                    "extended by epochs",
                    hint="Omit --epochs, or train a new run with another value of training.steps.",
                )
            config = replaced(config, {"training.epochs": epochs})
        return cls.from_last_checkpoint(run, config, find_dataset(config.data, data_dir, notify))

    @classmethod
    def from_last_checkpoint(
        cls, run: Run, config: Config, dataset: Dataset, source: str | None = None
    ) -> TrainingRun:
        """Create a training that continues from the last checkpoint; see `resume`.

        Parameters
        ----------
        run, config, dataset
            See `TrainingRun`.
        source : str, optional
            Source of the configuration, for messages, if the run's files must match it in every
            key. By default it is the run's own configuration, perhaps with another number of
            epochs.

        Raises
        ------
        DamagedFileError
            The checkpoints were trained with another configuration, or one is missing.
        """
        training_run = cls(run, config, dataset)
        path = run.checkpoint_path("last")
        with training_run._unlocked_on_error():
            if source is not None:
                require_same(run.config, run.config_path, config, source)
            sha256 = None
            if path.exists():
                saved = training_run._load("last", source)
                training_run._check_best(saved.progress, source)
                training_run._restore(saved, path)
                sha256 = saved.metrics
            else:
                run.require_nothing_done()
            with contextlib.suppress(DamagedFileError):  # a damaged summary is replaced
                _ = run.summary  # raises DataError if a later version of nnctl wrote the run
            metrics = run.keep_metrics_until(training_run.loop.progress.epoch, sha256)
            training_run._metrics.update(metrics.encode())
            run.forget_summary()  # the run has not ended any more
        if config != run.config:
            run.write_config(config)
        return training_run

    def init_from_network(self, network: Network) -> None:
        """Save a network of the same layers as the initial state of the run.

        Raises
        ------
        StorageError
            The run directory cannot be written.
        """
        self.network.parameters.vector[...] = network.parameters.vector
        try:
            self._save("best")
            self._save("last")
        except OSError as error:
            raise cannot_write(self.run.directory, error) from None
        finally:
            self._lock.unlock()

    @contextlib.contextmanager
    def _unlocked_on_error(self) -> Iterator[None]:
        """Unlock the directory if the ``with`` block raises an error."""
        try:
            yield
        except NnctlError:
            self._lock.unlock()
            raise

    @property
    def warning(self) -> str | None:
        """A warning for the user if the run directory cannot be locked; see `DirectoryLock`."""
        return self._lock.warning

    @property
    def done_epochs(self) -> int:
        """The number of complete epochs."""
        return self.loop.progress.epoch

    def events(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Train, record the results, and yield the events of the training loop.

        Parameters
        ----------
        stop : callable
            Called after each event; if it returns True, the training saves its state and ends.

        Raises
        ------
        StorageError
            The run directory cannot be written.
        """
        self._started = time.perf_counter()
        try:
            self._lock.lock()
            try:
                yield from self._train(stop)
            finally:
                self._lock.unlock()
        except (OSError, StorageError) as error:
            directory = self.run.directory
            failure = cannot_write(directory, error) if isinstance(error, OSError) else error
            failure.hint = self._hint_after_failure()
            raise failure from None

    def _train(self, stop: Callable[[], bool]) -> Iterator[Event]:
        """Train, record the results, and yield the events, while the directory is locked."""
        with single_threaded_blas():
            for event in self.loop:
                match event:
                    case EpochDone():
                        self._record(event)
                    case Finished():
                        self._conclude(event)
                yield event
                if isinstance(event, Finished):
                    return
                # A state that is not finite is not saved: the next event is its divergence.
                if stop() and self.loop.stop_reason() is None and self.loop.is_finite():
                    self._save("last")
                    interrupted = Finished("interrupted")
                    self._conclude(interrupted)
                    yield interrupted
                    return

    def raise_unless_finished(self) -> None:
        """Raise an error if the training diverged or was interrupted.

        Raises
        ------
        DivergenceError
            A number was not finite; the message says where, and the hint how to avoid it.
        InterruptedRunError
            The user stopped the training; the hint is the command that resumes it.
        """
        match self.summary["status"]:
            case "diverged":
                raise self._divergence_error(Divergence(**self.summary["divergence"]))
            case "interrupted":
                raise InterruptedRunError(
                    f"interrupted after {self.done_epochs} of {self.config.training.epochs} "
                    "epochs; the state is saved",
                    hint=f"Resume with: {self.run.resume_command}",
                )

    def _hint_after_failure(self) -> str:
        if not self.run.config_path.exists():
            return "The run directory was removed with its saved state: start a new run."
        return (
            "All saved files are intact. When the directory can be written again, resume with: "
            f"{self.run.resume_command}"
        )

    def _divergence_error(self, divergence: Divergence) -> DivergenceError:
        activation = self.config.network.layers[divergence.layer - 1].activation.name
        loss = divergence.last_finite_loss
        before = "" if loss is None else f"; the loss of the previous batch was {loss:.4g}"
        best = self.loop.progress.best
        saved = f"best.npz holds epoch {best.epoch}" if best else "No epoch was completed"
        what = f"{divergence.what} of layer {divergence.layer} ({activation})"
        verb = "is" if divergence.what == "gradient" else "are"
        if before_any_step(divergence):
            cure = "The initial weights are too large for float32: check network.init."
        else:
            cure = (
                "The learning rate is probably too high; try --set "
                f"optimizer.learning_rate={self.config.optimizer.learning_rate / 10:g}."
            )
        return DivergenceError(
            f"training diverged in epoch {divergence.epoch}, batch {divergence.batch}: the "
            f"{what} {verb} not finite{before}",
            hint=f"{cure} {saved}.",
        )

    def _record(self, done: EpochDone) -> None:
        row = dataclasses.asdict(done)
        del row["is_best"]
        self._metrics.update(self.run.append_metrics(row).encode())
        if done.is_best:
            self._save("best")
        self._save("last")

    def _save(self, which: Which) -> None:
        network = self.loop.eval_network if which == "best" else self.network
        save_checkpoint(
            self.run.checkpoint_path(which),
            Checkpoint(
                parameters=network.parameters.vector.astype(np.float32, copy=False),
                optimizer_state=np.concatenate([np.empty(0, np.float32), *self._optimizer_state()]),
                average=self._average(),
                progress=self.loop.progress,
                config=to_mapping(self.config),
                dataset=self.dataset,
                seconds=self._seconds(),
                metrics=self._metrics.hexdigest(),
            ),
        )

    def _optimizer_state(self) -> list[Array]:
        """Return the state of the optimizer, without the averaged parameters."""
        return [array for name, array in self.loop.state.items() if name != "average"]

    def _average(self) -> Array | None:
        """Return the averaged parameters, empty before the first average; None if not used."""
        average = self.loop.state.get("average")
        return average if average is None or self.loop.has_average else average[:0]

    def _load(self, which: Which, source: str | None) -> Checkpoint:
        """Return a checkpoint after checking that it matches the configuration."""
        if source is None:
            return self.run.checkpoint(which)
        path = self.run.checkpoint_path(which)
        saved = load_checkpoint(path)
        require_same(config_of(saved, path), path, self.config, source)
        return saved

    def _check_best(self, progress: Progress, source: str | None) -> None:
        """Check that ``best.npz`` is of the best epoch according to the last checkpoint."""
        path = self.run.checkpoint_path("best")
        try:
            load_checkpoint(path)
        except DataError:  # resuming does not need the file, and the next best epoch replaces it
            return
        best = self._load("best", source).progress
        # best.npz may be newer if the process was killed before it wrote last.npz.
        if best.epoch <= progress.epoch and best.best != progress.best:
            raise DamagedFileError(
                f"{path} is not the checkpoint of the best epoch, which is epoch "
                f"{progress.best.epoch if progress.best else 0} in last.npz",
                hint="Restore the run's own best.npz, or remove the file.",
            )

    def _restore(self, checkpoint: Checkpoint, path: Path) -> None:
        if checkpoint.dataset.hashes != self.dataset.hashes:
            raise DataError(
                f"the files of {self.dataset.name} have changed since {path} was trained"
            )
        arrays, average = self._optimizer_state(), self.loop.state.get("average")
        size = self.network.parameters.vector.size
        sizes = (checkpoint.parameters.size, checkpoint.optimizer_state.size)
        saved_average = checkpoint.average
        if (
            sizes != (size, size * len(arrays))
            or (saved_average is None) != (average is None)
            or (saved_average is not None and saved_average.size not in (0, size))
        ):
            raise DataError(f"{path} does not fit {self.run.config_path}: the sizes differ")
        if checkpoint.progress.epoch > self.loop.epochs:
            raise UsageError(
                f"{self.run.directory} already has {checkpoint.progress.epoch} complete epochs; "
                f"it cannot end after {self.loop.epochs}"
            )
        if not self._fits(checkpoint.progress):
            raise DamagedFileError(
                f"{path} is damaged: its training state does not fit the dataset and batch size"
            )
        self.network.parameters.vector[...] = checkpoint.parameters
        if arrays:
            for array, saved in zip(
                arrays, np.split(checkpoint.optimizer_state, len(arrays)), strict=True
            ):
                array[...] = saved
        if average is not None and saved_average is not None and saved_average.size:
            average[...] = saved_average
        self.loop.progress = checkpoint.progress
        self._seconds_before = checkpoint.seconds

    def _fits(self, progress: Progress) -> bool:
        """Return whether a checkpoint's state is possible in this training."""
        examples, best = self.dataset.training, progress.best
        validated = self.dataset.validation > 0
        return (
            progress.batch <= math.ceil(examples / self.loop.batches.batch_size)
            and progress.correct <= examples
            and (
                best is None
                or (best.val_accuracy is not None) == (best.val_loss is not None) == validated
            )
        )

    def _conclude(self, finished: Finished) -> None:
        best = self.loop.progress.best
        rows = self.run.metrics
        last = rows[-1] if rows else {}
        self.summary = {
            "format_version": FORMAT_VERSION,
            "status": finished.reason,
            "epochs": self.loop.progress.epoch,
            "best_epoch": best.epoch if best else None,
            "best_val_accuracy": best.val_accuracy if best else None,
            "best_val_loss": best.val_loss if best else None,
            "final_train_loss": last.get("train_loss"),
            "final_train_accuracy": last.get("train_accuracy"),
            "dataset": self.dataset.model_dump(),
            "seed": self.config.training.seed,
            "parameters": self.network.parameters.vector.size,
            "versions": versions(),
            "blas": describe_blas(),
            "threads": self.loop.batches.team.size,
            "seconds": round(self._seconds(), 3),
            "run_dir": str(self.run.directory),
        }
        if finished.divergence:
            self.summary["divergence"] = dataclasses.asdict(finished.divergence)
        self.diagnoses = diagnose(self.config, rows, self.network, finished.divergence)
        self.summary["diagnoses"] = [dataclasses.asdict(one) for one in self.diagnoses]
        self.run.write_summary(self.summary)

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started
