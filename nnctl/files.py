"""Writing so that a crash leaves the old or the new: files in one piece, lines at the end; JSON."""

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

TEMPORARY = ".nnctl-tmp"
"""The end of the name of a temporary file; see `is_temporary`."""
_ATTEMPTS = 100
_PAUSES = (0.01, 0.05, 0.2, 0.5, 1.0) if os.name == "nt" else ()
"""Seconds to wait in turn where Windows lets nobody rename to a file that another program reads."""
_MOST_BYTES = 2**29  # of a text: a sweep of a hundred thousand trials has half as many


def write_atomically(path: Path, *content: bytes | memoryview) -> None:
    """Write to a temporary file beside `path`, sync it, and rename it to `path`.

    A process that takes the temporary file for what a dead one has left, and removes it, is no
    failure: it is written again.

    Raises
    ------
    OSError
        The folder cannot be written or the disk is full; `path` is then as it was.
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
        with contextlib.suppress(OSError):  # of the two, the first is to be told
            temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _replace(temporary: Path, path: Path) -> None:
    """Rename; where a reader keeps that from being done, wait for it a while."""
    for seconds in _PAUSES:
        try:
            temporary.replace(path)
        except PermissionError:
            time.sleep(seconds)
        else:
            return
    temporary.replace(path)


def read_bytes(path: Path) -> bytes:
    """Return the content of a text file that nnctl has written.

    Raises
    ------
    OSError
        The file cannot be read, is larger than any file that nnctl writes, or is a pipe or a
        device, which could be endless.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device")
    if found.st_size > _MOST_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {_MOST_BYTES:,} bytes")
    return path.read_bytes()


def require_own(path: Path) -> None:
    """Refuse to write into what is there, if it is no file, or a link to one that is elsewhere.

    What is renamed into place needs no such care: it takes the place of the link.

    Raises
    ------
    OSError
        It is a link, a folder, a pipe or a device.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is a link, a folder, a pipe or a device, no file")


def append_lines(path: Path, lines: Iterable[str], *, create: bool = True) -> None:
    """Append lines, and return when they are on the disk.

    Parameters
    ----------
    path : Path
        Of the file.
    lines : iterable of str
        Without their ends.
    create : bool
        Whether to make the file if it is not there.

    Raises
    ------
    OSError
        The disk is full, or cannot be written; the file is then as it was, if that can be done.
        Or it is none; see `require_own`.
    """
    require_own(path)
    with open(path, "ab", buffering=0, opener=None if create else _open_what_is_there) as file:
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


def _open_what_is_there(path: str, flags: int) -> int:
    return os.open(path, flags & ~os.O_CREAT)


def is_temporary(path: Path) -> bool:
    """Tell whether a file is what a process that is writing, or was killed so, has made."""
    return path.name.startswith(".") and path.name.endswith(TEMPORARY)


def remove_temporaries(directory: Path) -> None:
    """Remove what a process that was killed while it wrote has left in a folder."""
    with contextlib.suppress(OSError):  # a folder that is not there has none
        for path in filter(is_temporary, directory.iterdir()):
            with contextlib.suppress(OSError):  # of a folder that is read-only, or no file of ours
                path.unlink()


def _sync_directory(directory: Path) -> None:
    """Make a rename outlive a power cut, where folders can be synced (Windows has no such call)."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def to_json_text(value: Any, indent: int | None = None) -> str:
    """Return plain values as JSON, in which a number that is not finite is null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
