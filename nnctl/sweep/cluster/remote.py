"""What a Dask worker does for a sweep: it trains trials in folders of its own, and tells of them.

`Assignment` calls these functions in the worker's process: `train` as a task, in a thread;
all others on its event loop, where everything waits for them, so they are short. What a trial has
done is collected by the trial's own thread, between two of its steps: its files are at rest then.
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
from nnctl.errors import DamagedFileError, UsageError
from nnctl.files import write_atomically
from nnctl.runs.directory import cannot_write
from nnctl.runs.machine import single_threaded_blas
from nnctl.sweep.trials import LOG, Trial, TrialResult, note
from nnctl.sweep.workers import Work

CONFIG, METRICS, BEST, LAST, SUMMARY = (
    "config.yaml", "metrics.jsonl", "best.npz", "last.npz", "summary.json",
)  # fmt: skip
STATE = (CONFIG, METRICS, BEST, LAST, SUMMARY)
"""The files of a run directory from which a training goes on anywhere."""
CHECKPOINTS = (CONFIG, BEST, LAST)
"""Those that are there anew after an epoch; the order is that in which they are written."""

_PATIENCE = 30.0  # seconds without a word after which the client must be gone
_IF_AWAITED = 10.0  # the same, if another trial waits for the thread
_BYTES_A_SECOND = 1e6  # that the slowest network takes
_STUCK = 5.0  # seconds after the word to stop in which a trial that goes on must be stuck


class UnknownTrialError(Exception):
    """A trial that this process was never told of: it has taken the place of one that died."""


@dataclass(frozen=True)
class DataReference:
    """A dataset by its content, since its paths mean nothing on another machine.

    Parameters
    ----------
    name : str
        As the client's configuration names it.
    hashes : dict
        See `Dataset`.
    file_names : dict
        Of the client's files, by the name of the IDX file.
    """

    name: str
    hashes: dict[str, str]
    file_names: dict[str, str]

    @property
    def key(self) -> str:
        """A name made of the hashes."""
        text = json.dumps(sorted(self.hashes.items()))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def accepted(self, idx_name: str) -> dict[str, str]:
        """Return the names that one of its files may have, each with its SHA-256."""
        if self.name == "mnist":
            known = MNIST[idx_name]
            return {known.gzip_name: known.sha256, known.name: known.idx_sha256}
        file_name = self.file_names[idx_name]
        return {file_name: self.hashes[file_name]}


@dataclass(frozen=True)
class News:
    """What the client of a trial does not have yet.

    Parameters
    ----------
    added : dict
        By the name of a text that only grows, what was added to it.
    files : dict
        By the name of any other file, its version and its content.
    """

    added: dict[str, bytes]
    files: dict[str, tuple[int, bytes]]


@dataclass
class _Outbox:
    """A trial in this process: what its client has told it, and what its client can have."""

    trial: Trial
    """Without a directory until it begins."""
    work: Work
    files: dict[str, tuple[int, bytes]]
    metrics: bytes = b""
    stop: bool = False
    forgotten: bool = False
    heard: float = field(default_factory=time.monotonic)
    sending: float = 0.0
    asked: float | None = None
    wanted: str = ""
    worker: Any = None
    thread: int | None = None
    directory: Path | None = None

    def train(self) -> tuple[TrialResult, dict[str, bytes]] | None:
        """Train the trial; return what came of it, and its files. None, if its client is gone."""
        from distributed import get_worker

        self.worker, self.thread = get_worker(), threading.get_ident()
        # Dask removes its worker's folder also after the worker was killed.
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
        """Tell the trial whether to save and end; collect what its client wants of it."""
        wanted, self.wanted = self.wanted, ""
        if wanted:
            self._collect(checkpoints=wanted == "checkpoints")
        return self.stop or self.is_forgotten()

    def _collect(self, *, checkpoints: bool) -> None:
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
        """Tell whether nobody can want to have the trial any more."""
        closing = self.worker is not None and self.worker.status.name in ("closing", "closed")
        awaited = any(other.thread is None for other in list(_outboxes.values()))
        patience = self.sending + (_IF_AWAITED if awaited else _PATIENCE)
        return self.forgotten or closing or time.monotonic() - self.heard > patience

    def tell(
        self, lengths: Mapping[str, int], versions: Mapping[str, int], *, checkpoints: bool
    ) -> News:
        """Return what the client does not have, and let the trial collect more for the next time.

        Parameters
        ----------
        lengths : mapping
            How much of each text the client has.
        versions : mapping
            Which version of each other file it has.
        checkpoints : bool
            Whether it can take the checkpoints.
        """
        files = self.files  # before the metrics, which may be later than the files but not earlier
        news = News(
            {METRICS: self.metrics[lengths[METRICS] :], LOG: self._read(LOG)[lengths[LOG] :]},
            {
                name: files[name]
                for name in CHECKPOINTS
                if checkpoints and name in files and files[name][0] != versions.get(name)
            },
        )
        self.wanted = "checkpoints" if checkpoints else "metrics"
        self.heard = time.monotonic()
        sent = sum(len(content) for _, content in news.files.values())
        self.sending = sent / _BYTES_A_SECOND
        return news

    def ask_to_stop(self) -> None:
        """Let the trial end; where it does not, note in its log where it is stuck."""
        self.stop = True
        now = time.monotonic()
        if self.asked is None:
            self.asked = now
        elif now - self.asked > _STUCK and self.thread is not None and self.directory:
            self.asked = float("inf")  # once is enough
            stack = "".join(traceback.format_stack(sys._current_frames().get(self.thread)))
            note(
                replace(self.trial, directory=self.directory),
                f"it does not stop; it is at\n{stack}",
            )


_outboxes: dict[str, _Outbox] = {}
_datasets: dict[tuple[str, str], Dataset] = {}


def prepare(version: str, data: DataReference) -> bool:
    """Tell whether a dataset is here, without asking the internet.

    Raises
    ------
    NnctlError
        This is another version of nnctl, or the dataset cannot be read.
    """
    if version != nnctl.__version__:
        raise UsageError(
            f"it has nnctl {nnctl.__version__}, and the sweep is of nnctl {version}",
            hint="Install the same version on all machines.",
        )
    logging.getLogger("distributed.worker").addFilter(_is_worth_a_line)
    return _find(data) is not None


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Keep what is asked once a second and a trial out of the worker's log."""
    return record.args != (fetch_news.__name__,)


def receive(data: DataReference, contents: Mapping[str, bytes]) -> None:
    """Keep the files of a dataset.

    Raises
    ------
    NnctlError
        They are not those that the dataset was made of, or they cannot be written.
    """
    folder = _received(data)
    for idx_name, content in contents.items():
        file_name = data.file_names[idx_name]
        if hashlib.sha256(content).hexdigest() != data.accepted(idx_name).get(file_name):
            raise DamagedFileError(
                f"{file_name} of the dataset {data.name} is not what it was when the sweep began"
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / file_name, content)
        except OSError as error:
            raise cannot_write(folder, error) from None


def _received(data: DataReference) -> Path:
    return data_directory() / "received" / data.key


def _find(data: DataReference) -> Dataset | None:
    """Return a dataset that is here, with the name that it has at the client; its images stay."""
    found = _datasets.get((data.name, data.key))
    if found is None and data.name in ("mini", *GATES):
        found = open_dataset(data.name, notify=lambda _: None)
    elif found is None:
        folders = [_received(data)] + [mnist_directory()] * (data.name == "mnist")
        files = {idx_name: _find_file(data, idx_name, folders) for idx_name in data.file_names}
        there = {idx_name: path for idx_name, path in files.items() if path is not None}
        if len(there) == len(files):
            found = Dataset(data.name, there, data.hashes, data_directory() / "uncompressed")
    if found is None:
        return None
    if dict(found.hashes) != data.hashes:
        raise DamagedFileError(f"its digits of '{data.name}' are not those of the sweep")
    return _datasets.setdefault((data.name, data.key), found)


def _find_file(data: DataReference, idx_name: str, folders: list[Path]) -> Path | None:
    for folder in folders:
        for file_name, sha256 in data.accepted(idx_name).items():
            path = folder / file_name
            if path.is_file() and sha256_of(path) == sha256:
                return path
    return None


def begin(
    key: str, trial: dict[str, Any], work: Work, data: DataReference, state: dict[str, bytes]
) -> None:
    """Take a trial to be trained.

    Parameters
    ----------
    key : str
        Its name in this module from now on.
    trial : dict
        The fields of the `Trial` that mean the same here.
    work : callable
        Trains it.
    data : DataReference
        That is here.
    state : dict
        The files of its run directory, by their names.
    """
    for other, left in list(_outboxes.items()):
        if left.thread is None and left.is_forgotten():  # its client has died before it began
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
        It was begun in another process.
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
    """Do for ever what each training does while it lasts: others may begin and end beside it."""
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
    """Return what is new of a trial, if it is trained here; see `_Outbox.tell`."""
    outbox = _outboxes.get(key)
    if outbox is None:
        return None
    if stop:
        outbox.ask_to_stop()
    return outbox.tell(lengths, versions, checkpoints=checkpoints)


def forget(key: str) -> None:
    """Let a trial end that nobody wants any more."""
    if key in _outboxes:
        _outboxes[key].forgotten = True
