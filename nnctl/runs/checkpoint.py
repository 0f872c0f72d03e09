"""A checkpoint: everything needed to resume a training, in one ``.npz`` file without pickles.

The arrays are ``parameters``, ``velocity`` (the state of the optimizer) and, if they are used,
``average`` (the averaged parameters) and ``statistics`` (the running means and variances of batch
normalization); everything else is JSON in ``state``. ``digest`` is the
SHA-256 of all of them, so that even one flipped bit is detected as damage.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from nnctl.config import Config, from_mapping, to_mapping
from nnctl.errors import ConfigError, DamagedFileError, DataError
from nnctl.files import write_atomically
from nnctl.nn.optimizers import EMA_EVERY
from nnctl.nn.state import Best, Progress
from nnctl.runs.records import (
    Count,
    Number,
    PositiveCount,
    Record,
    Share,
    check_version,
    first_problem,
    parse_json,
)
from nnctl.runs.resolve import require_resolved
from nnctl.signals import deferring_signals

FORMAT_VERSION = 1
_REQUIRED = ("parameters", "velocity")
_ARRAYS = (*_REQUIRED, "average", "statistics")
_MAX_STATE = 2**24  # bytes; the state of a network of 100 layers has a hundredth of that


class DatasetRecord(Record):
    """The dataset that a run was trained on.

    Parameters
    ----------
    name : str
        Name of the dataset.
    training, validation, pixels : int
        Numbers of training and validation examples, and of inputs.
    hashes : dict of str to str
        The SHA-256 of each file of the dataset.
    classes : list of str, optional
        Names of the classes; None in checkpoints of old versions.
    """

    name: str
    training: PositiveCount
    validation: Count
    pixels: PositiveCount
    hashes: dict[str, str]
    classes: list[str] | None = None


class _GeneratorNumbers(Record, extra="forbid"):
    state: Annotated[int, Field(ge=0, lt=2**128)]
    inc: Annotated[int, Field(ge=0, lt=2**128)]


class _GeneratorState(Record, extra="forbid"):
    """State of NumPy's random generator PCG64."""

    bit_generator: Literal["PCG64"]
    state: _GeneratorNumbers
    has_uint32: Annotated[int, Field(ge=0, lt=2)]
    uinteger: Annotated[int, Field(ge=0, lt=2**32)]


class _Best(Record, extra="forbid"):
    epoch: Count
    val_accuracy: Share | None
    val_loss: Number | None


class _Progress(Record, extra="forbid"):
    """Fields of `Progress`; an alias is the name in the file."""

    rng_state: _GeneratorState = Field(alias="shuffling")
    epoch: Count
    measured: Count | None = None
    batch: Count
    loss_sum: Number
    correct: Count
    seconds: Number
    best: _Best | None
    best_score: Number | None = Field(alias="patience_best")
    wait: Count = Field(alias="patience_used")
    rate_factor: Number = 1.0
    plateau_score: Number | None = None
    plateau_wait: Count = 0


class _State(Record):
    """Content of ``state``."""

    progress: _Progress
    config: dict[str, Any]
    dataset: DatasetRecord
    seconds: Number
    metrics: str | None = None


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a training between two batches.

    Parameters
    ----------
    parameters : array of float32, shape (size,)
        Parameters of the network: all weights, then all biases.
    optimizer_state : array of float32, shape (k * size,)
        State of the optimizer: k arrays one after the other, such as the velocity.
    average : array of float32, shape (size,) or (0,), optional
        Averaged parameters; empty before the first average, None without ``training.average``.
    progress : Progress
        Position within the training, including the state of the random generator.
    config : Config
        Resolved configuration.
    dataset : DatasetRecord
        Dataset of the training, with the hashes of its files.
    seconds : float
        Wall time so far.
    metrics : str, optional
        The SHA-256 of the metrics of the complete epochs; None in checkpoints of old versions.
    statistics : array of float32, optional
        Running statistics of batch normalization; None without any.
    """

    parameters: NDArray[np.float32]
    optimizer_state: NDArray[np.float32]
    average: NDArray[np.float32] | None
    progress: Progress
    config: Config
    dataset: DatasetRecord
    seconds: float
    metrics: str | None = None
    statistics: NDArray[np.float32] | None = None


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically: the old file stays until the new one is on the disk."""
    state = json.dumps(
        {
            "format_version": FORMAT_VERSION,
            "progress": _progress_to_json(checkpoint.progress),
            "config": to_mapping(checkpoint.config),
            "dataset": checkpoint.dataset.model_dump(),
            "seconds": checkpoint.seconds,
            "metrics": checkpoint.metrics,
        }
    )
    arrays: dict[str, Any] = {
        "parameters": checkpoint.parameters,
        "velocity": checkpoint.optimizer_state,
    }
    if checkpoint.average is not None:
        arrays["average"] = checkpoint.average
    if checkpoint.statistics is not None:
        arrays["statistics"] = checkpoint.statistics
    digest = np.array(_digest(arrays, state))
    content = io.BytesIO()
    # If an exception interrupts zipfile between two members, it cannot close the archive.
    with deferring_signals():
        np.savez(content, **arrays, state=np.array(state), digest=digest)
    write_atomically(path, content.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint.

    Raises
    ------
    DataError
        The file is missing, cannot be read, or has the format of a later version.
    DamagedFileError
        The content is not what nnctl wrote.
    """
    try:
        if not path.is_file() and path.exists():
            raise DataError(f"{path} cannot be read: it is not a regular file")
        with path.open("rb") as file:
            members = _read_members(file)
        arrays = {name: members[name] for name in _ARRAYS if name in members}
        text = str(members["state"][()])
        content = parse_json(text)
        intact = str(members["digest"][()]) == _digest(arrays, text)
        version = content["format_version"]
    except FileNotFoundError:
        raise DataError(f"{path}: file not found") from None
    except DataError:
        raise
    except Exception as error:  # zipfile and NumPy raise almost anything on damaged input
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        raise _damaged(path, f"it is not a complete checkpoint ({type(error).__name__})") from None
    check_version(path, version, FORMAT_VERSION)
    if not intact:
        raise _damaged(path, "its content does not match its checksum")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise _damaged(path, "it contains numbers that are not finite")
    try:
        state = _State.model_validate(content)
    except ValidationError as error:
        raise _damaged(path, f"its training state is invalid ({first_problem(error)})") from None
    try:
        config = require_resolved(from_mapping(state.config, str(path)), str(path))
    except ConfigError as error:
        raise DamagedFileError(f"{path} is damaged: {error.message}") from None
    optimizer_state, average = _split_average(state, config, arrays)
    return Checkpoint(
        parameters=arrays["parameters"],
        optimizer_state=optimizer_state,
        average=average,
        progress=_progress_of(state.progress),
        config=config,
        dataset=state.dataset,
        seconds=state.seconds,
        metrics=state.metrics,
        statistics=arrays.get("statistics"),
    )


def _read_members(file: IO[bytes]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file that has exactly the members of a checkpoint."""
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
    names = [info.filename.removesuffix(".npy") for info in infos]
    required, possible = {*_REQUIRED, "state", "digest"}, {*_ARRAYS, "state", "digest"}
    if not required <= set(names) <= possible or len(names) != len(set(names)):
        raise ValueError("unexpected members")
    # A small compressed file can expand to many gigabytes; an uncompressed one cannot.
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise ValueError("compressed members")
    if any(info.filename == "state.npy" and info.file_size > _MAX_STATE for info in infos):
        raise ValueError("state too large")
    file.seek(0)
    with np.load(file, allow_pickle=False) as members:
        arrays = {name: members[name] for name in names}
    for name in {*_ARRAYS} & {*names}:
        if arrays[name].dtype != np.float32 or arrays[name].ndim != 1:
            raise ValueError("not a vector of float32")
    return arrays


def _split_average(
    state: _State, config: Config, arrays: Mapping[str, NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Return the state of the optimizer and the average, which old versions wrote behind it."""
    velocity, average = arrays["velocity"], arrays.get("average")
    size = arrays["parameters"].size
    if average is not None or config.training.average is None or velocity.size < size:
        return velocity, average
    in_use = state.progress.epoch > 0 or state.progress.batch >= EMA_EVERY
    return velocity[:-size], velocity[-size:] if in_use else velocity[:0]


def _progress_to_json(progress: Progress) -> dict[str, Any]:
    values, fields = dataclasses.asdict(progress), _Progress.model_fields
    return {field.alias or name: values[name] for name, field in fields.items()}


def _progress_of(record: _Progress) -> Progress:
    progress = Progress(**record.model_dump(exclude={"best"}))
    if record.measured is None:  # early versions measured every epoch
        progress.measured = record.epoch
    progress.best = Best(**record.best.model_dump()) if record.best else None
    return progress


def _digest(arrays: Mapping[str, NDArray[Any]], state: str) -> str:
    digest = hashlib.sha256()
    for part in (*(arrays[name].tobytes() for name in _ARRAYS if name in arrays), state.encode()):
        digest.update(part)
    return digest.hexdigest()


def _damaged(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(
        f"{path} is damaged: {reason}",
        hint="If the run's other checkpoint is intact, use it with --checkpoint best or last.",
    )
