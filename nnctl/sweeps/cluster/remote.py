"""Functions that run in the process of a Dask worker: they train trials and return their progress.

`Assignment` calls them: `train` as a task, in a thread of its own; the others on the event loop,
which they block, so they are short. Each trial's own thread reads its files, between two training
steps, when no file is being written.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nnctl
from nnctl.data.dataset import Dataset, data_directory, mnist_directory, open_dataset
from nnctl.data.download import sha256_of
from nnctl.data.gates import GATES
from nnctl.data.registry import MNIST
from nnctl.errors import DamagedFileError, UsageError, cannot_write
from nnctl.files import write_atomically
from nnctl.sweeps.trials import LOG, Trial, TrialResult, append_log
from nnctl.sweeps.workers import TrainTrial
from nnctl.system import single_threaded_blas

CONFIG, METRICS, BEST, LAST, SUMMARY = (
    "config.yaml", "metrics.jsonl", "best.npz", "last.npz", "summary.json",
)  # fmt: skip
STATE = (CONFIG, METRICS, BEST, LAST, SUMMARY)
"""Files of a run directory that are necessary to resume it on any machine."""
CHECKPOINTS = (CONFIG, BEST, LAST)
"""Files that an epoch replaces, in the order in which they are written."""

_PATIENCE = 30.0  # seconds without a call after which the client counts as gone
_PATIENCE_IF_FULL = 10.0  # the same, if another trial waits for a thread
_BYTES_A_SECOND = 1e6  # transfer rate of the slowest connection
_STUCK = 5.0  # seconds after the request to stop until a trial counts as stuck


class UnknownTrialError(Exception):
    """The trial is not known: this process has replaced a worker process that died."""


@dataclass(frozen=True)
class DataReference:
    """Identifies a dataset by its content, as its paths are not valid on another machine.

    Parameters
    ----------
    name : str
        Name in the configuration of the client.
    hashes : dict
        SHA-256 of each file; see `Dataset`.
    file_names : dict
        File names at the client, by the name of the IDX file.
    """

    name: str
    hashes: dict[str, str]
    file_names: dict[str, str]

    @property
    def key(self) -> str:
        """Directory name derived from the hashes."""
        text = json.dumps(sorted(self.hashes.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def accepted(self, idx_name: str) -> dict[str, str]:
        """Return the allowed names of a file, each with its SHA-256."""
        if self.name == "mnist":
            known = MNIST[idx_name]
            return {known.gzip_name: known.sha256, known.name: known.idx_sha256}
        file_name = self.file_names[idx_name]
        return {file_name: self.hashes[file_name]}


@dataclass(frozen=True)
class News:
    """Changes of a trial's files that its client does not have yet.

    Parameters
    ----------
    added : dict
        Bytes appended to each text file that only grows, by file name.
    files : dict
        Version and content of each other file, by file name.
    """

    added: dict[str, bytes]
    files: dict[str, tuple[int, bytes]]


@dataclass
class _Outbox:
    """A trial in this process, the requests of its client, and its files for the client."""

    trial: Trial
    """Its directory is empty until `train` starts it."""
    work: TrainTrial
    files: dict[str, tuple[int, bytes]]
    metrics: bytes = b""
    stop: bool = False
    forgotten: bool = False
    last_call: float = field(default_factory=time.monotonic)
    sending: float = 0.0
    stop_requested_at: float | None = None
    requested: str = ""
    worker: Any = None
    thread: int | None = None
    directory: Path | None = None

    def train(self) -> tuple[TrialResult, dict[str, bytes]] | None:
        """Train the trial; return its result and files, or None if its client is gone."""
        from distributed import get_worker

        self.worker, self.thread = get_worker(), threading.get_ident()
        # Dask removes the folder of a worker even if the worker was killed.
        parent = Path(self.worker.local_directory)
        try:
            with tempfile.TemporaryDirectory(
                dir=parent, prefix="nnctl-", ignore_cleanup_errors=True
            ) as folder:
                return self._train_in(Path(folder))
        except OSError as error:
            raise cannot_write(parent, error) from None

    def _train_in(self, directory: Path) -> tuple[TrialResult, dict[str, bytes]] | None:
        for name, (_, content) in self.files.items():
            (directory / name).write_bytes(content)
        self.directory = directory
        trial = replace(self.trial, directory=directory)
        result = self.work(trial, trial.dataset, self.should_stop)
        if result.status == "interrupted" and not self.stop:
            return None
        return result, {
            name: (directory / name).read_bytes()
            for name in (*STATE, LOG)
            if (directory / name).exists()
        }

    def should_stop(self) -> bool:
        """Read the files that the client requested; return whether the trial should stop."""
        requested, self.requested = self.requested, ""
        if requested:
            self._read_files(checkpoints=requested == "checkpoints")
        return self.stop or self.is_forgotten()

    def _read_files(self, *, checkpoints: bool) -> None:
        files = dict(self.files)
        for name in CHECKPOINTS if checkpoints else ():
            content = self._read(name)
            version, old = files.get(name, (0, b""))
            if content and content != old:
                files[name] = (version + 1, content)
        self.metrics = self._read(METRICS)
        self.files = files

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes() if self.directory else b""
        except FileNotFoundError:
            return b""

    def is_forgotten(self) -> bool:
        """Return whether the trial has no client any more."""
        closing = self.worker is not None and self.worker.status.name in ("closing", "closed")
        other_waits = any(other.thread is None for other in list(_outboxes.values()))
        patience = self.sending + (_PATIENCE_IF_FULL if other_waits else _PATIENCE)
        return self.forgotten or closing or time.monotonic() - self.last_call > patience

    def changes(
        self, lengths: Mapping[str, int], versions: Mapping[str, int], *, checkpoints: bool
    ) -> News:
        """Return the changes for the client, and request that the trial reads its files again.

        Parameters
        ----------
        lengths : mapping
            Bytes of each text file that the client has.
        versions : mapping
            Version of each other file that the client has.
        checkpoints : bool
            Whether to include checkpoints.
        """
        files = self.files  # before the metrics, which must not be older than the files
        news = News(
            {METRICS: self.metrics[lengths[METRICS] :], LOG: self._read(LOG)[lengths[LOG] :]},
            {
                name: files[name]
                for name in CHECKPOINTS
                if checkpoints and name in files and files[name][0] != versions.get(name)
            },
        )
        self.requested = "checkpoints" if checkpoints else "metrics"
        self.last_call = time.monotonic()
        sent = sum(len(content) for _, content in news.files.values())
        self.sending = sent / _BYTES_A_SECOND
        return news

    def request_stop(self) -> None:
        """Request that the trial stops; if it is stuck, write its stack to its log."""
        self.stop = True
        now = time.monotonic()
        if self.stop_requested_at is None:
            self.stop_requested_at = now
        elif now - self.stop_requested_at > _STUCK and self.thread is not None and self.directory:
            self.stop_requested_at = float("inf")  # write the stack once
            stack = "".join(traceback.format_stack(sys._current_frames().get(self.thread)))
            append_log(
                replace(self.trial, directory=self.directory),
                f"the trial does not stop; stack:\n{stack}",
            )


_outboxes: dict[str, _Outbox] = {}
_datasets: dict[tuple[str, str], Dataset] = {}


def prepare(version: str, data: DataReference) -> bool:
    """Return whether this machine has a dataset; never download it.

    Raises
    ------
    NnctlError
        This worker has another version of nnctl, or the dataset cannot be read.
    """
    if version != nnctl.__version__:
        raise UsageError(
            f"nnctl {nnctl.__version__} is installed, but the sweep needs nnctl {version}",
            hint="Install the same version on all machines.",
        )
    logging.getLogger("distributed.worker").addFilter(_is_not_fetch)
    return _find(data) is not None


def _is_not_fetch(record: logging.LogRecord) -> bool:
    """Filter out the log records of `fetch_news`, which runs about every second."""
    return record.args != (fetch_news.__name__,)


def receive(data: DataReference, contents: Mapping[str, bytes]) -> None:
    """Write the files of a dataset that the client sent.

    Raises
    ------
    NnctlError
        The files have changed since the sweep started, or they cannot be written.
    """
    folder = _received(data)
    for idx_name, content in contents.items():
        file_name = data.file_names[idx_name]
        if hashlib.sha256(content).hexdigest() != data.accepted(idx_name).get(file_name):
            raise DamagedFileError(
                f"{file_name} of dataset {data.name} has changed since the sweep started"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / file_name, content)
        except OSError as error:
            raise cannot_write(folder, error) from None


def _received(data: DataReference) -> Path:
    return data_directory() / "received" / data.key


def _find(data: DataReference) -> Dataset | None:
    """Return a dataset of this machine, or None; the object is cached with its images."""
    dataset = _datasets.get((data.name, data.key))
    if dataset is None and data.name in ("mini", *GATES):
        dataset = open_dataset(data.name, notify=lambda _: None)
    elif dataset is None:
        folders = [_received(data)] + [mnist_directory()] * (data.name == "mnist")
        files = {idx_name: _find_file(data, idx_name, folders) for idx_name in data.file_names}
        existing = {idx_name: path for idx_name, path in files.items() if path is not None}
        if len(existing) == len(files):
            dataset = Dataset(data.name, existing, data.hashes, data_directory() / "uncompressed")
    if dataset is None:
        return None
    if dict(dataset.hashes) != data.hashes:
        raise DamagedFileError(f"its dataset '{data.name}' differs from that of the sweep")
    return _datasets.setdefault((data.name, data.key), dataset)


def _find_file(data: DataReference, idx_name: str, folders: list[Path]) -> Path | None:
    for folder in folders:
        for file_name, sha256 in data.accepted(idx_name).items():
            path = folder / file_name
            if path.is_file() and sha256_of(path) == sha256:
                return path
    return None


def begin(
    key: str, trial: dict[str, Any], work: TrainTrial, data: DataReference, state: dict[str, bytes]
) -> None:
    """Register a trial, before `train`.

    Parameters
    ----------
    key : str
        Key of the trial in this module.
    trial : dict
        Fields of the `Trial` that are valid on any machine.
    work : callable
        Function that trains it.
    data : DataReference
        Dataset, which this machine has.
    state : dict
        Contents of the files of its run directory, by file name.
    """
    for other, outbox in list(_outboxes.items()):
        if outbox.thread is None and outbox.is_forgotten():  # its client died before it started
            del _outboxes[other]
    dataset = _find(data)
    if dataset is None:
        raise UnknownTrialError(key)
    files = {name: (0, content) for name, content in state.items()}
    _outboxes[key] = _Outbox(Trial(**trial, dataset=dataset, directory=Path()), work, files)


def train(key: str) -> tuple[TrialResult, dict[str, bytes]] | None:
    """Train a trial; see `_Outbox.train`.

    Raises
    ------
    UnknownTrialError
        The trial was registered in another process.
    """
    if key not in _outboxes:
        raise UnknownTrialError(key)
    _keep_blas_on_one_thread()
    try:
        return _outboxes[key].train()
    finally:
        del _outboxes[key]


@functools.cache
def _keep_blas_on_one_thread() -> object:
    """Limit BLAS to one thread permanently, as trials of several threads overlap."""
    limit = single_threaded_blas()
    limit.__enter__()
    return limit


def fetch_news(
    key: str,
    lengths: Mapping[str, int],
    versions: Mapping[str, int],
    *,
    checkpoints: bool,
    stop: bool,
) -> News | None:
    """Return the changes of a trial, if it runs here; see `_Outbox.changes`."""
    outbox = _outboxes.get(key)
    if outbox is None:
        return None
    if stop:
        outbox.request_stop()
    return outbox.changes(lengths, versions, checkpoints=checkpoints)


def forget(key: str) -> None:
    """Stop a trial whose client does not need it any more."""
    if key in _outboxes:
        _outboxes[key].forgotten = True
