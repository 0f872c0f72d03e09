"""Reading IDX, the format of MNIST's files, compressed with gzip or not.

Four bytes of magic number (two zeros, the type of the elements, the number of dimensions), each
dimension as a 32-bit big-endian integer, then the elements.
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
_MAX_BYTES = 800_000_000  # a million images of 28 x 28; with more, a bomb could fill the memory

_PIECE = 2**20


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes of an IDX file.

    Parameters
    ----------
    path : Path
        A file, compressed if its name ends in ``.gz``.
    dimensions : int
        How many are expected: 3 for images, 1 for labels.

    Raises
    ------
    DataError
        The file cannot be read.
    DamagedFileError
        It is not such an IDX file, or not a whole one.
    """
    try:
        with _open(path) as file:
            return _read(file, path, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"is not a whole gzip file ({error})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def decode(content: bytes, path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the unsigned bytes of an IDX file that was read already; see `read_idx`.

    Whether it is compressed is told from its first bytes: it may have come without a name.
    """
    file: IO[bytes] = io.BytesIO(content)
    if content.startswith(_GZIP):
        file = cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    try:
        return _read(file, path, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"is not a whole gzip file ({error})") from None


def _read(file: IO[bytes], path: Path, dimensions: int) -> NDArray[np.uint8]:
    shape = read_shape(file, path, dimensions)
    content = np.empty(math.prod(shape), np.uint8)
    count = 0
    # In pieces: what is decompressed as a whole is there twice while it is put together.
    while piece := file.read(min(_PIECE, content.size - count)):
        content[count : count + len(piece)] = np.frombuffer(piece, np.uint8)
        count += len(piece)
    if count < content.size or file.read(1):
        difference = "fewer" if count < content.size else "more"
        raise _damaged(
            path, f"has {difference} bytes than the {content.size:,} its header promises"
        )
    return content.reshape(shape)


def read_idx_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """Return the shape that the header of an IDX file promises; see `read_idx`."""
    try:
        with _open(path) as file:
            return read_shape(file, path, dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"is not a whole gzip file ({error})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def header(shape: tuple[int, ...]) -> bytes:
    """Return the header of an IDX file of unsigned bytes."""
    return bytes((0, 0, _UNSIGNED_BYTE, len(shape))) + np.array(shape, ">u4").tobytes()


def read_shape(file: IO[bytes], path: Path, dimensions: int) -> tuple[int, ...]:
    """Read the header of an IDX file that is open, and return the shape that it promises."""
    magic = file.read(4)
    if magic != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        expected = f"an IDX file of unsigned bytes in {dimensions} dimensions"
        raise _damaged(path, f"is not {expected}: it begins with {magic.hex() or 'nothing'}")
    header = file.read(4 * dimensions)
    if len(header) != 4 * dimensions:
        raise _damaged(path, "ends within its header")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    size = math.prod(shape)
    if not 0 < size <= _MAX_BYTES:
        sizes = " x ".join(f"{side:,}" for side in shape)
        why = f"{_MAX_BYTES:,} are the most" if size else "which cannot be right"
        raise _damaged(path, f"promises {sizes} bytes, {why}")
    return shape


def _open(path: Path) -> AbstractContextManager[IO[bytes]]:
    if path.suffix == ".gz":
        return cast("AbstractContextManager[IO[bytes]]", gzip.open(path, "rb"))
    return path.open("rb")


def _damaged(path: Path, what: str) -> DamagedFileError:
    return DamagedFileError(f"{path} {what}", hint="Replace the file; it is damaged.")
