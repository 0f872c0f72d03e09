"""Memory-mapped, uncompressed copies of large IDX files.

Decompressing MNIST takes a third of a second, which would be most of the startup time of a short
training. The processes of a sweep also share one mapped copy in memory.
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

_MIN_COPY_BYTES = 2**22  # they take some hundredths of a second to decompress


def read(path: Path, copy: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the same as `read_idx`, but from a memory-mapped copy if possible.

    The copy is made on first use, and again if its checksum is not the one in the gzip file. If the
    file is small or not compressed, or if the copy cannot be written, the file itself is read.

    Parameters
    ----------
    path : Path
        IDX file; see `nnctl.data.idx.read_idx`.
    copy : Path
        Path of the uncompressed copy.
    dimensions : int
        Number of dimensions; see `nnctl.data.idx.read_idx`.

    Raises
    ------
    DataError, DamagedFileError
        See `nnctl.data.idx.read_idx`.
    """
    if path.suffix == ".gz" and (mapped := _map(copy, path, dimensions)) is not None:
        return mapped
    content = idx.read_idx(path, dimensions)
    if path.suffix == ".gz" and content.size >= _MIN_COPY_BYTES:
        header = idx.header(content.shape)
        with contextlib.suppress(OSError):
            # The checksum in a gzip file of several members covers only the last one.
            if _checksum(header, content.data) == _checksum_in(path):
                copy.parent.mkdir(parents=True, exist_ok=True)
                remove_temporaries(copy.parent)
                write_atomically(copy, header, content.data)
        if (mapped := _map(copy, path, dimensions)) is not None:
            return mapped
    return content


def _map(copy: Path, source: Path, dimensions: int) -> NDArray[np.uint8] | None:
    """Map a copy into memory; None if it is missing or differs from its source."""
    try:
        if not copy.is_file():  # opening a pipe could block permanently
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
    """Return CRC-32 and length modulo 2**32, as gzip stores them."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc, sum(memoryview(part).nbytes for part in parts) % 2**32


def _checksum_in(path: Path) -> tuple[int, int]:
    """Return CRC-32 and length from the end of a gzip file (RFC 1952)."""
    with path.open("rb") as file:
        file.seek(-8, 2)
        crc, length = struct.unpack("<II", file.read())
    return crc, length
