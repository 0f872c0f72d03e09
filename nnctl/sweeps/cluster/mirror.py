"""Local copy of the run directory of a trial that trains on another machine."""

from __future__ import annotations

from nnctl.errors import cannot_write
from nnctl.files import append_lines, remove_temporaries, require_own, write_atomically
from nnctl.runs.lock import DirectoryLock
from nnctl.runs.run import Run
from nnctl.runs.summary import Summary
from nnctl.sweeps.cluster.remote import BEST, CONFIG, LAST, METRICS, STATE, SUMMARY, News
from nnctl.sweeps.trials import LOG, Trial, TrialResult, log_tail

_ORDER = (CONFIG, METRICS, BEST, LAST, LOG)
"""Order in which files are written: a run can resume even if only the first ones are new."""


class Mirror:
    """Local run directory of a remote trial, updated as if the trial were trained here.

    The directory is locked until `unlock` is called.

    Parameters
    ----------
    trial : Trial
        Trial with its local directory.

    Raises
    ------
    UsageError
        Another process writes to the directory.
    StorageError
        The directory cannot be written.
    """

    def __init__(self, trial: Trial) -> None:
        self.lengths = {METRICS: 0, LOG: 0}
        """Bytes of the growing text files that are here."""
        self.versions: dict[str, int] = {}
        """Versions of the other files that are here; 0 is the version sent to the worker."""
        self._trial = trial
        self._directory = trial.directory
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self._directory, error) from None
        self._lock = DirectoryLock(self._directory)

    def unlock(self) -> None:
        """Unlock the directory for other processes."""
        self._lock.unlock()

    def state(self) -> dict[str, bytes]:
        """Return the files from which the training resumes."""
        try:
            remove_temporaries(self._directory)
            paths = [self._directory / name for name in STATE]
            files = {path.name: path.read_bytes() for path in paths if path.exists()}
        except OSError as error:
            raise cannot_write(self._directory, error) from None
        self.versions = dict.fromkeys(files, 0)
        return files

    def write(self, news: News) -> None:
        """Write the changes that a worker sent.

        Raises
        ------
        StorageError
            The directory cannot be written.
        """
        try:
            for name in _ORDER:
                if news.added.get(name):
                    self._add(name, news.added[name])
                elif name in news.files:
                    self.versions[name], content = news.files[name]
                    write_atomically(self._directory / name, content)
        except OSError as error:
            raise cannot_write(self._directory, error) from None

    def _add(self, name: str, content: bytes) -> None:
        path = self._directory / name
        if name == LOG:  # also contains lines from this machine
            require_own(path)
            with path.open("ab") as log:
                log.write(content)
        elif self.lengths[name]:
            append_lines(path, content.decode().splitlines())
        else:
            write_atomically(path, content)
            Run(self._directory).summary_path.unlink(missing_ok=True)  # it is outdated
        self.lengths[name] += len(content)

    def conclude(self, result: TrialResult, files: dict[str, bytes]) -> TrialResult:
        """Write the final files; return the result with the paths of this machine.

        Raises
        ------
        StorageError
            The directory cannot be written.
        """
        added = {name: files.get(name, b"")[length:] for name, length in self.lengths.items()}
        others = {name: (0, files[name]) for name in files if name not in (*added, SUMMARY)}
        self.write(News(added, others))
        here = str(self._directory)
        run = Run(self._directory)
        if SUMMARY in files:
            summary = Summary.model_validate_json(files[SUMMARY])
            run.write_summary(summary.model_copy(update={"run_dir": here}))
        else:
            run.summary_path.unlink(missing_ok=True)
        return result.model_copy(
            update={
                "reason": result.reason.replace(str(result.run_dir), here),
                "run_dir": self._directory,
                "log": log_tail(self._trial) if result.log else "",
            }
        )
