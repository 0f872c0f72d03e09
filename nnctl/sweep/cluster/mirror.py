"""The run directory of a trial here, while it is trained on another machine."""

from __future__ import annotations

import json
from dataclasses import replace

from nnctl.files import append_lines, remove_temporaries, require_own, write_atomically
from nnctl.runs.directory import DirectoryLock, Run, cannot_write
from nnctl.sweep.cluster.remote import BEST, CONFIG, LAST, METRICS, STATE, SUMMARY, News
from nnctl.sweep.trials import LOG, Trial, TrialResult, end_of_log

_ORDER = (CONFIG, METRICS, BEST, LAST, LOG)
"""In which files are written, so that a training goes on from them if not all of them are."""


class Mirror:
    """The run directory of a trial here: what is new elsewhere is written as if it were made here.

    It is locked from the beginning, and has to be unlocked.

    Parameters
    ----------
    trial : Trial
        With its directory here.

    Raises
    ------
    UsageError
        Another process writes to the directory.
    StorageError
        It cannot be written.
    """

    def __init__(self, trial: Trial) -> None:
        self.lengths = {METRICS: 0, LOG: 0}
        """How much of the texts that grow is here."""
        self.versions: dict[str, int] = {}
        """Which version of the other files is here; 0 is that which was sent there."""
        self._trial = trial
        self._directory = trial.directory
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self._directory, error) from None
        self._lock = DirectoryLock(self._directory)

    def unlock(self) -> None:
        """Let others write to the directory."""
        self._lock.unlock()

    def state(self) -> dict[str, bytes]:
        """Return the files from which the training goes on."""
        try:
            remove_temporaries(self._directory)
            paths = [self._directory / name for name in STATE]
            files = {path.name: path.read_bytes() for path in paths if path.exists()}
        except OSError as error:
            raise cannot_write(self._directory, error) from None
        self.versions = dict.fromkeys(files, 0)
        return files

    def write(self, news: News) -> None:
        """Write what is new there.

        Raises
        ------
        StorageError
            It cannot be written.
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
        if name == LOG:  # which goes on after what other processes have noted
            require_own(path)
            with path.open("ab") as log:
                log.write(content)
        elif self.lengths[name]:
            append_lines(path, content.decode().splitlines())
        else:
            write_atomically(path, content)
            Run(self._directory).summary_path.unlink(missing_ok=True)  # it is none any more
        self.lengths[name] += len(content)

    def conclude(self, result: TrialResult, files: dict[str, bytes]) -> TrialResult:
        """Write what there is in the end; return the result as if it had come about here.

        Raises
        ------
        StorageError
            It cannot be written.
        """
        added = {name: files.get(name, b"")[length:] for name, length in self.lengths.items()}
        others = {name: (0, files[name]) for name in files if name not in (*added, SUMMARY)}
        self.write(News(added, others))
        here = str(self._directory)
        run = Run(self._directory)
        if SUMMARY in files:
            run.write_summary({**json.loads(files[SUMMARY]), "run_dir": here})
        else:
            run.summary_path.unlink(missing_ok=True)
        return replace(
            result,
            reason=result.reason.replace(result.run_dir, here),
            run_dir=here,
            log=end_of_log(self._trial) if result.log else "",
        )
