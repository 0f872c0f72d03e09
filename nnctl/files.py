"""Writing files so that a crash leaves either the old or the new content; JSON text."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnctl.errors import UsageError

TEMPORARY = ".nnctl-tmp"
"""Suffix of temporary files; see `is_temporary`."""
_ATTEMPTS = 100
_PAUSES = (0.01, 0.05, 0.2, 0.5, 1.0) if os.name == "nt" else ()
"""Seconds between retries: Windows refuses to replace a file that another program reads."""
_MAX_BYTES = 2**29  # the journal of a sweep with a hundred thousand trials has half of this


def expand_home(path: str | Path) -> Path:
    """Return a path with ``~`` or ``~user`` replaced by the user's home directory.

    Shells do not replace it within a word, as in ``--data-dir=~/mnist``, and YAML never does.

    Raises
    ------
    UsageError
        The path begins with ``~``, but the home directory is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        if Path(path).parts[0] == "~":
            raise UsageError(f"{path}: the home directory is unknown", hint="Set HOME.") from None
        return Path(path)  # a file whose name begins with ~


def exists(path: Path) -> bool:
    """Return whether a path exists; False if it is not valid, for example too long."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Write a temporary file in the same directory, sync it, and rename it to `path`.

    Another process may remove the temporary file, because it looks like a leftover of a killed
    process. In that case the file is written again.

    Raises
    ------
    OSError
        The directory cannot be written or the disk is full; `path` is then unchanged.
    """
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):
            return _write_and_rename(path, content)
    return _write_and_rename(path, content)


def _write_and_rename(path: Path, content: Iterable[bytes | memoryview]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _replace(temporary: Path, path: Path) -> None:
    """Rename a file, and retry for some time while a reader blocks it (on Windows)."""
    for seconds in _PAUSES:
        with contextlib.suppress(PermissionError):
            temporary.replace(path)
            return
        time.sleep(seconds)
    temporary.replace(path)


def read_bytes(path: Path) -> bytes:
    """Return the content of a text file that nnctl has written.

    Raises
    ------
    OSError
        The file cannot be read, is larger than any file that nnctl writes, or is a pipe or a
        device, which could be endless.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device")
    if status.st_size > _MAX_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {_MAX_BYTES:,} bytes")
    return path.read_bytes()


def require_own(path: Path) -> None:
    """Raise an error if a path exists and is not a regular file, or is a symbolic link.

    This protects files that are appended to. `write_atomically` does not need it, because a
    rename replaces a link and does not follow it.

    Raises
    ------
    OSError
        The path is a symbolic link, a directory, a pipe or a device.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a link, a folder, a pipe or a device")


OTHER_OUTPUT = "Use another file with --output."
"""Advice if an output file cannot be written."""


def require_replaceable(path: Path, suffix: str) -> None:
    """Check that an output file does not exist, or is a file with the suffix of its format.

    This protects the files of the user and of the run: only another output can be overwritten.

    Raises
    ------
    UsageError
        The path is a file with another suffix, or a folder, a pipe or a device.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # the file does not exist, or writing it raises an error
    if not stat.S_ISREG(mode):  # opening a pipe would wait for another process
        raise UsageError(f"{path} is a folder, a pipe or a device, not a file", hint=OTHER_OUTPUT)
    if path.suffix.lower() != suffix:
        raise UsageError(
            f"{path} exists and its name does not end with {suffix}", hint=OTHER_OUTPUT
        )


def append_lines(path: Path, lines: Iterable[str], *, create: bool = True) -> None:
    """Append lines to a file, and return when they are on disk.

    Parameters
    ----------
    path : Path
        File to append to.
    lines : iterable of str
        Lines without line endings.
    create : bool
        Whether to create a missing file.

    Raises
    ------
    OSError
        The disk is full or cannot be written; the file is truncated to its old size if possible.
        Or the path is not a regular file; see `require_own`.
    """
    require_own(path)
    with open(path, "ab", buffering=0, opener=None if create else _open_existing) as file:
        before = file.tell()
        content = "".join(f"{line}\n" for line in lines).encode()
        try:
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(before)
            raise


def _open_existing(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


def is_temporary(path: Path) -> bool:
    """Return whether a file is a temporary file of `write_atomically`."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)


def remove_temporaries(directory: Path) -> None:
    """Remove temporary files that killed processes have left in a directory."""
    with contextlib.suppress(OSError):  # the directory may not exist
        for path in filter(is_temporary, directory.iterdir()):
            with contextlib.suppress(OSError):  # a read-only directory, or another user's file
                path.unlink()


def _sync_directory(directory: Path) -> None:
    """Make a rename survive a power failure, where directories can be synced (not on Windows)."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def to_json_text(value: Any, indent: int | None = None) -> str:
    """Return JSON-compatible values as JSON text; numbers that are not finite become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
