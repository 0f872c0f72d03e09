"""Uncompressed copies of large IDX files, mapped into memory.

Decompressing MNIST takes a third of a second, which would be most of the time that a short training
takes to begin. And what is mapped is there once, however many processes of a sweep look at it.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnctl.data import idx
from nnctl.errors import DamagedFileError
from nnctl.files import remove_temporaries, write_atomically

_WORTH_A_COPY = 2**22  # bytes that take some hundredths of a second to decompress


def read(path: Path, copy: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return what `read_idx` does, if it can be from an uncompressed copy that is mapped.

    The copy is made at the first time, and again whenever it is not what the gzip file says that it
    holds. What is small or not compressed, or where no copy can be made, is read.

    Parameters
    ----------
    path : Path
        See `nnctl.data.idx.read_idx`.
    copy : Path
        Where the copy is, or is to be.
    dimensions : int
        See `nnctl.data.idx.read_idx`.

    Raises
    ------
    DataError, DamagedFileError
        See `nnctl.data.idx.read_idx`.
    """
    if path.suffix == ".gz" and (mapped := _map(copy, path, dimensions)) is not None:
        return mapped
    content = idx.read_idx(path, dimensions)
    if path.suffix == ".gz" and content.size >= _WORTH_A_COPY:
        header = idx.header(content.shape)
        with contextlib.suppress(OSError):
            # A gzip file of several members says of the last one only what it holds.
            if _checksum(header, content.data) == _checksum_in(path):
                copy.parent.mkdir(parents=True, exist_ok=True)
                remove_temporaries(copy.parent)
                write_atomically(copy, header, content.data)
        if (mapped := _map(copy, path, dimensions)) is not None:
            return mapped
    return content


def _map(copy: Path, source: Path, dimensions: int) -> NDArray[np.uint8] | None:
    """Map a copy, if it is there and what its source holds."""
    try:
        if not copy.is_file():  # nobody may ever write to a pipe that is opened
            return None
        with copy.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            shape = idx.read_shape(file, copy, dimensions)
            begin = file.tell()
        if _checksum(pages) != _checksum_in(source):
            return None
    except (OSError, ValueError, DamagedFileError):  # an empty file is a ValueError
        return None
    return np.frombuffer(pages, np.uint8, offset=begin).reshape(shape)


def _checksum(*parts: bytes | memoryview | mmap.mmap) -> tuple[int, int]:
    """Return CRC-32 and length, as gzip keeps them."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc, sum(memoryview(part).nbytes for part in parts) % 2**32


def _checksum_in(path: Path) -> tuple[int, int]:
    """Return what the end of a gzip file says of its content (RFC 1952)."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        crc, length = struct.unpack("<II", file.read())
    return crc, length
