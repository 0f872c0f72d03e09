"""Reading IDX files, the format of MNIST, with or without gzip compression.

The format: four bytes of magic number (two zeros, the type of the elements, the number of
dimensions), each dimension as a 32-bit big-endian integer, then the elements.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from nnctl.errors import DamagedFileError, DataError

_UNSIGNED_BYTE = 8
_GZIP = b"\x1f\x8b"
_MAX_BYTES = 800_000_000  # a million images of 28 x 28; protects against decompression bombs

_CHUNK = 2**20  # bytes


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes of an IDX file.

    Parameters
    ----------
    path : Path
        IDX file, compressed if its name ends in ``.gz``.
    dimensions : int
        Expected number of dimensions: 3 for images, 1 for labels.

    Raises
    ------
    DataError
        The file cannot be read.
    DamagedFileError
        The file is not an IDX file with these dimensions, or is incomplete.
    """
    try:
        with _open(path) as file:
            return _read(file, path, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"is not a complete gzip file ({error})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def decode(content: bytes, path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes of an IDX file whose content was already read; see `read_idx`.

    The first bytes show whether it is compressed, because standard input has no file name.
    """
    file: IO[bytes] = io.BytesIO(content)
    if content.startswith(_GZIP):
        file = cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    try:
        return _read(file, path, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"is not a complete gzip file ({error})") from None


def _read(file: IO[bytes], path: Path, dimensions: int) -> NDArray[np.uint8]:
    shape = read_shape(file, path, dimensions)
    content = np.empty(math.prod(shape), np.uint8)
    count = 0
    # Reading in chunks avoids a second copy of the whole content in memory.
    while chunk := file.read(min(_CHUNK, content.size - count)):
        content[count : count + len(chunk)] = np.frombuffer(chunk, np.uint8)
        count += len(chunk)
    if count < content.size or file.read(1):
        difference = "fewer" if count < content.size else "more"
        raise _damaged(path, f"has {difference} bytes than the {content.size:,} in its header")
    return content.reshape(shape)


def read_idx_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """Return the shape in the header of an IDX file; see `read_idx`."""
    try:
        with _open(path) as file:
            return read_shape(file, path, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"is not a complete gzip file ({error})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def read_shape(file: IO[bytes], path: Path, dimensions: int) -> tuple[int, ...]:
    """Read the header of an open IDX file, and return its shape."""
    magic = file.read(4)
    if magic != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        expected = f"an IDX file of unsigned bytes in {dimensions} dimensions"
        begin = f"it begins with {magic.hex()}" if magic else "it is empty"
        raise _damaged(path, f"is not {expected}: {begin}")
    header = file.read(4 * dimensions)
    if len(header) != 4 * dimensions:
        raise _damaged(path, "is incomplete: it ends within its header")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    size = math.prod(shape)
    if not 0 < size <= _MAX_BYTES:
        sizes = " x ".join(f"{side:,}" for side in shape)
        reason = f"the limit is {_MAX_BYTES:,}" if size else "a size of zero is not valid"
        raise _damaged(path, f"has a header for {sizes} bytes; {reason}")
    return shape


def _open(path: Path) -> AbstractContextManager[IO[bytes]]:
    if path.suffix == ".gz":
        return cast("AbstractContextManager[IO[bytes]]", gzip.open(path, "rb"))
    return path.open("rb")


def _damaged(path: Path, problem: str) -> DamagedFileError:
    return DamagedFileError(f"{path} {problem}", hint="Replace the damaged file.")
