"""A run directory: configuration, metrics, checkpoints and summary of a training."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import stat
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import ArrayLike, NDArray

import nnctl
from nnctl.build import build_layers, build_network
from nnctl.config import Config, from_mapping, read_file, resolve, to_mapping, to_yaml
from nnctl.errors import (
    ConfigError,
    DamagedFileError,
    DataError,
    NnctlError,
    StorageError,
    UsageError,
    limit_hint,
)
from nnctl.files import (
    TEMPORARY,
    append_lines,
    is_temporary,
    read_bytes,
    remove_temporaries,
    to_json_text,
    write_atomically,
)
from nnctl.nn.metrics import logits_of
from nnctl.nn.network import Network, count_parameters
from nnctl.nn.types import Array
from nnctl.runs.checkpoint import Checkpoint, load_checkpoint
from nnctl.runs.line_checks import (
    all_values,
    check_version,
    each,
    is_count,
    is_mapping,
    is_number,
    is_positive,
    is_share,
    is_text,
    one_of,
    optional,
    parse,
    record,
)
from nnctl.runs.resolve import changeable, differing
from nnctl.text import shell_command

Which = Literal["best", "last"]
_LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Error numbers of file systems without locks, such as SMB, Lustre and FUSE."""
_HEADER_BYTES = 10_000  # bytes to read to see who wrote a file; a dataset's path may come first
_MAX_DIFFERENCES = 20  # listed differences between two configurations
_LONGEST_NAME = 100  # bytes; with the time added, every file system accepts the name

FORMAT_VERSION = 1
"""Format version of a run directory, stored in ``summary.json``."""

_ENDED = record(
    {
        "status": one_of("finished", "stopped_early", "interrupted", "diverged"),
        "epochs": is_count,
        "best_epoch": optional(is_count),
        "best_val_accuracy": optional(is_share),
        "best_val_loss": optional(is_number),
        "seconds": is_number,
        "dataset": record({"name": is_text, "hashes": all_values(is_text)}),
    },
    {
        "divergence": record(
            {
                "epoch": is_count,
                "batch": is_count,
                "layer": is_positive,
                "what": one_of("outputs", "gradient", "parameters"),
                "last_finite_loss": optional(is_number),
            },
            closed=True,
        ),
        "versions": is_mapping,
        "blas": is_mapping,
    },
)
"""Required keys of a run's summary, and the optional ones that are read."""
_HEALTH = record(
    {
        "mean": is_number,
        "std": is_number,
        "dead": is_share,
        "saturated": is_share,
        "error": is_number,
        "error_ratio": optional(is_number),
        "update_ratio": is_number,
    }
)


def _is_health(value: Any) -> bool:
    """Return whether a value is the health of a layer; early versions did not write ``error``."""
    return _HEALTH(value) or (all_values(optional(is_number))(value) and "error" not in value)


_ROW = record(
    {
        "epoch": is_positive,
        "train_loss": is_number,
        "train_accuracy": is_share,
        "val_loss": optional(is_number),
        "val_accuracy": optional(is_share),
        "learning_rate": is_number,
        "seconds": is_number,
        "health": each(_is_health),
    }
)
"""Required keys of the metrics of an epoch."""


def _is_row(value: Any) -> bool:
    """Return whether a value is the metrics of an epoch, with both validation values or neither."""
    return _ROW(value) and (value["val_loss"] is None) == (value["val_accuracy"] is None)


class DirectoryLock:
    """An exclusive lock on a directory; the system releases it if the process dies.

    Parameters
    ----------
    directory : Path
        Directory of a run or of a sweep.
    what : str
        Verb phrase for the error message: what another process does with the directory.
    patience : float
        Seconds to wait for another process to release the lock.

    Attributes
    ----------
    warning : str or None
        Warning for the user if the file system does not support locks; then nothing is locked.
    """

    def __init__(
        self, directory: Path, what: str = "is being trained", patience: float = 0.0
    ) -> None:
        self.warning: str | None = None
        self._directory = directory
        self._what = what
        self._lock = FileLock(directory / _LOCK, timeout=patience)
        self.lock()

    def lock(self) -> None:
        """Acquire the lock, unless it is already held by this object.

        Raises
        ------
        UsageError
            Another process holds the lock.
        StorageError
            The directory cannot be written.
        """
        try:
            unsupported = _lock_error(self._directory)
            if unsupported:
                self.warning = (
                    f"{self._directory} cannot be locked: the file system does not support locks "
                    f"({unsupported.strerror}); do not start a second training there"
                )
                return
            self._lock.acquire()
        except Timeout:
            raise UsageError(
                f"{self._directory} {self._what} by another process",
                hint="Wait until that process ends, or stop it; it saves its state.",
            ) from None
        except OSError as error:
            raise cannot_write(self._directory, error) from None

    def unlock(self) -> None:
        """Release the lock and remove its file."""
        if self.warning:
            return
        with contextlib.suppress(OSError):  # Windows does not remove open files
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release(force=True)


def _lock_error(directory: Path) -> OSError | None:
    """Return the error of a file system that does not support locks, or None if it does.

    On such a file system, FileLock fails in a way that depends on its version: with an error, with
    a timeout, or with a lock file that remains after the process is killed.
    """
    if sys.platform == "win32":  # every file system supports locks
        return None
    import fcntl

    with tempfile.TemporaryFile(dir=directory, prefix=".", suffix=TEMPORARY) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error if error.errno in _NO_LOCKS else None
    return None


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
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        count = 1
        while True:
            suffix = "" if count == 1 else f"-{count}"
            directory = runs_dir / f"{safe}-{stamp}{suffix}"
            try:
                directory.mkdir(parents=True)
            except FileExistsError:
                count += 1
            except OSError as error:
                raise cannot_write(directory, error) from None
            else:
                return cls(directory)

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
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(directory, error) from None
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
            raise UsageError(f"{directory}: run directory not found")
        if not run.config_path.is_file():
            raise UsageError(f"{directory} is not a run directory: it has no config.yaml")
        return run

    @property
    def resume_command(self) -> str:
        """The command that resumes the run."""
        return shell_command("nnctl", "train", "--resume", self.directory)

    def mismatch_hint(self, checkpoint: Path) -> str:
        """Return the hint for a run whose checkpoint was trained with another configuration."""
        return (
            f"The configuration of a run cannot be changed: restore the values of "
            f"{checkpoint.name} in {self.config_path}, or restore the run's own "
            f"{checkpoint.name}. To use other values, train a new run."
        )

    @property
    def config_path(self) -> Path:
        """The path of the resolved configuration."""
        return self.directory / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """The path of the metrics, one line of JSON per epoch."""
        return self.directory / "metrics.jsonl"

    @property
    def summary_path(self) -> Path:
        """The path of the summary, which is written when the training ends."""
        return self.directory / "summary.json"

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
        DirectoryLock(self.directory, patience=seconds).unlock()

    def checkpoint_path(self, which: Which) -> Path:
        """Return the path of the checkpoint of the best epoch or of the last state."""
        return self.directory / f"{which}.npz"

    @property
    def config(self) -> Config:
        """The resolved configuration.

        Raises
        ------
        ConfigError
            The configuration has mistakes or ``auto`` values.
        """
        return _require_final(resolve(read_file(self.config_path)), str(self.config_path))

    @property
    def summary(self) -> dict[str, Any]:
        """The result of the run; empty while it trains, or if it was killed.

        Raises
        ------
        DataError
            The summary is damaged or was written by a later version.
        """
        path = self.summary_path
        try:
            # The name of a folder may not be valid Unicode.
            summary = parse(read_bytes(path), halves=True)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DamagedFileError(f"{path} is damaged: {error.strerror or error}") from None
        except ValueError as error:
            raise DamagedFileError(f"{path} is damaged: {error}") from None
        if is_mapping(summary) and "format_version" in summary:  # the first versions wrote none
            check_version(path, summary["format_version"], FORMAT_VERSION)
        if not _ENDED(summary):
            raise DamagedFileError(f"{path} is damaged: required keys are missing or invalid")
        return dict(summary)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of every complete epoch, without an incomplete last line.

        Raises
        ------
        DamagedFileError
            A line is not the metrics of an epoch of this run.
        """
        return [row for _, row in self._metrics()]

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
                f"{path}: file not found; no epoch of this run was completed",
                hint=f"Use --checkpoint last if last.npz exists, or resume: {self.resume_command}",
            )
        saved = load_checkpoint(path)
        trained_with, config = config_of(saved, path), self.config
        require_same(
            trained_with,
            path,
            config,
            self.config_path,
            but=changeable(trained_with, config),
            hint=self.mismatch_hint(path),
        )
        return saved

    def network(self, which: Which = "best") -> Network:
        """Return the trained network of a checkpoint."""
        return network_of(self.checkpoint(which), self.checkpoint_path(which))

    def predict(self, images: ArrayLike, which: Which = "best") -> Array:
        """Return the network's outputs for images.

        Parameters
        ----------
        images : array-like, shape (n, 784) or (n, 28, 28)
            Pixels: integers from 0 to 255, or floats from 0 to 1. The 1 of a gate is 255 or 1.0.
        which : str
            Checkpoint: ``best`` or ``last``.

        Raises
        ------
        UsageError
            The images have another shape or other values.

        Returns
        -------
        array of float32, shape (n, 10)
            Outputs; with softmax the probability of each digit.
        """
        network = self.network(which)
        return network.outputs(logits_of(network, _as_inputs(images, network.sizes[0])))

    def forget(self) -> None:
        """Remove the files of a training, so that it starts from the beginning."""
        written = (self.config_path, self.metrics_path, self.summary_path)
        self._remove(*written, self.checkpoint_path("last"), self.checkpoint_path("best"))

    def forget_summary(self) -> None:
        """Remove the summary, which is out of date when the run is resumed."""
        self._remove(self.summary_path)

    def remove_temporaries(self) -> None:
        """Remove the temporary files of a process that was killed while it wrote."""
        with _writing(self.directory):
            remove_temporaries(self.directory)

    def write_config(self, config: Config) -> None:
        """Write the resolved configuration."""
        comment = f"Resolved by nnctl {nnctl.__version__}: all defaults are written out."
        text = to_yaml(to_mapping(config), comment)
        self._write(self.config_path, text)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the summary."""
        self._write(self.summary_path, to_json_text(summary, indent=2) + "\n")

    def append_metrics(self, row: Mapping[str, Any]) -> str:
        """Append the metrics of an epoch to the file, and return the line."""
        line = json.dumps(row, allow_nan=False)
        append_lines(self.metrics_path, [line])
        return f"{line}\n"

    def keep_metrics_until(self, epoch: int, sha256: str | None = None) -> str:
        """Remove the metrics of later epochs and an incomplete line; training writes them again.

        Parameters
        ----------
        epoch : int
            Last epoch whose metrics are kept.
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
        lines = [line for line, _ in self._metrics()][:epoch]
        if len(lines) < epoch:
            raise DamagedFileError(
                f"{self.metrics_path} is damaged: it ends with epoch {len(lines)}, but {epoch} "
                "epochs are complete"
            )
        text = "".join(f"{line}\n" for line in lines)
        if sha256 not in (None, hashlib.sha256(text.encode()).hexdigest()):
            raise DamagedFileError(
                f"{self.metrics_path} is damaged: its content was changed after last.npz was saved",
                hint="Restore the file, or train a new run.",
            )
        self._write(self.metrics_path, text)
        return text

    def require_nothing_done(self) -> None:
        """Check that a run without ``last.npz`` has at most one complete epoch.

        Raises
        ------
        DamagedFileError
            More epochs are complete, so ``last.npz`` existed and was removed.
        """
        done, best = len(self.metrics), self.checkpoint_path("best")
        if best.exists():
            done = max(done, load_checkpoint(best).progress.epoch)
        if done > 1:  # a process killed before the first checkpoint can leave one epoch
            raise DamagedFileError(
                f"{self.checkpoint_path('last')}: file not found, although {done} epochs are "
                "complete",
                hint="Restore the file, or train a new run. best.npz can still be evaluated.",
            )

    def _metrics(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the lines of the metrics file, each with its parsed value."""
        path = self.metrics_path
        try:
            content = read_bytes(path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DamagedFileError(f"{path} is damaged: {error.strerror or error}") from None
        layers = len(self.config.network.layers) if content else 0
        rows: list[tuple[str, dict[str, Any]]] = []
        # A last line without a line end was not written completely.
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                text = line.decode()
                row = parse(text)
            except ValueError:
                row = None
            before = rows[-1][1]["epoch"] if rows else 0
            if not _is_row(row) or row["epoch"] != before + 1 or len(row["health"]) != layers:
                raise DamagedFileError(
                    f"{path}:{number} is damaged: the line is not the metrics of an epoch"
                )
            rows.append((text, row))
        return rows

    def _write(self, path: Path, text: str) -> None:
        with _writing(path):
            write_atomically(path, text.encode())

    def _remove(self, *paths: Path) -> None:
        for path in paths:
            with _writing(path):
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raise a `StorageError` that names the path if the ``with`` block cannot write."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from None


def _as_inputs(images: ArrayLike, pixels: int) -> NDArray[Any]:
    """Return images as uint8 or float32 ``(n, pixels)``; raise UsageError if they are invalid."""
    inputs = np.asarray(images)
    if inputs.ndim == 3:
        inputs = inputs.reshape(len(inputs), -1) if len(inputs) else inputs.reshape(0, pixels)
    if inputs.ndim != 2 or inputs.shape[1] != pixels or not len(inputs):
        raise UsageError(f"expected images of shape (n, {pixels}), got {np.shape(images)}")
    if inputs.dtype.kind in "iub":
        if inputs.min() < 0 or inputs.max() > 255:
            raise UsageError("integer pixels must be from 0 to 255")
        return inputs.astype(np.uint8, copy=False)
    if inputs.dtype.kind != "f" or not np.isfinite(inputs).all():
        raise UsageError("pixels must be integers from 0 to 255, or finite floats from 0 to 1")
    return inputs.astype(np.float32, copy=False)


def require_same(
    actual: Config,
    path: Path,
    expected: Config,
    source: Path | str,
    *,
    but: Collection[str] = (),
    hint: str | None = None,
) -> None:
    """Check that a file of a run has the expected configuration.

    Parameters
    ----------
    actual : Config
        Configuration in the file.
    path : Path
        Path of the file.
    expected : Config
        Expected configuration.
    source : Path or str
        Source of the expected configuration, for the message.
    but : collection of str
        Keys that may differ.
    hint : str, optional
        Hint of the error.

    Raises
    ------
    DamagedFileError
        The configurations differ; the message lists both values of each key that differs.
    """
    different = [
        f"{key}: {ours} in {path.name}, {theirs} in {Path(source).name}"
        for key, (ours, theirs) in differing(actual, expected).items()
        if key not in but
    ]
    if different:
        lines = [f"{path} does not match {source}; differences:", *different[:_MAX_DIFFERENCES]]
        if more := different[_MAX_DIFFERENCES:]:
            lines.append(f"... and {len(more):,} more")
        raise DamagedFileError("\n  ".join(lines), hint=hint)


def config_of(checkpoint: Checkpoint, path: Path) -> Config:
    """Return the configuration of a checkpoint.

    Raises
    ------
    DamagedFileError
        The configuration is not valid.
    """
    try:
        return _require_final(from_mapping(checkpoint.config, str(path)), str(path))
    except ConfigError as error:
        raise DamagedFileError(f"{path} is damaged: {error.message}") from None


def network_of(checkpoint: Checkpoint, path: Path) -> Network:
    """Return the network of a checkpoint, as used for validation.

    With ``training.average`` it has the averaged parameters.

    Raises
    ------
    DamagedFileError
        The parameters do not fit the configuration.
    """
    config, pixels = config_of(checkpoint, path), checkpoint.dataset.pixels
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
    return network


def _require_final(config: Config, source: str) -> Config:
    """Return the configuration of a run; raise ConfigError if it has ``auto`` values."""
    values = {
        "data.validation": config.data.validation,
        "training.epochs": config.training.epochs,
        "training.threads": config.training.threads,
    }
    mistakes = [
        f"{source}: {key}: a run needs a number here, not auto"
        for key, value in values.items()
        if value == "auto"
    ]
    if mistakes:
        raise ConfigError(source, mistakes, hint="To start a new run: nnctl train CONFIG")
    return config


def require_empty(directory: Path) -> None:
    """Check that a directory is empty, except for a lock and temporary files of a killed process.

    Raises
    ------
    UsageError
        The directory contains a run or other files.
    """
    try:
        if all(path.name == _LOCK or is_temporary(path) for path in directory.iterdir()):
            return
    except OSError as error:
        raise cannot_write(directory, error) from None
    run = Run(directory)
    raise UsageError(
        f"{directory} is not empty",
        hint=f"To resume the run in it: {run.resume_command}"
        if run.config_path.exists()
        else "Use another directory; it will be created if it does not exist.",
    )


def require_replaceable(path: Path, beginning: re.Pattern[bytes], what: str) -> None:
    """Check that a path can be written: it does not exist, or nnctl wrote the file.

    Parameters
    ----------
    path : Path
        Path of the output file.
    beginning : re.Pattern
        Pattern in the first bytes of each file that the same command writes.
    what : str
        Name of the command that writes the file, for the message.

    Raises
    ------
    UsageError
        The path is a file that the command did not write, or a folder, a pipe or a device.
    """
    hint = "Use another file with --output."
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # the file does not exist, or writing it raises the error of `cannot_write`
    if not stat.S_ISREG(mode):  # opening a pipe would wait for another process
        raise UsageError(f"{path} is a folder, a pipe or a device, not a file", hint=hint)
    try:
        with path.open("rb") as file:
            ours = beginning.search(file.read(_HEADER_BYTES))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    if not ours:
        raise UsageError(f"{path} exists and was not written by nnctl {what}", hint=hint)


def cannot_write(path: Path, error: OSError) -> NnctlError:
    """Return the error to raise for a path that cannot be written."""
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(
            f"{path} cannot be written: {error.strerror}", hint="Choose a shorter name."
        )
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "Free some space; all saved files are intact." if full else "Use another directory."
    return StorageError(
        f"{path} cannot be written: {error.strerror or error}", hint=limit_hint(error) or hint
    )
