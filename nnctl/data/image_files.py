"""Reading the user's image files: PNG, JPEG and others, IDX files, and folders of images.

Pillow decodes all formats except IDX; nnctl uses it for nothing else.
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
from nnctl.data.preprocess import WORKING_SIDE, Picture
from nnctl.errors import DamagedFileError, DataError, requiring

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
"""Files with these suffixes are read from a folder."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Names in Pillow; other formats, such as EPS, are not allowed because they start programs."""

_MAX_PIXELS = 50_000_000
_MAX_BYTES = 200_000_000


def list_files(name: str) -> list[str]:
    """Return the paths of the images in a folder, sorted by name; or the given file itself.

    Raises
    ------
    DataError
        The folder contains no image, or cannot be read.
    """
    if name == STDIN:
        return [name]
    if not name:  # for example from an unset shell variable
        raise DataError("the file name is empty", hint="Pass an image or a folder of images.")
    folder = Path(name)
    try:
        if not folder.is_dir():
            return [name]
        files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
        images = sorted(str(path) for path in files if path.is_file())
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None
    if not images:
        raise DataError(
            "the folder contains no image",
            hint=f"Images end in {', '.join(SUFFIXES)}; folders within the folder are not read.",
        )
    return images


def read_file(name: str) -> bytes:
    """Return the content of a file or of standard input.

    Raises
    ------
    DataError
        The file cannot be read, is empty, or is too large, as an endless device is.
    """
    try:
        if name == STDIN:
            content = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: the name is not valid
        raise _unreadable(error) from None
    if not content:
        raise DataError("the file is empty", hint="Pass an image: PNG, JPEG or IDX.")
    if len(content) > _MAX_BYTES:
        raise DataError(
            f"the file is larger than {_MAX_BYTES // 10**6} MB", hint="Pass a smaller image."
        )
    return content


def is_idx(content: bytes) -> bool:
    """Return whether a file begins like an IDX file, compressed or not."""
    return content.startswith((b"\0\0\x08", b"\x1f\x8b"))


def read_images(content: bytes) -> NDArray[np.uint8]:
    """Return the images in the content of an IDX file unchanged, shape (n, height, width).

    Raises
    ------
    DamagedFileError
        The content is not an IDX file of images, or is incomplete.
    """
    return idx.decode(content, Path("the file"), dimensions=3)  # the caller adds the file name


def read_picture(content: bytes) -> Picture:
    """Return a picture in gray, 0 (black) to 1 (white), rotated as its EXIF orientation requires.

    Transparent pixels are drawn over white. From a file with several pictures, the first is used.
    Large pictures are reduced.

    Raises
    ------
    UsageError
        Pillow is not installed.
    DataError
        The content is not a picture, or is incomplete or too large.
    """
    with requiring("Pillow", "reading images", extra="plot"):
        from PIL import Image, UnidentifiedImageError
    Image.init()
    known = [kind for kind in _FORMATS if kind in Image.OPEN]  # Pillow may lack WebP
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of invalid tags, which do not matter
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=known) as image:
                if image.width * image.height > _MAX_PIXELS:
                    raise _too_large(f"{image.width:,} x {image.height:,}")
                return _to_gray(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_large("too many") from None
    except UnidentifiedImageError:
        raise DamagedFileError(
            "the file is not a readable image", hint="Save it as PNG or JPEG."
        ) from None
    except DataError:
        raise
    except Exception as error:  # decoders raise many types of errors on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DamagedFileError(
            f"the image is damaged ({reason})", hint="Save or copy it again."
        ) from None


def _to_gray(image: Image.Image) -> Picture:
    """Return an open picture as an array of gray values."""
    from PIL import Image, ImageOps

    # A JPEG can be decoded faster at a reduced size (1/8 or more), never below this one.
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
    """Convert gray values to 8 bits; overwrites its argument, which is large."""
    np.nan_to_num(deep, copy=False, posinf=0, neginf=0)
    low, high = float(deep.min()), float(deep.max())
    if is_whole:  # integers use the 16-bit scale, extended if they exceed it
        low, high = min(low, 0.0), max(high, 65535.0)
    scale = min(255 / (high - low), 1e38) if high > low else 0.0
    deep *= scale
    deep -= low * scale
    return np.rint(deep, out=deep).astype(np.uint8)


def _over_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    exif = image.getexif()
    colored = image.convert("RGBA")
    paper = Image.new("RGBA", image.size, "white")
    result = Image.alpha_composite(paper, colored).convert("L")
    result.getexif().update(exif)
    return result


def _too_large(size: str) -> DataError:
    return DataError(
        f"the image has {size} pixels; the limit is {_MAX_PIXELS // 10**6} million",
        hint="Reduce the image: a thousand pixels per side are enough.",
    )


def _unreadable(error: OSError | ValueError) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else None
    return DataError(
        f"the file cannot be read: {reason or error}", hint="Check its name and permissions."
    )
