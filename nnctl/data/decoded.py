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
from nnctl.files import write_atomically

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
        with contextlib.suppress(OSError):
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, idx.header(content.shape), content.data)
        if (mapped := _map(copy, path, dimensions)) is not None:
            return mapped
    return content


def _map(copy: Path, source: Path, dimensions: int) -> NDArray[np.uint8] | None:
    """Map a copy, if it is there and what its source holds."""
    try:
        with source.open("rb") as file:
            file.seek(-8, 2)
            crc_and_length = struct.unpack("<II", file.read())  # the end of a gzip file: RFC 1952
        with copy.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            shape = idx.read_shape(file, copy, dimensions)
            begin = file.tell()
    except (OSError, ValueError, DamagedFileError):  # an empty file is a ValueError
        return None
    if (zlib.crc32(pages), len(pages) % 2**32) != crc_and_length:
        return None
    return np.frombuffer(pages, np.uint8, offset=begin).reshape(shape)
