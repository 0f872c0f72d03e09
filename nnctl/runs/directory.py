"""A run directory: the files that hold all that a run was."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
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
from nnctl.config import Config, from_mapping, read_file, resolve, to_mapping, to_yaml
from nnctl.errors import (
    ConfigError,
    DamagedFileError,
    DataError,
    NnctlError,
    StorageError,
    UsageError,
    limit_hint,
    shell_command,
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
from nnctl.nn.activations import Array
from nnctl.nn.metrics import predict
from nnctl.nn.network import Network, count_parameters
from nnctl.nn.regularization import STRIDE
from nnctl.runs.build import build_layers, build_network
from nnctl.runs.checkpoint import Checkpoint, load_checkpoint
from nnctl.runs.plan import changeable, differing
from nnctl.runs.records import (
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

Which = Literal["best", "last"]
_LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""How file systems such as SMB, Lustre and FUSE say that they have no locks."""
_BEGINNING = 10_000  # bytes: those of an export may hold the path of a dataset
_MOST_TOLD = 20  # differences between two configurations
_LONGEST_NAME = 100  # bytes: with the time after it, every file system takes it

FORMAT_VERSION = 1
"""Of a run directory; ``summary.json`` tells it."""

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
"""What the summary of a run tells at least, and what of the rest is used."""
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
    """Tell whether it is the health of a layer; earlier versions measured less, without errors."""
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
"""What the metrics of an epoch tell at least."""


def _is_row(value: Any) -> bool:
    """Tell whether it is the metrics of an epoch: validated in both measures, or in none."""
    return _ROW(value) and (value["val_loss"] is None) == (value["val_accuracy"] is None)


class DirectoryLock:
    """The right to write to a directory; the system takes it from a process that dies.

    Parameters
    ----------
    directory : Path
        Of a run, or of a sweep.
    what : str
        What another process does with it, for the message.
    patience : float
        Seconds to wait for it.

    Attributes
    ----------
    warning : str or None
        A warning for the user if the file system has no locks. Nothing is locked then.
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
        """Take the right, if it is not taken yet."""
        try:
            refused = _refuses_locks(self._directory)
            if refused:
                self.warning = (
                    f"nothing protects {self._directory} from a second process that trains there: "
                    f"the file system has no locks ({refused.strerror})"
                )
                return
            self._lock.acquire()
        except Timeout:
            raise UsageError(
                f"{self._directory} {self._what} by another process",
                hint="Wait for it, or stop it; its state is saved.",
            ) from None
        except OSError as error:
            raise cannot_write(self._directory, error) from None

    def unlock(self) -> None:
        """Give the right back, and leave no file."""
        if self.warning:
            return
        with contextlib.suppress(OSError):  # Windows removes no file that is open
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release(force=True)


def _refuses_locks(directory: Path) -> OSError | None:
    """Return the error of a file system without locks, or None if it has them.

    The answers of FileLock itself depend on its version: an error, a timeout, or a lock file that
    outlives a killed process.
    """
    if sys.platform == "win32":  # where every file system has locks
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
    """A training on the disk, finished or not.

    Parameters
    ----------
    directory : Path
        The folder that holds it.
    """

    directory: Path

    @classmethod
    def create(cls, name: str, runs_dir: Path) -> Run:
        """Make the directory of a new run, ``<name>-<time>``, under a name that is free."""
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
        """Make a run of a directory that the user named, new or empty.

        What a process that was killed before it had begun has left counts as nothing.
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
            There is no such directory, or it holds no run.
        """
        run = cls(directory)
        if not directory.is_dir():
            raise UsageError(f"there is no run directory {directory}")
        if not run.config_path.is_file():
            raise UsageError(f"{directory} is not a run directory: it has no config.yaml")
        return run

    @property
    def resume_command(self) -> str:
        """What to type to go on with it."""
        return shell_command("nnctl", "train", "--resume", self.directory)

    def mismatch_hint(self, checkpoint: Path) -> str:
        """How to repair a run whose checkpoint was trained with another configuration."""
        return (
            f"A run keeps the configuration that it began with: write the values of "
            f"{checkpoint.name} back into {self.config_path}, or put the run's own "
            f"{checkpoint.name} back. For other values, train a new run."
        )

    @property
    def config_path(self) -> Path:
        """The resolved configuration."""
        return self.directory / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """One line of JSON an epoch."""
        return self.directory / "metrics.jsonl"

    @property
    def summary_path(self) -> Path:
        """What came of it."""
        return self.directory / "summary.json"

    def lock(self) -> DirectoryLock:
        """Let no other process train this run, until it is unlocked or forgotten.

        Raises
        ------
        UsageError
            Another process trains it.
        """
        return DirectoryLock(self.directory)

    def wait_until_free(self, seconds: float) -> None:
        """Give another process that trains this run so long to save its state and end.

        Raises
        ------
        UsageError
            It did not.
        """
        DirectoryLock(self.directory, patience=seconds).unlock()

    def checkpoint_path(self, which: Which) -> Path:
        """Return the path of the checkpoint of the best epoch, or of the last state."""
        return self.directory / f"{which}.npz"

    @property
    def config(self) -> Config:
        """The resolved configuration.

        Raises
        ------
        ConfigError
            It has mistakes, or leaves open what a training needs to know.
        """
        return _settled(resolve(read_file(self.config_path)), str(self.config_path))

    @property
    def summary(self) -> dict[str, Any]:
        """What came of the run; empty while it trains, or if it was killed.

        Raises
        ------
        DataError
            It is damaged, or of a later version.
        """
        path = self.summary_path
        try:
            summary = parse(read_bytes(path), halves=True)  # it tells the name of its folder
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DamagedFileError(f"{path} is damaged: {error.strerror or error}") from None
        except ValueError as error:
            raise DamagedFileError(f"{path} is damaged: {error}") from None
        if is_mapping(summary) and "format_version" in summary:  # the first ones had none
            check_version(path, summary["format_version"], FORMAT_VERSION)
        if not _ENDED(summary):
            raise DamagedFileError(f"{path} is damaged: it does not tell what came of a run")
        return dict(summary)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The metrics of every complete epoch; a torn last line is left out.

        Raises
        ------
        DamagedFileError
            A line is not the metrics of an epoch of this run.
        """
        return [row for _, row in self._metrics()]

    def checkpoint(self, which: Which) -> Checkpoint:
        """Read a checkpoint, and check that it belongs to the run's configuration.

        Raises
        ------
        ConfigError
            The run's configuration cannot be read.
        DataError
            There is no checkpoint, it is damaged, or it was trained with another configuration.
        """
        path = self.checkpoint_path(which)
        if which == "best" and not path.exists():
            raise DataError(
                f"{path} is not there: no epoch of this run was complete",
                hint="Use --checkpoint last, if there is one, or go on with: "
                f"{self.resume_command}",
            )
        saved = load_checkpoint(path)
        found, config = config_of(saved, path), self.config
        require_same(
            found,
            path,
            config,
            self.config_path,
            but=changeable(found, config),
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
            Of integers, 0 to 255, or of floats, 0 to 1: a gate's 1 is 255 or 1.0.
        which : str
            The checkpoint.

        Raises
        ------
        UsageError
            The images are of another shape, or other numbers.

        Returns
        -------
        array of float32, shape (n, 10)
            The outputs; under softmax the probability of each digit.
        """
        network = self.network(which)
        return network.outputs(predict(network, _as_inputs(images, network.sizes[0])))

    def forget(self) -> None:
        """Remove what a training has left, so that it begins from nothing."""
        written = (self.config_path, self.metrics_path, self.summary_path)
        self._remove(*written, self.checkpoint_path("last"), self.checkpoint_path("best"))

    def forget_summary(self) -> None:
        """Remove what came of the run, when it goes on."""
        self._remove(self.summary_path)

    def remove_temporaries(self) -> None:
        """Remove what a process that was killed while it wrote has left."""
        with _writing(self.directory):
            remove_temporaries(self.directory)

    def write_config(self, config: Config) -> None:
        """Write the resolved configuration."""
        comment = f"Resolved by nnctl {nnctl.__version__}: every default is written out."
        text = to_yaml(to_mapping(config), comment)
        self._write(self.config_path, text)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write what came of the run."""
        self._write(self.summary_path, to_json_text(summary, indent=2) + "\n")

    def append_metrics(self, row: Mapping[str, Any]) -> str:
        """Append the metrics of an epoch, and return the line."""
        line = json.dumps(row, allow_nan=False)
        append_lines(self.metrics_path, [line])
        return f"{line}\n"

    def keep_metrics_until(self, epoch: int, sha256: str | None = None) -> str:
        """Drop the metrics of later epochs, and a torn line: they are going to be written again.

        Parameters
        ----------
        epoch : int
            The last epoch whose metrics are kept.
        sha256 : str, optional
            The SHA-256 of what is kept, if it is known.

        Returns
        -------
        str
            What is kept.

        Raises
        ------
        DamagedFileError
            The metrics of an earlier epoch are missing or were changed.
        """
        lines = [line for line, _ in self._metrics()][:epoch]
        if len(lines) < epoch:
            raise DamagedFileError(
                f"{self.metrics_path} is damaged: it ends with epoch {len(lines)}, and {epoch} are "
                "done"
            )
        text = "".join(f"{line}\n" for line in lines)
        if sha256 not in (None, hashlib.sha256(text.encode()).hexdigest()):
            raise DamagedFileError(
                f"{self.metrics_path} is damaged: its epochs are not those that last.npz was saved "
                "after",
                hint="Put the file back as it was, or train a new run.",
            )
        self._write(self.metrics_path, text)
        return text

    def require_nothing_done(self) -> None:
        """Make sure that no more than an epoch is lost if it is begun from nothing.

        Raises
        ------
        DamagedFileError
            The checkpoint to go on from must have been there.
        """
        done, best = len(self.metrics), self.checkpoint_path("best")
        if best.exists():
            done = max(done, load_checkpoint(best).progress.epoch)
        if done > 1:  # before it is saved the first time, a process may be killed
            raise DamagedFileError(
                f"there is no {self.checkpoint_path('last')}, though {done} epochs are done",
                hint="Put it back, or begin a new run; what the best epoch has learned can be "
                "evaluated as before.",
            )

    def _metrics(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the lines of the metrics, each with what it says."""
        path = self.metrics_path
        try:
            content = read_bytes(path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise DamagedFileError(f"{path} is damaged: {error.strerror or error}") from None
        layers = len(self.config.network.layers) if content else 0
        rows: list[tuple[str, dict[str, Any]]] = []
        # What has no line end was not written to the end.
        for number, line in enumerate(content.split(b"\n")[:-1], start=1):
            try:
                text = line.decode()
                row = parse(text)
            except ValueError:
                row = None
            before = rows[-1][1]["epoch"] if rows else 0
            if not _is_row(row) or row["epoch"] != before + 1 or len(row["health"]) != layers:
                raise DamagedFileError(
                    f"{path}:{number} is damaged: it is not the metrics of an epoch"
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
    """Say what cannot be written, where it cannot."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from None


def _as_inputs(images: ArrayLike, pixels: int) -> NDArray[Any]:
    """Return images as uint8 or float32 ``(n, pixels)``, or say what is wrong with them."""
    inputs = np.asarray(images)
    if inputs.ndim == 3:
        inputs = inputs.reshape(len(inputs), -1) if len(inputs) else inputs.reshape(0, pixels)
    if inputs.ndim != 2 or inputs.shape[1] != pixels or not len(inputs):
        raise UsageError(f"expected images of shape (n, {pixels}), got {np.shape(images)}")
    if inputs.dtype.kind in "iub":
        if inputs.min() < 0 or inputs.max() > 255:
            raise UsageError("pixels that are integers must be 0 to 255")
        return inputs.astype(np.uint8, copy=False)
    if inputs.dtype.kind != "f" or not np.isfinite(inputs).all():
        raise UsageError("pixels must be integers from 0 to 255, or finite floats from 0 to 1")
    return inputs.astype(np.float32, copy=False)


def require_same(
    found: Config,
    path: Path,
    expected: Config,
    source: Path | str,
    *,
    but: Collection[str] = (),
    hint: str | None = None,
) -> None:
    """Check that a file of a run has the configuration that it must have.

    Parameters
    ----------
    found : Config
        The configuration in the file.
    path : Path
        The file.
    expected : Config
        The configuration that it must have.
    source : Path or str
        Where that one stands.
    but : collection of str
        Keys that may differ.
    hint : str, optional
        How to repair it.

    Raises
    ------
    DamagedFileError
        With both values of each key that differs.
    """
    different = [
        f"{key}: {ours} in {path.name}, {theirs} in {Path(source).name}"
        for key, (ours, theirs) in differing(found, expected).items()
        if key not in but
    ]
    if different:
        lines = [f"{path} does not match {source}; they differ in:", *different[:_MOST_TOLD]]
        if more := different[_MOST_TOLD:]:
            lines.append(f"... and {len(more):,} more")
        raise DamagedFileError("\n  ".join(lines), hint=hint)


def config_of(checkpoint: Checkpoint, path: Path) -> Config:
    """Return the configuration of a checkpoint.

    Raises
    ------
    DamagedFileError
        It is none that a training can have.
    """
    try:
        return _settled(from_mapping(checkpoint.config, str(path)), str(path))
    except ConfigError as error:
        raise DamagedFileError(f"{path} is damaged: {error.message}") from None


def network_of(checkpoint: Checkpoint, path: Path) -> Network:
    """Return the network of a checkpoint that was validated: of mean parameters, if any.

    Raises
    ------
    DamagedFileError
        They do not fit its configuration.
    """
    config, pixels = config_of(checkpoint, path), checkpoint.dataset["pixels"]
    size = checkpoint.parameters.size
    # Counted before any is made: a configuration can ask for more than there is memory.
    if count_parameters(pixels, build_layers(config)) != size:
        raise DamagedFileError(f"{path} is damaged: its parameters do not fit its configuration")
    parameters = checkpoint.parameters
    if config.training.average is not None and _steps(config, checkpoint) >= STRIDE:
        parameters = checkpoint.velocity[-size:]
    if parameters.size != size:
        raise DamagedFileError(f"{path} is damaged: it has no mean parameters")
    network = build_network(config, pixels)
    network.parameters.vector[...] = parameters
    return network


def _steps(config: Config, checkpoint: Checkpoint) -> int:
    """Return how many steps led to a checkpoint."""
    progress, examples = checkpoint.progress, checkpoint.dataset["training"]
    batches = math.ceil(examples / config.training.batch_size)
    steps: int = progress.epoch * batches + progress.batch
    return min(steps, config.training.steps or steps)


def _settled(config: Config, source: str) -> Config:
    """Return the configuration of a run, if nothing in it is left to be found out."""
    left = {
        "data.validation": config.data.validation,
        "training.epochs": config.training.epochs,
        "training.threads": config.training.threads,
    }
    mistakes = [
        f"{source}: {key}: a run has a number here, not auto"
        for key, value in left.items()
        if value == "auto"
    ]
    if mistakes:
        raise ConfigError(source, mistakes, hint="Train it as a configuration: nnctl train CONFIG")
    return config


def require_empty(directory: Path) -> None:
    """Refuse a directory that holds anything but what a killed process may have left.

    Raises
    ------
    UsageError
        It holds a run, or something else.
    """
    try:
        if all(path.name == _LOCK or is_temporary(path) for path in directory.iterdir()):
            return
    except OSError as error:
        raise cannot_write(directory, error) from None
    run = Run(directory)
    raise UsageError(
        f"{directory} is not empty",
        hint=f"To go on with the run that it holds: {run.resume_command}"
        if run.config_path.exists()
        else "Name another directory, which need not exist.",
    )


def require_replaceable(path: Path, beginning: re.Pattern[bytes], what: str) -> None:
    """Refuse to write over a file that the same command has not made.

    Parameters
    ----------
    path : Path
        Where something is to be written.
    beginning : re.Pattern
        What is found in the first bytes of each file that the command makes.
    what : str
        What the command makes.

    Raises
    ------
    UsageError
        Another file is there, or a folder, a pipe or a device.
    """
    hint = "Name another file with --output."
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # nothing is there, or `cannot_write` will say what is wrong
    if not stat.S_ISREG(mode):  # to open a pipe is to wait for whoever writes to it
        raise UsageError(f"{path} is a folder, a pipe or a device, no file", hint=hint)
    try:
        with path.open("rb") as file:
            ours = beginning.search(file.read(_BEGINNING))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint=hint) from None
    if not ours:
        raise UsageError(f"{path} is there, and is no {what} of nnctl", hint=hint)


def cannot_write(path: Path, error: OSError) -> NnctlError:
    """Return the error to raise where something cannot be written."""
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(
            f"{path} cannot be written: {error.strerror}", hint="Choose a shorter name."
        )
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "Make room; what was saved before is intact." if full else "Name another directory."
    return StorageError(
        f"{path} cannot be written: {error.strerror or error}", hint=limit_hint(error) or hint
    )
