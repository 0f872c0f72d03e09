"""A run directory: configuration, metrics, checkpoints and summary of a training."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

import nnctl
from nnctl.build import build_layers, build_network
from nnctl.config import Config, read_file, resolve, to_mapping, to_yaml
from nnctl.config.presets import presets
from nnctl.errors import DamagedFileError, DataError, NnctlError, UsageError, storage_errors
from nnctl.files import (
    append_lines,
    is_temporary,
    to_json_text,
    write_atomically,
)
from nnctl.nn.events import EpochMetrics
from nnctl.nn.examples import as_batch
from nnctl.nn.network import Network, count_parameters
from nnctl.nn.types import Array
from nnctl.runs.checkpoint import Checkpoint, DatasetRecord, load_checkpoint
from nnctl.runs.differences import require_same
from nnctl.runs.history import epochs_of, read_history, read_step_losses, step_lines, to_line
from nnctl.runs.inference import infer
from nnctl.runs.lock import LOCK_NAME, DirectoryLock
from nnctl.runs.records import FileRecord, read_record
from nnctl.runs.resolve import require_resolved
from nnctl.runs.summary import EvaluationRecord, InitRecord, Summary, summarize_layers
from nnctl.text import html_table, percent, shell_command

Which = Literal["best", "last"]
RUNS = Path("runs")
"""Folder in which new runs and sweeps are created, unless the user names another one."""
_LONGEST_NAME = 100  # bytes; with the time added, every file system accepts the name


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """The network of a checkpoint, and what it was trained with.

    Parameters
    ----------
    network : Network
        Network as used for validation: with ``training.average``, the averaged one.
    config : Config
        Configuration of the training.
    dataset : DatasetRecord
        Dataset of the training.
    epoch : int
        Number of complete epochs.
    """

    network: Network
    config: Config
    dataset: DatasetRecord
    epoch: int


@dataclass(frozen=True)
class Run:
    """A run on the disk, finished or not.

    Parameters
    ----------
    directory : Path
        Run directory.
    """

    directory: Path

    @classmethod
    def create(cls, name: str, runs_dir: Path) -> Run:
        """Create the directory of a new run, ``<name>-<time>``, and return the run.

        If the name exists, a number is appended to it.

        Raises
        ------
        StorageError
            The directory cannot be created.
        """
        safe = re.sub(r"[^\w.-]+", "-", name).strip(".-")
        safe = safe.encode()[:_LONGEST_NAME].decode(errors="ignore") or "run"
        timestamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        count = 1
        while True:
            suffix = "" if count == 1 else f"-{count}"
            directory = runs_dir / f"{safe}-{timestamp}{suffix}"
            with storage_errors(directory), contextlib.suppress(FileExistsError):
                directory.mkdir(parents=True)
                return cls(directory)
            count += 1

    @classmethod
    def create_at(cls, directory: Path) -> Run:
        """Create a run in a given directory, new or empty, and return it.

        Temporary files of a killed process are ignored; see `require_empty`.

        Raises
        ------
        UsageError
            The directory is not empty.
        StorageError
            The directory cannot be created.
        """
        with storage_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        require_empty(directory)
        return cls(directory)

    @classmethod
    def open(cls, directory: Path) -> Run:
        """Return the run in a directory.

        Raises
        ------
        UsageError
            The directory does not exist, or it is not a run directory.
        """
        run = cls(directory)
        if not directory.is_dir():
            raise UsageError(
                f"{directory}: run directory not found", hint=_training_hint(directory)
            )
        if not run.config_path.is_file():
            if (directory / "journal.jsonl").is_file():
                raise UsageError(
                    f"{directory} is a sweep, not a run",
                    hint=f"To resume it: {shell_command('nnctl', 'sweep', '--resume', directory)}",
                )
            raise UsageError(f"{directory} is not a run directory: it has no config.yaml")
        return run

    @property
    def resume_command(self) -> str:
        """The command that resumes the run."""
        return shell_command("nnctl", "train", "--resume", self.directory)

    def lock(self) -> DirectoryLock:
        """Lock the run against training by other processes, and return the lock.

        Raises
        ------
        UsageError
            Another process trains the run.
        """
        return DirectoryLock(self.directory)

    def wait_until_free(self, seconds: float) -> None:
        """Wait until no other process trains this run.

        Parameters
        ----------
        seconds : float
            Longest time to wait for the other process to save its state and exit.

        Raises
        ------
        UsageError
            The other process still trains the run after this time.
        """
        DirectoryLock(self.directory, timeout=seconds).unlock()

    def checkpoint_path(self, which: Which) -> Path:
        """Return the path of the checkpoint of the best epoch or of the last state."""
        return self.directory / f"{which}.npz"

    @property
    def config_path(self) -> Path:
        """The path of the resolved configuration."""
        return self.directory / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """The path of the metrics, one line of JSON per measured epoch."""
        return self.directory / "metrics.jsonl"

    @property
    def steps_path(self) -> Path:
        """The path of the losses of steps, which are recorded with ``training.monitor_every``."""
        return self.directory / "steps.jsonl"

    @property
    def summary_path(self) -> Path:
        """The path of the summary, which is written when the training ends."""
        return self.directory / "summary.json"

    @property
    def init_path(self) -> Path:
        """The path of the record of where the initial weights come from, if from another run."""
        return self.directory / "init.json"

    @property
    def evaluation_path(self) -> Path:
        """The path of the result on the test set, which ``nnctl eval`` writes."""
        return self.directory / "evaluation.json"

    @property
    def config(self) -> Config:
        """The resolved configuration.

        Raises
        ------
        ConfigError
            The configuration has mistakes or ``auto`` values.
        """
        return require_resolved(resolve(read_file(self.config_path)), str(self.config_path))

    @property
    def summary(self) -> Summary | None:
        """The summary of the run; None while it trains, or if it was killed.

        Raises
        ------
        DataError
            The summary is damaged or was written by a later version.
        """
        return read_record(self.summary_path, Summary)

    @property
    def test_result(self) -> EvaluationRecord | None:
        """The result of the best network on the test set, if it was measured."""
        record, summary = None, self.summary
        with contextlib.suppress(DataError):  # it can be measured again
            record = read_record(self.evaluation_path, EvaluationRecord)
        is_current = record and (summary is None or summary.best_epoch == record.epoch)
        return record if is_current else None

    @property
    def initial(self) -> InitRecord | None:
        """Where the initial weights come from; None if they are the run's own.

        Raises
        ------
        DataError
            The record is damaged or was written by a later version.
        """
        return read_record(self.init_path, InitRecord)

    def record_evaluation(self, record: EvaluationRecord) -> None:
        """Write the result on the test set, unless the directory cannot be written."""
        with contextlib.suppress(NnctlError):
            self.write_record(self.evaluation_path, record)

    @property
    def history(self) -> list[EpochMetrics]:
        """The metrics of every measured epoch, without an incomplete last line.

        Raises
        ------
        DamagedFileError
            A line is not the metrics of an epoch of this run.
        """
        return [metrics for _, metrics in self._read_history()]

    @property
    def step_losses(self) -> dict[int, float]:
        """The recorded losses by step; see ``training.monitor_every``.

        Raises
        ------
        DamagedFileError
            A line is not the loss of a step.
        """
        every = self.config.training.monitor_every
        return read_step_losses(self.steps_path, every) if every else {}

    def checkpoint(self, which: Which) -> Checkpoint:
        """Read a checkpoint, and check that it was trained with the run's configuration.

        Raises
        ------
        ConfigError
            The run's configuration cannot be read.
        DataError
            The checkpoint is missing or damaged, or was trained with another configuration.
        """
        path = self.checkpoint_path(which)
        if which == "best" and not path.exists():
            raise DataError(
                f"{path}: file not found; no epoch of this run was completed and recorded",
                hint=f"Use --checkpoint last if last.npz exists, or resume: {self.resume_command}",
            )
        checkpoint = load_checkpoint(path)
        self.require_config(checkpoint.config, path)
        return checkpoint

    def require_config(self, config: Config, path: Path) -> None:
        """Check that the configuration in a checkpoint is that of the run.

        Raises
        ------
        DamagedFileError
            Another setting than the number of epochs and the folder of the dataset differs.
        """
        hint = (
            f"The configuration of a run cannot be changed: restore the values of {path.name} in "
            f"{self.config_path}, or restore the run's own {path.name}. To use other values, train "
            "a new run."
        )
        require_same(config, path, self.config, self.config_path, hint=hint)

    def load(self, which: Which = "best") -> TrainedNetwork:
        """Return the trained network of a checkpoint, and what it was trained with.

        Raises
        ------
        ConfigError
            The run's configuration cannot be read.
        DataError
            The checkpoint is missing or damaged, or was trained with another configuration.
        """
        checkpoint = self.checkpoint(which)
        return TrainedNetwork(
            network=_network_of(checkpoint, self.checkpoint_path(which)),
            config=checkpoint.config,
            dataset=checkpoint.dataset,
            epoch=checkpoint.progress.epoch,
        )

    def network(self, which: Which = "best") -> Network:
        """Return the trained network of a checkpoint; see `load`."""
        return self.load(which).network

    def predict(self, images: ArrayLike, which: Which = "best") -> Array:
        """Return the network's outputs for one image or for several.

        Parameters
        ----------
        images : array-like, shape (n, 784) or (n, 28, 28)
            Pixels: integers from 0 to 255, or floats from 0 to 1. The 1 of a gate is 255 or 1.0.
            One image has the shape (784,) or (28, 28).
        which : str
            Checkpoint: ``best`` or ``last``.

        Raises
        ------
        nnctl.errors.UsageError
            The images have another shape or other values.
        nnctl.errors.DataError
            The checkpoint is missing or damaged.

        Returns
        -------
        array of float32, shape (n, 10), or (10,) for one image
            Outputs; with softmax the probability of each digit.
        """
        network = self.network(which)
        batch, is_one = as_batch(images, network.sizes[0])
        outputs = infer(network, _as_pixels(batch)).outputs
        return outputs[0] if is_one else outputs

    def _repr_html_(self) -> str:
        """Return a table for notebooks: the network, and how its training ended."""
        try:
            rows = list(self._facts())
        except NnctlError as error:  # a notebook would print its traceback
            rows = [("problem", error.message)]
        return html_table(f"Run {self.directory}", rows, header=False)

    def _facts(self) -> Iterator[tuple[str, str]]:
        config, summary, test = self.config, self.summary, self.test_result
        yield "network", summarize_layers(config)
        yield "dataset", config.data.dataset
        yield "status", "not finished" if summary is None else summary.status.replace("_", " ")
        yield "epochs", f"{epochs_of(self.history)} of {config.training.epochs}"
        if summary and summary.best_val_accuracy is not None:
            best = percent(summary.best_val_accuracy)
            yield "validation accuracy", f"{best} (epoch {summary.best_epoch})"
        if test:
            yield "test accuracy", percent(test.accuracy)
        if summary and summary.diagnoses:
            yield "problems", ", ".join(found.title for found in summary.diagnoses)

    def clear(self) -> None:
        """Remove the files of a training, so that it starts from the beginning."""
        files = [self.config_path, self.metrics_path, self.steps_path, self.summary_path]
        files += [self.evaluation_path, self.init_path]
        self._remove(*files, self.checkpoint_path("last"), self.checkpoint_path("best"))

    def remove_summary(self) -> None:
        """Remove the summary, which is out of date when the run is resumed."""
        self._remove(self.summary_path)

    def write_config(self, config: Config) -> None:
        """Write the resolved configuration."""
        comment = f"Resolved by nnctl {nnctl.__version__}: all defaults are written out."
        text = to_yaml(to_mapping(config), comment)
        self._write(self.config_path, text)

    def write_summary(self, summary: Summary) -> None:
        """Write the summary."""
        self.write_record(self.summary_path, summary)

    def write_record(self, path: Path, record: FileRecord) -> None:
        """Write the summary, the result on the test set, or where the initial weights come from."""
        self._write(path, to_json_text(record.to_json(), indent=2) + "\n")

    def append_metrics(self, metrics: EpochMetrics) -> str:
        """Append the metrics of an epoch to the file, and return the line."""
        line = to_line(metrics)
        append_lines(self.metrics_path, [line])
        return f"{line}\n"

    def truncate_history(self, epoch: int, sha256: str | None = None) -> str:
        """Remove the metrics of later epochs and an incomplete line; training writes them again.

        Parameters
        ----------
        epoch : int
            Last epoch whose metrics remain: the last one that was measured.
        sha256 : str, optional
            Expected SHA-256 of the remaining text, if known.

        Returns
        -------
        str
            Remaining text of the file.

        Raises
        ------
        DamagedFileError
            The metrics of a remaining epoch are missing or were changed.
        """
        history = [pair for pair in self._read_history() if pair[1].epoch <= epoch]
        last = history[-1][1].epoch if history else 0
        if last < epoch:
            raise DamagedFileError(
                f"{self.metrics_path} is damaged: it ends with epoch {last}, but {epoch} "
                "epochs are complete"
            )
        text = "".join(f"{line}\n" for line, _ in history)
        if sha256 not in (None, hashlib.sha256(text.encode()).hexdigest()):
            raise DamagedFileError(
                f"{self.metrics_path} is damaged: its content was changed after last.npz was saved",
                hint="Restore the file, or train a new run.",
            )
        self._write(self.metrics_path, text)
        return text

    def truncate_step_losses(self, steps: int) -> None:
        """Remove the losses of later steps and an incomplete line; training writes them again.

        Raises
        ------
        DamagedFileError
            The loss of a remaining step is missing.
        """
        every = self.config.training.monitor_every
        if every is None:
            return
        losses = {step: loss for step, loss in self.step_losses.items() if step <= steps}
        if len(losses) < steps // every:
            raise DamagedFileError(
                f"{self.steps_path} is damaged: it ends with step {len(losses) * every:,}, but "
                f"{steps:,} steps are complete"
            )
        self._write(self.steps_path, "".join(f"{line}\n" for line in step_lines(losses)))

    def require_nothing_done(self) -> None:
        """Check that a run without ``last.npz`` has at most one measured epoch.

        Raises
        ------
        DamagedFileError
            More epochs are complete, so ``last.npz`` existed and was removed. Or the run begins
            with the weights of another run, which only ``last.npz`` contains.
        """
        if self.init_path.exists():
            raise DamagedFileError(
                f"{self.checkpoint_path('last')}: file not found, although the run begins with "
                "the weights of another run",
                hint="Train a new run with --init-from.",
            )
        epochs, best = [metrics.epoch for metrics in self.history], self.checkpoint_path("best")
        done = epochs[-1] if epochs else 0
        if best.exists():
            done = max(done, load_checkpoint(best).progress.epoch)
        # A process killed before the first checkpoint can leave one measured epoch.
        if done > (epochs[0] if epochs else 1):
            raise DamagedFileError(
                f"{self.checkpoint_path('last')}: file not found, although {done} epochs are "
                "complete",
                hint="Restore the file, or train a new run. best.npz can still be evaluated.",
            )

    def _read_history(self) -> list[tuple[str, EpochMetrics]]:
        if not self.metrics_path.exists():
            return []
        config = self.config
        return read_history(
            self.metrics_path,
            len(config.network.layers),
            every_epoch=config.training.validate_every == 1,
        )

    def _write(self, path: Path, text: str) -> None:
        with storage_errors(path):
            write_atomically(path, text.encode())

    def _remove(self, *paths: Path) -> None:
        for path in paths:
            with storage_errors(path):
                path.unlink(missing_ok=True)


def _as_pixels(batch: NDArray[Any]) -> NDArray[Any]:
    """Return inputs as uint8 from 0 to 255, or as floats; raise UsageError for other values."""
    low, high = batch.min(), batch.max()
    if batch.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise UsageError(f"integer pixels must be from 0 to 255, got {low} to {high}")
        return batch.astype(np.uint8, copy=False)
    if low < -1 or high > 2:  # noise may leave the range from 0 to 1
        raise UsageError(
            f"pixels that are floats must be from 0 to 1, got {low:g} to {high:g}",
            hint="Divide pixels from 0 to 255 by 255, or convert them to integers.",
        )
    return batch


def _network_of(checkpoint: Checkpoint, path: Path) -> Network:
    """Return the network of a checkpoint, as used for validation."""
    config, pixels = checkpoint.config, checkpoint.dataset.pixels
    size = checkpoint.parameters.size
    # Compare the sizes first: an edited configuration can require more memory than exists.
    if count_parameters(pixels, build_layers(config)) != size:
        raise DamagedFileError(f"{path} is damaged: its parameters do not fit its configuration")
    parameters = checkpoint.parameters
    if checkpoint.average is not None and checkpoint.average.size:
        parameters = checkpoint.average
    if parameters.size != size:
        raise DamagedFileError(f"{path} is damaged: the averaged parameters do not fit")
    network = build_network(config, pixels)
    network.parameters.vector[...] = parameters
    restore_statistics(network, checkpoint, path)
    return network


def restore_statistics(network: Network, checkpoint: Checkpoint, path: Path) -> None:
    """Set the running statistics of batch normalization to those of a checkpoint.

    Raises
    ------
    DamagedFileError
        They do not fit the network, or a variance is negative.
    """
    statistics = np.empty(0) if checkpoint.statistics is None else checkpoint.statistics
    if statistics.size != network.statistics.size:
        raise DamagedFileError(f"{path} is damaged: its running statistics do not fit")
    network.statistics[...] = statistics
    if any((variances < 0).any() for variances in network.running_variances):
        raise DamagedFileError(f"{path} is damaged: a running variance is negative")


def _training_hint(directory: Path) -> str | None:
    """Return how to train a run that has the name of a preset, if one has it."""
    for preset in presets():
        if directory.as_posix() == preset.name or directory.name == Path(preset.name).name:
            command = "sweep" if preset.is_sweep else "train"
            return f"Train one: nnctl {command} {preset.name}, then use latest as the run."
    return None


def named_directory(name: str, runs_dir: Path) -> Path:
    """Return the directory of a new run or sweep with a name.

    Raises
    ------
    UsageError
        The name is not that of one directory, is reserved, or exists.
    """
    directory = runs_dir / name
    if PureWindowsPath(name).name != name or name in ("", ".", "..", "latest"):
        reason = "stands for the newest run" if name == "latest" else "is not a directory's name"
        raise UsageError(
            f"--name {name}: {name or 'an empty text'} {reason}",
            hint="Use a name without / \\ and :, such as --name first.",
        )
    if directory.is_dir():
        require_empty(directory)
    return directory


def require_empty(directory: Path) -> None:
    """Check that a directory is empty, except for a lock and temporary files of a killed process.

    Raises
    ------
    UsageError
        The directory contains a run or other files.
    """
    with storage_errors(directory):
        if all(path.name == LOCK_NAME or is_temporary(path) for path in directory.iterdir()):
            return
    run = Run(directory)
    raise UsageError(
        f"{directory} is not empty",
        hint=f"To resume the run in it: {run.resume_command}"
        if run.config_path.exists()
        else "Use another directory; it will be created if it does not exist.",
    )
