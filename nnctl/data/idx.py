"""Reading IDX files, the format of MNIST, with or without gzip compression.

The format: four bytes of magic number (two zeros, the type of the elements, the number of
dimensions), each dimension as a 32-bit big-endian integer, then the elements. Compressed files are
recognized by their content, because the names of many files do not match it.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from nnctl.errors import DamagedFileError, DataError

MAX_BYTES = 800_000_000
"""Maximum size of uncompressed data; protects against decompression bombs."""

_GZIP = b"\x1f\x8b"
_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
"""NumPy's name of each type of elements."""
_DIMENSIONS = {3: (3, 2, 4), 1: (1, 2)}
"""Accepted numbers of dimensions of images, and of labels."""
_CHUNK = 2**20  # bytes
_BLOCK = 1000  # images
_QMNIST_COLUMNS = 8  # numbers per label; the first is the class

_SIGNATURES = {
    _GZIP: "it is still compressed with gzip",
    b"PK\3\4": "it is a zip archive",
    b"BZh": "it is compressed with bzip2",
    b"\xfd7zXZ": "it is compressed with xz",
    b"\x89PNG": "it is a PNG image",
    b"\xff\xd8\xff": "it is a JPEG image",
    b"\x93NUMPY": "it is a file of NumPy",
    b"version https://git-lfs": "it is a pointer of Git LFS, not the file itself",
}
"""What a file seems to be, by its first bytes."""


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the images or the labels in an IDX file.

    Parameters
    ----------
    path : Path
        IDX file, compressed or not.
    dimensions : int
        3 for images, also if each is stored as a row or has a channel; 1 for labels.

    Raises
    ------
    DataError
        The file cannot be read, or is not such an IDX file.
    DamagedFileError
        The file is incomplete or damaged.
    """
    with _opened(path) as file:
        return _read(file, path, dimensions)


def decode(content: bytes, path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the images or labels of an IDX file whose content was already read; see `read_idx`."""
    with _decompressed(io.BytesIO(content), path) as file:
        return _read(file, path, dimensions)


def read_idx_shape(path: Path, dimensions: int) -> tuple[int, ...]:
    """Return the shape in the header of an IDX file; see `read_idx`."""
    with _opened(path) as file:
        return _read_header(file, path, dimensions)[1]


def read_plain(path: Path) -> bytes:
    """Return the content of any file, decompressed if it is a gzip file.

    Raises
    ------
    DataError
        The file cannot be read, has more than `MAX_BYTES`, or is not a complete gzip file.
    """
    with _opened(path) as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DataError(f"{path} has more than {MAX_BYTES:,} bytes")
    return content


def encode(array: NDArray[np.uint8]) -> bytes:
    """Return an array as the content of an IDX file."""
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()


def describe(begin: bytes) -> str:
    """Return what a file seems to be, from its first bytes."""
    if not begin:
        return "it is empty"
    for signature, description in _SIGNATURES.items():
        if begin.startswith(signature):
            return description
    if begin.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, such as the error message of a server"
    text = begin[:8].decode("latin1")
    return (
        f"it begins with {repr(text) if text.isascii() and text.isprintable() else begin[:4].hex()}"
    )


def as_images(array: NDArray[Any], source: object) -> NDArray[np.uint8]:
    """Return images as bytes, shape (n, height, width), if nothing is lost.

    Parameters
    ----------
    array : array
        Numbers from 0 to 255, or these divided by 255 or 256; shape (n, height, width),
        (n, pixels), (n, height, width, 1) or (n, 1, height, width).
    source : object
        Name of the file, for error messages.

    Raises
    ------
    DataError
        The array has another shape or other numbers.
    """
    if array.ndim == 4 and 1 in (array.shape[3], array.shape[1]):
        array = array[..., 0] if array.shape[3] == 1 else array[:, 0]
    elif array.ndim == 2:
        side = math.isqrt(array.shape[1])
        array = array.reshape(len(array), *((side, side) if side**2 == array.shape[1] else (1, -1)))
    if array.ndim != 3 or not array.size:
        shape = " x ".join(map(str, array.shape))
        raise DataError(f"{source} does not contain gray images: its shape is {shape}")
    if array.dtype == np.uint8:
        return array
    pixels = np.empty(array.shape, np.uint8)
    if array.dtype.kind in "iufb":
        is_fraction = array.dtype.kind in "fb" and array.max() <= 1
        for scale in (255, 256) if is_fraction else (1,):
            blocks = range(0, len(array), _BLOCK)
            if all(_fill(pixels[i : i + _BLOCK], array[i : i + _BLOCK], scale) for i in blocks):
                return pixels
    raise DataError(
        f"{source} has pixels that are neither whole numbers from 0 to 255 nor these divided by 255"
    )


def _fill(pixels: NDArray[np.uint8], block: NDArray[Any], scale: int) -> bool:
    """Write scaled images to `pixels`; return False if they are not whole numbers 0 to 255."""
    with np.errstate(over="ignore", invalid="ignore"):
        exact = block.astype(np.float64) * scale
        whole = np.rint(exact)
    if not np.isfinite(exact).all() or (np.abs(exact - whole) > 1e-3).any():
        return False
    if whole.min() < 0 or whole.max() > 255:
        return False
    pixels[...] = whole
    return True


def as_labels(array: NDArray[Any], source: object) -> NDArray[np.uint8]:
    """Return labels as bytes, shape (n,), if nothing is lost.

    Parameters
    ----------
    array : array
        Whole numbers from 0 to 255, shape (n,) or (n, 1); or (n, 8) as in QMNIST, whose first
        column is the class.
    source : object
        Name of the file, for error messages.

    Raises
    ------
    DataError
        The array has another shape or other numbers.
    """
    if array.ndim == 2 and array.shape[1] in (1, _QMNIST_COLUMNS):
        array = array[:, 0]
    if array.ndim != 1 or not array.size:
        shape = " x ".join(map(str, array.shape))
        raise DataError(f"{source} does not contain labels: its shape is {shape}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf" or not ((array >= 0) & (array <= 255)).all():
        raise DataError(f"{source} has labels that are not numbers from 0 to 255")
    labels = array.astype(np.uint8)
    if not np.array_equal(labels, array):
        raise DataError(f"{source} has labels that are not whole numbers")
    return labels


def _read(file: IO[bytes], path: Path, dimensions: int) -> NDArray[np.uint8]:
    dtype, shape = _read_header(file, path, dimensions)
    array = np.empty(shape, dtype)
    content = array.reshape(-1).view(np.uint8)
    count = 0
    # Reading in chunks avoids a second copy of the whole content in memory.
    while chunk := file.read(min(_CHUNK, content.size - count)):
        content[count : count + len(chunk)] = np.frombuffer(chunk, np.uint8)
        count += len(chunk)
    if count < content.size or file.read(1):
        difference = "fewer" if count < content.size else "more"
        raise _damaged(path, f"has {difference} bytes than the {content.size:,} in its header")
    return as_images(array, path) if dimensions == 3 else as_labels(array, path)


def _read_header(
    file: IO[bytes], path: Path, dimensions: int
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the type of the elements and the shape in the header of an open IDX file."""
    what = "images" if dimensions == 3 else "labels"
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise _other(path, f"is not an IDX file of {what}: {describe(magic + file.read(60))}")
    if magic[3] not in _DIMENSIONS[dimensions]:
        kind = {1: "labels", 3: "images"}.get(magic[3], f"data with {magic[3]} dimensions")
        raise _other(path, f"is not an IDX file of {what}: it contains {kind}")
    dtype = np.dtype(_TYPES[magic[2]])
    header = file.read(4 * magic[3])
    if len(header) != 4 * magic[3]:
        raise _damaged(path, "is incomplete: it ends within its header")
    shape = tuple(int(size) for size in np.frombuffer(header, ">u4"))
    size = math.prod(shape) * dtype.itemsize
    if not 0 < size <= MAX_BYTES:
        sizes = " x ".join(f"{side:,}" for side in shape)
        reason = f"the limit is {MAX_BYTES:,} bytes" if size else "a size of zero is not valid"
        raise _damaged(path, f"has a header for {sizes} numbers; {reason}")
    return dtype, shape


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw, _decompressed(raw, path) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def _decompressed(raw: IO[bytes], path: Path) -> Iterator[IO[bytes]]:
    """Decompress a file if its first bytes are those of a gzip file."""
    begin = raw.read(2)
    raw.seek(0)
    if begin != _GZIP:
        yield raw
        return
    try:
        yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"is not a complete gzip file ({error})") from None


def _damaged(path: Path, problem: str) -> DamagedFileError:
    return DamagedFileError(f"{path} {problem}", hint="Replace the damaged file.")


def _other(path: Path, problem: str) -> DataError:
    return DataError(f"{path} {problem}", hint="Replace it by the file of the dataset.")
