"""Reading the pictures that people have: PNG, JPEG and others, IDX files, folders of them.

What is not IDX is decoded by Pillow, which is needed for nothing else.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nnctl.data import idx
from nnctl.data.pictures import WORKING_SIDE, Picture
from nnctl.errors import DamagedFileError, DataError, UsageError

if TYPE_CHECKING:
    from PIL import Image

STDIN = "-"

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".pbm",
    ".pgm",
    ".ppm",
)
"""What is taken from a folder."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Pillow's names; others, such as EPS, are left out because they start programs."""

_MOST_PIXELS = 50_000_000
_MOST_BYTES = 200_000_000


def list_files(name: str) -> list[str]:
    """Return the pictures in a folder, in the order of their names; or the one that is named.

    Raises
    ------
    DataError
        There is none in the folder, or it cannot be read.
    """
    if name == STDIN:
        return [name]
    if not name:  # of a shell's variable that is not set
        raise DataError("an empty name is no file", hint="Name a picture, or a folder of them.")
    folder = Path(name)
    try:
        if not folder.is_dir():
            return [name]
        files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
        found = sorted(str(path) for path in files if path.is_file())
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None
    if not found:
        raise DataError(
            "there is no picture in this folder",
            hint=f"Pictures in it are known by {', '.join(SUFFIXES)}; folders below are not read.",
        )
    return found


def read_file(name: str) -> bytes:
    """Return the content of a file, or what comes in by standard input.

    Raises
    ------
    DataError
        It cannot be read, is empty, or has no end.
    """
    try:
        if name == STDIN:
            content = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise _unreadable(error) from None
    if not content:
        raise DataError("it is empty", hint="Give a picture: PNG, JPEG or IDX.")
    if len(content) > _MOST_BYTES:
        raise DataError(
            f"it has more than {_MOST_BYTES // 10**6} MB", hint="Give a smaller picture."
        )
    return content


def is_idx(content: bytes) -> bool:
    """Tell whether a file begins as IDX files do, compressed or not."""
    return content.startswith((b"\0\0\x08", b"\x1f\x8b"))


def read_images(content: bytes) -> NDArray[np.uint8]:
    """Return the images ``(n, height, width)`` of the content of an IDX file, as they are.

    Raises
    ------
    DamagedFileError
        It is not an IDX file of images, or not a whole one.
    """
    return idx.decode(content, Path("it"), dimensions=3)  # whoever tells it names the file


def read_picture(content: bytes) -> Picture:
    """Return a picture in grey, 0 (black) to 1 (white), turned as the camera was held.

    What can be seen through is laid over white. Of several pictures it is the first; large ones
    are reduced.

    Raises
    ------
    UsageError
        Pillow is not installed.
    DataError
        It is no picture, or not a whole one, or far too large.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise UsageError(
            "to read pictures, nnctl needs Pillow",
            hint="Install it with: pip install 'nnctl[plot]'",
        ) from None
    Image.init()
    known = [kind for kind in _FORMATS if kind in Image.OPEN]  # WebP may be left out of Pillow
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a decoder says of tags is of no use here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=known) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise _too_large(f"{image.width:,} x {image.height:,}")
                return _to_grey(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large("so many") from None
    except UnidentifiedImageError:
        raise DamagedFileError(
            "it is no picture that can be read", hint="Save it as PNG or JPEG."
        ) from None
    except DataError:
        raise
    except Exception as error:  # decoders meet broken files with whatever goes wrong first
        what = " ".join(str(error).split()) or type(error).__name__
        raise DamagedFileError(
            f"it is a damaged picture ({what})", hint="Save or copy it again."
        ) from None


def _to_grey(image: Image.Image) -> Picture:
    """Return an open picture as an array."""
    from PIL import Image, ImageOps

    # A JPEG can be decoded at an eighth of its size; at no less than was asked for.
    image.draft("L", (2 * WORKING_SIDE, 2 * WORKING_SIDE))
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        turned = Image.fromarray(_scaled(np.array(image, np.float32), image.mode != "F"))
        turned.getexif().update(image.getexif())
        image = turned
    elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = _over_white(image)
    elif image.mode != "L":
        image = image.convert("RGB").convert("L")
    factor = max(image.size) // (2 * WORKING_SIDE)
    exif = image.getexif()
    if factor > 1:
        image = image.reduce(factor)
        image.getexif().update(exif)
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(image.convert("L")).astype(np.float32) / np.float32(255)


def _scaled(deep: NDArray[np.float32], is_whole: bool) -> NDArray[np.uint8]:
    """Return grey of 8 bits of deeper grey, which is written over: it is large."""
    np.nan_to_num(deep, copy=False, posinf=0, neginf=0)
    low, high = float(deep.min()), float(deep.max())
    if is_whole:  # what is not 16 bits deep has a scale of its own
        low, high = min(low, 0.0), max(high, 65535.0)
    scale = min(255 / (high - low), 1e38) if high > low else 0.0
    deep *= scale
    deep -= low * scale
    return np.rint(deep, out=deep).astype(np.uint8)


def _over_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    exif = image.getexif()
    colours = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    result = Image.alpha_composite(paper, colours).convert("L")
    result.getexif().update(exif)
    return result


def _too_large(what: str) -> DataError:
    return DataError(
        f"it has {what} pixels; {_MOST_PIXELS // 10**6} million are the most",
        hint="Reduce it: a thousand pixels a side are plenty.",
    )


def _unreadable(error: OSError | ValueError) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else None
    return DataError(f"it cannot be read: {reason or error}", hint="Check its name and its rights.")
