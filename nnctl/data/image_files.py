"""Reading the user's image files: PNG, JPEG and others, IDX files, and folders of images.

Pillow decodes all formats except IDX, for which it is not needed.
"""

from __future__ import annotations

import io
import itertools
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnctl.data import idx
from nnctl.errors import DamagedFileError, DataError

if TYPE_CHECKING:
    from PIL import Image

STDIN = "-"

WORKING_SIDE = 480
"""Longer side in pixels of the reduced picture: detailed enough for digits, and fast."""

_FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".pbm", ".pgm", ".ppm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
"""Formats by their names in Pillow; others, such as EPS, are not read: they start programs."""

SUFFIXES = tuple(itertools.chain(*_FORMATS.values()))
"""Files with these suffixes are read from a folder."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_LOW_CONTRAST = 0.25  # of strokes on white, relative to their contrast on black
_MAX_PIXELS = 50_000_000
_MAX_BYTES = 200_000_000


class ImageFile(NamedTuple):
    """An image file, and its digit if the name of its folder is that digit."""

    name: str
    label: int | None = None


class Picture(NamedTuple):
    """A picture in gray.

    Parameters
    ----------
    pixels : array of float32, shape (height, width)
        0 (black) to 1 (white).
    reduction : float
        Pixels of the file per pixel of the array, along each axis.
    """

    pixels: NDArray[np.float32]
    reduction: float


def list_files(name: str) -> list[ImageFile]:
    """Return the images in a folder, sorted by name; or the given file itself.

    If the folder has folders named 0 to 9, their images follow, labeled with these digits.

    Raises
    ------
    DataError
        The folder contains no image, or cannot be read.
    """
    if name == STDIN:
        return [ImageFile(name)]
    if not name:  # for example from an unset shell variable
        raise DataError("the file name is empty", hint="Pass an image or a folder of images.")
    folder = Path(name)
    try:
        if not folder.is_dir():
            return [ImageFile(name)]
        images = [ImageFile(file) for file in _images_in(folder)]
        for digit in range(10):
            if (folder / str(digit)).is_dir():
                images += [ImageFile(file, digit) for file in _images_in(folder / str(digit))]
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None
    if not images:
        raise DataError(
            "the folder contains no image",
            hint=f"Images end in {', '.join(SUFFIXES)}; of the folders within the folder, only "
            "those named 0 to 9 are read.",
        )
    return images


def _images_in(folder: Path) -> list[str]:
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    return sorted(str(path) for path in files if path.is_file())


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
    """Return a picture in gray, rotated as its EXIF orientation requires.

    Transparent pixels become white, or black if the strokes are white. From a file with several
    pictures, the first is used. Large pictures are reduced.

    Raises
    ------
    UsageError
        Pillow is not installed.
    DataError
        The content is not a picture, or is incomplete or too large.
    """
    from PIL import Image, UnidentifiedImageError

    Image.init()
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        _register_heif()
    known = [kind for kind in _FORMATS if kind in Image.OPEN]  # Pillow may lack WebP
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decoders warn of invalid tags, which do not matter
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=known) as image:
                if image.width * image.height > _MAX_PIXELS:
                    raise _too_large(f"{image.width:,} x {image.height:,}")
                size = max(image.size)
                pixels = _gray_pixels(image)
                return Picture(pixels, size / max(pixels.shape))
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


def _register_heif() -> None:
    """Make Pillow read HEIC files, if pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise DataError(
            "the file is a HEIC image, the format of iPhones",
            hint="Install pillow-heif (pip install pillow-heif), or save the image as JPEG.",
        ) from None
    register_heif_opener()


def _gray_pixels(image: Image.Image) -> NDArray[np.float32]:
    """Return an open picture as an array of gray values, reduced to `WORKING_SIDE`."""
    from PIL import Image, ImageOps

    # A JPEG can be decoded faster at a reduced size (1/8 or more), never below this one.
    image.draft("L", (2 * WORKING_SIDE, 2 * WORKING_SIDE))
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(_scaled(np.array(image, np.float32), image.mode != "F"))
    elif image.has_transparency_data:
        image = _over_paper(image.convert("RGBA"))
    elif image.mode != "L":
        image = image.convert("RGB").convert("L")
    if image.getextrema() == (0, 1):  # a mask, in which 1 is white
        image = image.point(lambda level: 255 * level)
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), reducing_gap=2)
    return np.asarray(image, np.float32) / np.float32(255)


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


def _over_paper(image: Image.Image) -> Image.Image:
    """Return a transparent picture on white paper, or on black if it is hardly visible on white."""
    from PIL import Image, ImageStat

    on_white, on_black = (
        Image.alpha_composite(Image.new("RGBA", image.size, color), image).convert("L")
        for color in ("white", "black")
    )
    white, black = (ImageStat.Stat(picture).stddev[0] for picture in (on_white, on_black))
    return on_white if white > _LOW_CONTRAST * black else on_black


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
