"""Damaged and crafted images give a digit or an error, and need little memory."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from nnctl.data.dataset import MINI_DIRECTORY
from nnctl.data.image_files import is_idx, read_images, read_picture
from nnctl.data.preprocess import find_digits
from nnctl.errors import DataError
from tests.photographs import photograph
from tests.torture.conftest import Torture
from tests.torture.hostile import KEPT_RUN, PATIENCE, mutated, run_command

pytestmark = PATIENCE

DIGITS = read_images((MINI_DIRECTORY / "t10k-images-idx3-ubyte.gz").read_bytes())
GREY = Image.fromarray(np.asarray(Image.fromarray(DIGITS[0]).resize((60, 60))))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as the content of a file."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def _turned(image: Image.Image, orientation: int) -> dict[str, Any]:
    exif = image.getexif()
    exif[0x0112] = orientation
    return {"exif": exif}


def _deep(mode: str) -> Image.Image:
    values = np.asarray(GREY).astype(np.float32)
    if mode == "F":
        return Image.fromarray(values)
    return Image.fromarray((values * 257).astype({"I;16": "<u2", "I": "<i4"}[mode]))


_ALPHA = Image.merge("LA", [GREY, GREY])
_PALETTE = GREY.convert("P")
SOUND: dict[str, bytes] = {
    "gray PNG": saved(GREY, "PNG"),
    "PNG of 1 bit": saved(GREY.convert("1"), "PNG"),
    "PNG of 16 bits": saved(_deep("I;16"), "PNG"),
    "PNG with alpha": saved(_ALPHA, "PNG"),
    "PNG with a palette": saved(_PALETTE, "PNG"),
    "PNG with a transparent color": saved(_PALETTE, "PNG", transparency=0),
    "PNG with many transparent colors": saved(_PALETTE, "PNG", transparency=bytes(range(256))),
    "interlaced and animated PNG": saved(GREY, "PNG", save_all=True, append_images=[GREY, GREY]),
    "JPEG": saved(GREY, "JPEG"),
    "progressive JPEG": saved(GREY, "JPEG", progressive=True),
    "CMYK JPEG": saved(GREY.convert("CMYK"), "JPEG"),
    **{f"JPEG turned {n}": saved(GREY, "JPEG", **_turned(GREY, n)) for n in (0, 3, 6, 8, 9)},
    "GIF": saved(_PALETTE, "GIF"),
    "animated GIF": saved(_PALETTE, "GIF", save_all=True, append_images=[_PALETTE] * 3),
    "BMP": saved(GREY, "BMP"),
    "colored BMP": saved(GREY.convert("RGB"), "BMP"),
    "TIFF": saved(GREY, "TIFF"),
    "TIFF in LZW": saved(GREY, "TIFF", compression="tiff_lzw"),
    "TIFF of floats": saved(_deep("F"), "TIFF"),
    "TIFF of 32 bits": saved(_deep("I"), "TIFF"),
    "CMYK TIFF": saved(GREY.convert("CMYK"), "TIFF"),
    "PGM": saved(GREY, "PPM"),
    "PPM": saved(GREY.convert("RGB"), "PPM"),
    "PBM": saved(GREY.convert("1"), "PPM"),
    "plain PGM": b"P2 60 60 255 " + " ".join(map(str, np.asarray(GREY).ravel())).encode(),
    "WebP": saved(GREY.convert("RGB"), "WEBP"),
    "lossless WebP with alpha": saved(_ALPHA.convert("RGBA"), "WEBP", lossless=True),
    "photograph": photograph(DIGITS[0].ravel(), 0),
}
"""Files in every supported format, by name."""


def look(content: bytes) -> None:
    """Read a file as ``predict`` does before the network sees it."""
    if is_idx(content):
        read_images(content)
        return
    for image, _ in find_digits(read_picture(content).pixels):
        assert image.shape == (28, 28)
        assert image.dtype == np.uint8
        assert image.max() > 0


def test_every_image_format_is_read(torture: Torture) -> None:
    for content in SOUND.values():
        look(content)
        torture.tried("kinds of pictures")


@given(content=st.sampled_from([*SOUND.values()]).flatmap(mutated))
def test_a_changed_image_file_is_an_image_or_an_error(torture: Torture, content: bytes) -> None:
    torture.tried("a changed picture")
    try:
        look(content)
    except DataError as error:
        assert error.message.isprintable()  # noqa: PT017 - most are pictures


@given(content=st.binary(max_size=200), kind=st.sampled_from([*SOUND.values()]))
def test_a_valid_header_with_any_bytes_after_it_is_an_image_or_an_error(
    torture: Torture, content: bytes, kind: bytes
) -> None:
    torture.tried("a picture's beginning with other bytes after it")
    for length in (4, 20, 60):
        try:
            look(kind[:length] + content)
        except DataError as error:
            assert error.message  # noqa: PT017


@given(
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        elements=st.sampled_from([0, 1, 127, 128, 254, 255]),
        fill=st.sampled_from([0, 255, 130]),
    )
)
def test_any_pixels_give_a_digit_or_an_error(torture: Torture, pixels: Any) -> None:
    torture.tried("any pixels")
    try:
        look(saved(Image.fromarray(pixels), "PNG"))
    except DataError as error:
        assert error.message == "no digit is visible in the image"  # noqa: PT017


def _png(width: int, height: int, depth: int, color: int, data: bytes) -> bytes:
    """Return a PNG with any header."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _zeros(count: int) -> bytes:
    packer = zlib.compressobj(1)
    parts = [packer.compress(bytes(2**20)) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count % 2**20)), packer.flush()])


SIDE = 7000  # 49 million pixels: just below the limit
BOMBS: dict[str, Callable[[], bytes]] = {
    "a huge PNG": lambda: _png(2**31 - 1, 2**31 - 1, 8, 0, b""),
    "a PNG of no pixels": lambda: _png(0, 0, 8, 0, b""),
    "a PNG of a bit": lambda: _png(50_001, 1000, 1, 0, b""),
    "gray": lambda: _png(SIDE, SIDE, 8, 0, _zeros(SIDE * (SIDE + 1))),
    "16 bits": lambda: _png(SIDE, SIDE, 16, 0, _zeros(SIDE * (2 * SIDE + 1))),
    "colors": lambda: _png(SIDE, SIDE, 8, 2, _zeros(SIDE * (3 * SIDE + 1))),
    "transparent": lambda: _png(SIDE, SIDE, 8, 6, _zeros(SIDE * (4 * SIDE + 1))),
    "more bytes than pixels": lambda: _png(10, 10, 8, 0, _zeros(10**8)),
    "floats": lambda: saved(Image.new("F", (SIDE, SIDE)), "TIFF", compression="tiff_lzw"),
    "CMYK": lambda: saved(Image.new("CMYK", (SIDE, SIDE)), "TIFF", compression="tiff_lzw"),
    "a line": lambda: saved(Image.new("L", (49_000_000, 1)), "PPM"),
    "GIF of 65,535 a side": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0),
    "a plain PGM that never ends": lambda: b"P2 7000 7000 255 " + b"0" * 10**6,
    "WebP of 16,383 a side": lambda: saved(Image.new("RGB", (7000, 7000)), "WEBP"),
}
"""Functions that return small files of large or missing images, by name."""


def test_a_decompression_bomb_is_rejected_or_needs_little_memory(
    torture: Torture, scratch: Path
) -> None:
    path = scratch / "picture"
    names = [*BOMBS] if torture.full else ["a huge PNG", "a PNG of no pixels", "a PNG of a bit"]
    for name in names:
        path.write_bytes(BOMBS[name]())
        run_command("predict", KEPT_RUN, path, codes=[0, 3])
        torture.tried("a bomb of a picture, by command")


@settings(max_examples=settings().max_examples // 10)
@given(content=st.sampled_from([*SOUND.values()]).flatmap(mutated))
def test_the_command_reports_each_unreadable_image_and_continues(
    torture: Torture, tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "a.png").write_bytes(content)
    (folder / "b.jpg").write_bytes(SOUND["GIF"])
    done = run_command("predict", KEPT_RUN, folder, "--json", codes=[0, 3])
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert [str(folder / name) for name in ("a.png", "b.jpg")] == [one["file"] for one in objects]
    assert objects[1]["digit"] is not None
    run_command("predict", KEPT_RUN, "-", codes=[0, 3], stdin=content)
    torture.tried("a changed picture, by command")
