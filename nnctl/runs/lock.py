"""An exclusive lock on the directory of a run or of a sweep."""

from __future__ import annotations

import contextlib
import errno
import sys
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from nnctl.errors import UsageError, storage_errors
from nnctl.files import TEMPORARY

LOCK_NAME = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""Error numbers of file systems without locks, such as SMB, Lustre and FUSE."""


class DirectoryLock:
    """An exclusive lock on a directory; the system releases it if the process dies.

    Parameters
    ----------
    directory : Path
        Directory of a run or of a sweep.
    what : str
        Middle of the error message "DIRECTORY ... by another process".
    timeout : float
        Seconds to wait for another process to release the lock.

    Attributes
    ----------
    warning : str or None
        Warning for the user if the file system does not support locks; then nothing is locked.
    """

    def __init__(
        self, directory: Path, what: str = "is being trained", timeout: float = 0.0
    ) -> None:
        self.warning: str | None = None
        self._directory = directory
        self._what = what
        self._lock = FileLock(directory / LOCK_NAME, timeout=timeout)
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
        with storage_errors(self._directory):
            unsupported = _lock_error(self._directory)
            if unsupported:
                self.warning = (
                    f"{self._directory} cannot be locked: the file system does not support locks "
                    f"({unsupported.strerror}); do not start a second training there"
                )
                return
            try:
                self._lock.acquire()
            except Timeout:
                raise UsageError(
                    f"{self._directory} {self._what} by another process",
                    hint="Wait until that process ends, or stop it; it saves its state.",
                ) from None

    def __enter__(self) -> DirectoryLock:
        """Acquire the lock; see `lock`."""
        self.lock()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self.unlock()

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
