"""Trains a run and records its progress in the run directory.

`TrainingRun` writes the results of each event of the training loop to the run directory, and then
yields the event. After an epoch it writes, in this order: its line of ``metrics.jsonl``, the new
lines of ``steps.jsonl``, ``best.npz`` if the epoch is the best, ``last.npz``. If the process is
killed in between, the run resumes from the older ``last.npz``: the lines are removed, and the epoch
is trained again with exactly the same result. With ``validate_every``, only some epochs are
recorded; in between, ``last.npz`` is written every `SAVE_EVERY` seconds, also within an epoch.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from nnctl.build import build_loop, build_network
from nnctl.config import Config, replaced
from nnctl.data.dataset import Dataset
from nnctl.diagnosis.network import diagnose, is_initial
from nnctl.errors import (
    DamagedFileError,
    DataError,
    DivergenceError,
    InterruptedRunError,
    NnctlError,
    StorageError,
    UsageError,
    storage_errors,
)
from nnctl.files import append_lines, remove_temporaries
from nnctl.nn.events import BatchesDone, Divergence, EpochDone, Event, Finished
from nnctl.nn.network import Network
from nnctl.nn.state import Progress
from nnctl.nn.streams import stream
from nnctl.nn.types import Array
from nnctl.runs.checkpoint import Checkpoint, DatasetRecord, load_checkpoint, save_checkpoint
from nnctl.runs.data_problems import find_data_problems
from nnctl.runs.differences import differences, require_same
from nnctl.runs.history import step_lines
from nnctl.runs.initial import InitialNetwork
from nnctl.runs.monitor import measure, read_monitored
from nnctl.runs.resolve import split
from nnctl.runs.run import Run, Which, require_empty, restore_statistics
from nnctl.runs.summary import Summary, summarize_layers
from nnctl.system import describe_blas, single_threaded_blas, versions

SAVE_EVERY = 30.0
"""Seconds after which ``last.npz`` is saved if not every epoch is validated and saved."""


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
        self._monitored = read_monitored(config, dataset, training)
        seed = config.training.seed
        self.run = run
        self.config = config
        self._dataset = dataset
        self.lock = run.lock()
        remove_temporaries(run.directory)
        self.dataset = DatasetRecord(
            name=dataset.name,
            training=len(training.labels),
            validation=0 if validation is None else len(validation.labels),
            pixels=training.inputs.shape[1],
            hashes=dict(dataset.hashes),
            classes=list(dataset.class_names),
        )
        self.network = build_network(config, training.inputs.shape[1])
        self.network.initialize(stream(seed, "initialization"))
        self.loop = build_loop(config, self.network, training, validation)
        self._step_losses: dict[int, float] = {}
        self._summary: Summary | None = None
        self._timed_out = False
        self._metrics = hashlib.sha256()
        self._seconds_before = 0.0
        self._started = self._saved_at = time.perf_counter()

    @classmethod
    def create(
        cls,
        run: Run,
        config: Config,
        dataset: Dataset,
        initial: InitialNetwork | None = None,
        *,
        replace_files: bool = False,
    ) -> TrainingRun:
        """Create a training that starts from the beginning, and write its configuration.

        Parameters
        ----------
        run, config, dataset
            See `TrainingRun`.
        initial : InitialNetwork, optional
            Network of another run, whose layers replace the initial ones where they fit.
        replace_files : bool
            Whether to remove the files of an earlier training from the directory.

        Raises
        ------
        UsageError
            The directory is not empty, another process has locked it, or no layer fits.
        """
        try:
            training_run = cls(run, config, dataset)
            with training_run._unlocked_on_error():
                record = initial.copy_to(training_run.network) if initial else None
                if replace_files:
                    run.clear()
                else:  # another process may have trained here since the directory was chosen
                    require_empty(run.directory)
                if record:
                    # In this order, a run that is killed here cannot be resumed with other weights.
                    run.write_record(run.init_path, record)
                run.write_config(config)
                if record:
                    training_run._save("last")
        except (DataError, UsageError):  # nothing can be trained: leave no empty run directory
            with contextlib.suppress(OSError):
                run.directory.rmdir()
            raise
        return training_run

    @classmethod
    def resume(
        cls,
        run: Run,
        dataset: Dataset,
        requested: Config | None = None,
        epochs: int | Literal["auto"] = "auto",
    ) -> TrainingRun:
        """Create a training that continues from the last checkpoint, or starts without one.

        Parameters
        ----------
        run : Run
            Interrupted run, or a run to extend.
        dataset : Dataset
            Dataset of the run.
        requested : Config, optional
            Configuration that the user gave; only the number of epochs may differ from the run's.
        epochs : int or "auto"
            Total number of epochs; ``auto`` is that of the run.

        Raises
        ------
        UsageError
            Another setting than the number of epochs differs, or more epochs are complete already.
        DataError
            The dataset has changed, or a checkpoint is damaged.
        """
        config = run.config
        if requested and (different := differences(config, requested)):
            title = f"cannot resume {run.directory} with another configuration; differences:"
            raise UsageError(
                "\n  ".join([title, *different]),
                hint="Only --epochs can be changed. For other settings, train a new run.",
            )
        if epochs != "auto":
            if config.training.steps:
                raise UsageError(
                    f"{run.directory} is a run of {config.training.steps:,} steps; it cannot be "
                    "extended by epochs",
                    hint="Omit --epochs, or train a new run with another value of training.steps.",
                )
            config = replaced(config, {"training.epochs": epochs})
        return cls.from_last_checkpoint(run, config, dataset)

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
                require_same(run.config, run.config_path, config, source, exact=True)
            sha256 = None
            if path.exists():
                checkpoint = load_checkpoint(path)
                training_run._require_config(checkpoint, path, source)
                training_run._check_best(checkpoint.progress, source)
                training_run._restore(checkpoint, path)
                sha256 = checkpoint.metrics
            else:
                run.require_nothing_done()
            with contextlib.suppress(DamagedFileError):  # a damaged summary is replaced
                _ = run.summary  # raises DataError if a later version of nnctl wrote the run
            metrics = run.truncate_history(training_run.loop.progress.measured, sha256)
            training_run._metrics.update(metrics.encode())
            run.truncate_step_losses(training_run.loop.steps_done)
            run.remove_summary()  # the run has not ended any more
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
        self.network.statistics[...] = network.statistics
        with self.lock, storage_errors(self.run.directory):
            self._save("best")
            self._save("last")

    @contextlib.contextmanager
    def _unlocked_on_error(self) -> Iterator[None]:
        """Unlock the directory if the ``with`` block raises an error."""
        try:
            yield
        except NnctlError:
            self.lock.unlock()
            raise

    @property
    def summary(self) -> Summary:
        """The summary of the training, after its last event."""
        assert self._summary is not None
        return self._summary

    def events(
        self, stop: Callable[[], bool], max_seconds: float | None = None
    ) -> Generator[Event, None, None]:
        """Train, record the results, and yield the events of the training loop.

        Parameters
        ----------
        stop : callable
            Called after each event; if it returns True, the training saves its state and ends.
        max_seconds : float, optional
            Time after which it does the same. This is a planned end, and not an interruption.

        Raises
        ------
        StorageError
            The run directory cannot be written.
        """
        self._started = time.perf_counter()
        with self._hint_to_resume(), self.lock:
            events, stopping = iter(self.loop), False
            limit = math.inf if max_seconds is None else max_seconds
            while self._summary is None:
                # The caller, which runs between the events, may use all threads of the BLAS.
                with single_threaded_blas():
                    event = self._next_event(events, stopping=stopping)
                yield event
                if self._summary is None:
                    requested = stop()
                    elapsed = time.perf_counter() - self._started
                    self._timed_out = elapsed >= limit and not requested
                    stopping = requested or self._timed_out

    def _next_event(self, events: Iterator[Event], *, stopping: bool) -> Event:
        """Return the next event of the training loop after its results are recorded."""
        # A state that is not finite is not saved: the next event is its divergence.
        if stopping and self.loop.stop_reason() is None and self.loop.is_finite():
            self._save("last")
            event: Event = Finished("interrupted")
        else:
            event = next(events)
        match event:
            case BatchesDone():
                self._step_losses |= event.losses
                if self._is_save_due():
                    self._save("last")
            case EpochDone():
                network, batches = self.loop.eval_network, self.loop.batches
                examples, threads = batches.examples, batches.team.size
                figures = measure(self.config, network, examples, self._monitored, threads)
                event = replace(event, monitor=figures)
                self._metrics.update(self.run.append_metrics(event).encode())
                if event.is_best:
                    self._save("best")
                self._save("last")
            case Finished():
                self._write_step_losses()  # of a training that diverged, up to that block
                self._summary = self._summarize(event)
                self.run.write_summary(self._summary)
        return event

    @contextlib.contextmanager
    def _hint_to_resume(self) -> Iterator[None]:
        """Add how to continue to an error of a ``with`` block that cannot write."""
        try:
            with storage_errors(self.run.directory):
                yield
        except StorageError as error:
            error.hint = (
                "All saved files are intact. When the directory can be written again, resume with: "
                f"{self.run.resume_command}"
                if self.run.config_path.exists()
                else "The run directory was removed with its saved state: start a new run."
            )
            raise

    def raise_unless_finished(self) -> None:
        """Raise an error if the training diverged or was interrupted.

        Raises
        ------
        DivergenceError
            A number was not finite; the message says where, and the hint how to avoid it.
        InterruptedRunError
            The user stopped the training; the hint is the command that resumes it.
        """
        summary = self.summary
        if summary.divergence:
            raise self._divergence_error(summary.divergence)
        if summary.status == "interrupted" and not summary.time_limit:
            raise InterruptedRunError(
                f"interrupted after {summary.epochs} of {self.config.training.epochs} epochs; "
                "the state is saved",
                hint=f"Resume with: {self.run.resume_command}",
            )

    def _divergence_error(self, divergence: Divergence) -> DivergenceError:
        activation = self.config.network.layers[divergence.layer - 1].activation.name
        loss = divergence.last_finite_loss
        before = "" if loss is None else f"; the loss of the previous batch was {loss:.4g}"
        best = self.loop.progress.best
        saved = f"best.npz holds epoch {best.epoch}" if best else "No epoch was recorded"
        what = f"{divergence.what} of layer {divergence.layer} ({activation})"
        verb = "is" if divergence.what == "gradient" else "are"
        if is_initial(divergence):
            cure = "The initial weights are too large for float32: check network.init."
        else:
            rate = self.config.optimizer.learning_rate
            cure = (
                "The learning rate is probably too high; try "
                f"--lr {rate / 10:g}, or {rate / 100:g}."
            )
        return DivergenceError(
            f"training diverged in epoch {divergence.epoch}, batch {divergence.batch}: the "
            f"{what} {verb} not finite{before}",
            hint=f"{cure} {saved}.",
        )

    def _is_save_due(self) -> bool:
        """Return whether the state is to be saved before the next measured epoch."""
        return (
            self.config.training.validate_every != 1
            and time.perf_counter() - self._saved_at >= SAVE_EVERY
            and self.loop.is_finite()
        )

    def _write_step_losses(self) -> None:
        if self._step_losses:
            append_lines(self.run.steps_path, step_lines(self._step_losses))
            self._step_losses = {}

    def _save(self, which: Which) -> None:
        self._saved_at = time.perf_counter()
        self._write_step_losses()  # first: a checkpoint's steps are all in the file
        network = self.loop.eval_network if which == "best" else self.network
        average = self.loop.state.get("average")
        save_checkpoint(
            self.run.checkpoint_path(which),
            Checkpoint(
                parameters=network.parameters.vector.astype(np.float32, copy=False),
                optimizer_state=np.concatenate([np.empty(0, np.float32), *self._optimizer_state()]),
                # Empty before the first average.
                average=average if average is None or self.loop.has_average else average[:0],
                progress=self.loop.progress,
                config=self.config,
                dataset=self.dataset,
                seconds=self._seconds(),
                metrics=self._metrics.hexdigest(),
                statistics=network.statistics if network.statistics.size else None,
            ),
        )

    def _optimizer_state(self) -> list[Array]:
        """Return the state of the optimizer, without the averaged parameters."""
        return [array for name, array in self.loop.state.items() if name != "average"]

    def _require_config(self, checkpoint: Checkpoint, path: Path, source: str | None) -> None:
        """Check that a checkpoint was trained with the run's or, with a source, this config."""
        if source is None:
            self.run.require_config(checkpoint.config, path)
        else:
            require_same(checkpoint.config, path, self.config, source, exact=True)

    def _check_best(self, progress: Progress, source: str | None) -> None:
        """Check that ``best.npz`` is of the best epoch according to the last checkpoint."""
        path = self.run.checkpoint_path("best")
        try:
            checkpoint = load_checkpoint(path)
        except DataError:  # resuming does not need the file, and the next best epoch replaces it
            return
        self._require_config(checkpoint, path, source)
        best = checkpoint.progress
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
        arrays, average = self._optimizer_state(), checkpoint.average
        size = self.network.parameters.vector.size
        sizes = (checkpoint.parameters.size, checkpoint.optimizer_state.size)
        if (
            sizes != (size, size * len(arrays))
            or (average is not None) != ("average" in self.loop.state)
            or (average is not None and average.size not in (0, size))
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
        restore_statistics(self.network, checkpoint, path)
        saved = checkpoint.optimizer_state.reshape(-1, size)
        for array, values in zip(arrays, saved, strict=True):
            array[...] = values
        if average is not None and average.size:
            self.loop.state["average"][...] = average
        self.loop.progress = checkpoint.progress
        self._seconds_before = checkpoint.seconds

    def _fits(self, progress: Progress) -> bool:
        """Return whether a checkpoint's state is possible in this training."""
        examples, best = self.dataset.training, progress.best
        validated = self.dataset.validation > 0
        measured = progress.measured
        every_epoch = self.config.training.validate_every == 1
        return (
            (measured == progress.epoch if every_epoch else measured <= progress.epoch)
            and progress.batch <= math.ceil(examples / self.loop.batches.batch_size)
            and progress.correct <= examples
            and (
                best is None
                or (best.val_accuracy is not None) == (best.val_loss is not None) == validated
            )
        )

    def _summarize(self, finished: Finished) -> Summary:
        # The metrics are read from the disk: there may be very many.
        best, history = self.loop.progress.best, self.run.history
        last = history[-1] if history else None
        return Summary(
            status=finished.reason,
            time_limit=self._timed_out and finished.reason == "interrupted",
            epochs=self.loop.progress.epoch,
            best_epoch=best.epoch if best else None,
            best_val_accuracy=best.val_accuracy if best else None,
            best_val_loss=best.val_loss if best else None,
            final_train_loss=last.train_loss if last else None,
            final_train_accuracy=last.train_accuracy if last else None,
            dataset=self.dataset,
            seed=self.config.training.seed,
            parameters=self.network.parameters.vector.size,
            versions=versions(),
            blas=describe_blas(),
            threads=self.loop.batches.team.size,
            seconds=round(self._seconds(), 3),
            planned_epochs=self.loop.epochs,
            network=summarize_layers(self.config),
            run_dir=str(self.run.directory),
            divergence=finished.divergence,
            diagnoses=diagnose(
                self.config,
                history,
                self.network,
                finished.divergence,
                steps_per_epoch=len(self.loop.batches),
                of_data=find_data_problems(
                    self.config,
                    self._dataset,
                    self.loop.batches.examples,
                    self.loop.validation,
                    self.network,
                ),
            ),
        )

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._started
