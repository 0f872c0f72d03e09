"""Pictures are centered and scaled like MNIST's images."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from nnctl.data import image_files, preprocess
from nnctl.data.dataset import open_dataset
from nnctl.errors import DataError
from tests.photographs import DISTORTIONS, encoded, photograph

DIGITS = open_dataset("mini", notify=lambda _: None).test


def ring(
    side: int = 200,
    middle: tuple[float, float] = (100, 100),
    radius: float = 40,
    width: float = 12,
    ink: float = 0.1,
    paper: float = 0.9,
) -> NDArray[np.float32]:
    """Return a picture of a zero."""
    y, x = np.mgrid[:side, :side] + 0.5
    distance = np.hypot((y - middle[0]) / 1.3, x - middle[1])
    share = np.clip((width / 2 - np.abs(distance - radius)) + 0.5, 0, 1)
    return np.asarray(paper + (ink - paper) * share, np.float32)


def difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference of the pixels, 0 to 255."""
    return float(np.abs(one.astype(float) - other).mean())


def only_digit(picture: NDArray[np.float32], side: int = 28) -> NDArray[np.uint8]:
    """Return the image of the only digit in a picture."""
    [digit] = preprocess.find_digits(picture, side)
    return digit.image


def in_file(content: bytes) -> NDArray[np.uint8]:
    """Return the image of the only digit in a file."""
    return only_digit(image_files.read_picture(content).pixels)


def enlarged(image: NDArray[np.uint8]) -> Image.Image:
    """Return an MNIST image as dark ink on light paper, enlarged ten times."""
    large = Image.fromarray(255 - image.reshape(28, 28))
    return large.resize((280, 280), Image.Resampling.BICUBIC)


def similarity(image: NDArray[np.uint8], original: NDArray[np.uint8]) -> float:
    """Return the correlation of two images."""
    return float(np.corrcoef(image.ravel(), original.ravel())[0, 1])


def test_a_digit_fills_20_pixels_around_its_center_of_mass() -> None:
    image = only_digit(ring())
    rows, columns = (np.flatnonzero((image > 60).any(axis=axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) == pytest.approx((20, 20 / 1.25), abs=1.5)
    assert image.max() == 255
    assert not image[0].any()
    mass = image / image.sum()
    assert mass.sum(axis=1) @ (np.arange(28) + 0.5) == pytest.approx(14.5, abs=0.05)
    assert mass.sum(axis=0) @ (np.arange(28) + 0.5) == pytest.approx(14.5, abs=0.05)


def test_position_size_and_darkness_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    expected = only_digit(ring(250, (125, 125), 40, 12))
    for _ in range(15):
        radius = rng.uniform(25, 40)
        middle = (rng.uniform(70, 180), rng.uniform(60, 190))
        moved = ring(250, middle, radius, 12 * radius / 40, rng.uniform(0, 0.4))
        assert difference(expected, only_digit(moved)) < 5


@pytest.mark.parametrize("paper", [0.95, 0.6, 0.3, 0.0])
@pytest.mark.parametrize("shade", [0.0, 0.25])
def test_neither_polarity_nor_uneven_light_matters(paper: float, shade: float) -> None:
    ink = 0.05 if paper > 0.5 else 0.9
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    light = shade * (x + 0.5 * y**2)
    picture = np.clip(ring(ink=ink, paper=paper) + light, 0, 1).astype(np.float32)
    assert difference(only_digit(ring()), only_digit(picture)) < 6


@pytest.mark.parametrize("kind", ["none", *DISTORTIONS])
def test_a_digit_survives_each_distortion(kind: str) -> None:
    for i in range(5):
        content = photograph(DIGITS.inputs[i], i, [kind])
        alike = similarity(in_file(content), DIGITS.inputs[i])
        assert alike > (0.6 if kind == "rotate" else 0.8), (i, alike)


def test_a_thin_pen_is_thickened() -> None:
    thin, thick = (only_digit(ring(400, (200, 200), 120, width)) for width in (2, 20))
    assert np.count_nonzero(thin > 200) > 0.4 * np.count_nonzero(thick > 200)


def test_specks_and_the_edge_of_a_table_are_removed_and_a_second_stroke_is_kept() -> None:
    expected = only_digit(ring())
    dirty = ring()
    dirty[20:23, 20:23] = dirty[180:182, 30:33] = 0.1
    dirty[:, -12:] = 0.05
    assert difference(expected, only_digit(dirty)) < 4
    two = np.full((200, 200), 0.9, np.float32)
    two[60:140, 60:72] = two[60:72, 80:140] = 0.1
    image = only_digit(two)
    assert (image[:, 20:] > 128).any()
    assert (image[:, :10] > 128).any()


def test_an_image_of_mnist_is_unchanged() -> None:
    image = DIGITS.inputs[0].reshape(28, 28)
    for picture in (image, 255 - image):
        assert difference(image, in_file(encoded(picture / 255))) < 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (28, 28), (300, 200)])
@pytest.mark.parametrize("level", [0.0, 0.7, 1.0])
def test_a_picture_without_a_digit_is_an_error(shape: tuple[int, int], level: float) -> None:
    rng = np.random.default_rng(0)
    flat = np.full(shape, level, np.float32)
    noisy = np.clip(0.5 + rng.normal(0, 0.05, shape), 0, 1).astype(np.float32)
    sloping = flat * np.linspace(0.5, 1, shape[1], dtype=np.float32)
    for picture in (flat, sloping, *([noisy] if min(shape) > 100 else [])):
        with pytest.raises(DataError, match="no digit"):
            preprocess.find_digits(picture)


def test_the_digit_scales_with_the_size_of_the_image() -> None:
    image = only_digit(ring(), 56)
    assert image.shape == (56, 56)
    assert np.count_nonzero((image > 100).any(axis=1)) == pytest.approx(40, abs=1)


@pytest.mark.parametrize("ink", ["black", "white"])
def test_strokes_on_a_transparent_background_are_visible(ink: str) -> None:
    for i in range(5):
        picture = Image.new("RGBA", (280, 280), ink)
        picture.putalpha(enlarged(255 - DIGITS.inputs[i]).convert("L"))
        for mode in ("RGBA", "LA"):
            image = in_file(_saved(picture.convert(mode), "PNG"))
            assert similarity(image, DIGITS.inputs[i]) > 0.85


def test_a_picture_that_is_cropped_to_its_strokes_has_a_digit() -> None:
    for i in range(6):
        large = np.asarray(enlarged(DIGITS.inputs[i]))
        rows, columns = (np.flatnonzero((large < 195).any(axis=axis)) for axis in (1, 0))
        cropped = large[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        for pixels in (cropped, 255 - cropped):
            image = in_file(_saved(Image.fromarray(pixels), "PNG"))
            assert similarity(image, DIGITS.inputs[i]) > 0.85, i


def _framed(large: Image.Image, seed: int) -> Iterator[Image.Image]:
    """Yield a picture in a frame, in a circle, in a cell of a table, and on a line."""
    angle = np.random.default_rng(seed).uniform(-6, 6)
    places = {"box": (60, 60, 340, 340), "touching box": (60, 60, 340, 305), "circle": (20,) * 2}
    for kind, place in places.items():
        page = Image.new("L", (400, 400), 255)
        page.paste(large, (60, 60))
        draw = ImageDraw.Draw(page)
        if kind == "circle":
            draw.ellipse((20, 20, 380, 380), outline=0, width=6)
        else:
            draw.rectangle(place, outline=60, width=4)
        yield page.rotate(angle, Image.Resampling.BICUBIC, fillcolor=255)
    cell = Image.new("L", (400, 400), 255)
    cell.paste(large, (60, 60))
    draw = ImageDraw.Draw(cell)
    for at in (50, 350):
        draw.line((0, at, 400, at), fill=80, width=4)
    yield cell.copy()
    for at in (50, 350):
        draw.line((at, 0, at, 400), fill=80, width=4)
    yield cell


def test_a_printed_frame_or_line_is_not_part_of_the_digit() -> None:
    for i in range(2):
        for kind, page in enumerate(_framed(enlarged(DIGITS.inputs[i]), i)):
            image = in_file(_saved(page, "PNG"))
            assert similarity(image, DIGITS.inputs[i]) > 0.6, (i, kind)


def test_a_mask_of_zeros_and_ones_is_an_image() -> None:
    for i in range(5):
        mask = (DIGITS.inputs[i].reshape(28, 28) > 127).astype(np.uint8)
        for pixels in (mask, mask.repeat(10, 0).repeat(10, 1)):
            assert similarity(in_file(_saved(Image.fromarray(pixels), "PNG")), mask) > 0.9


def _row(indices: Sequence[int], gap: int = 30) -> Image.Image:
    """Return a picture of digits next to each other."""
    parts = []
    for i in indices:
        large = np.asarray(enlarged(DIGITS.inputs[i]))
        columns = np.flatnonzero((large < 195).any(axis=0))
        parts += [np.full((280, gap), 255, np.uint8), large[:, columns[0] : columns[-1] + 1]]
    return Image.fromarray(np.hstack([*parts, parts[0]]))


def test_a_number_that_is_cropped_to_its_strokes_has_all_its_digits() -> None:
    row = np.asarray(_row([2, 0, 3]))  # 1, 7 and 0
    rows, columns = (np.flatnonzero((row < 195).any(axis=axis)) for axis in (1, 0))
    cropped = row[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    picture = image_files.read_picture(_saved(Image.fromarray(cropped), "PNG"))
    digits = preprocess.find_digits(picture.pixels)
    assert len(digits) == 3
    assert digits[0].box.left == pytest.approx(0, abs=3)
    assert digits[2].box.right == pytest.approx(picture.pixels.shape[1], abs=3)


def test_digits_in_a_row_are_found_from_left_to_right() -> None:
    for indices in ([0, 1], [2, 3, 4], [5, 6, 7, 8, 9, 10]):
        picture = image_files.read_picture(_saved(_row(indices), "PNG"))
        digits = preprocess.find_digits(picture.pixels)
        assert len(digits) == len(indices)
        for digit, i in zip(digits, indices, strict=True):
            assert similarity(digit.image, DIGITS.inputs[i]) > 0.9
        lefts = [digit.box.left for digit in digits]
        assert lefts == sorted(lefts)


def test_a_box_is_the_place_of_a_digit_in_the_picture() -> None:
    picture = np.full((200, 300), 0.9, np.float32)
    picture[40:160, 60:90] = picture[50:150, 200:220] = 0.1
    first, second = (digit.box for digit in preprocess.find_digits(picture))
    assert first == pytest.approx((60, 40, 90, 160), abs=2)
    assert second == pytest.approx((200, 50, 220, 150), abs=2)


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_a_heic_file_is_named(brand: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match="HEIC") as caught:
        image_files.read_picture(b"\0\0\0\x18ftyp" + brand + bytes(12))
    assert "pip install pillow-heif" in str(caught.value.hint)


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def test_every_image_format_is_read() -> None:
    gray = Image.fromarray((ring() * 255).astype(np.uint8))
    deep = Image.fromarray((ring() * 65535).astype(np.uint16))
    ink = Image.merge("LA", [Image.new("L", gray.size, 0), gray.point(lambda level: 255 - level)])
    inked = Image.fromarray((ring() < 0.5).astype(np.uint8)).convert("P")  # on transparent paper
    expected = only_digit(ring())
    for content in (
        _saved(gray, "PNG"),
        _saved(gray.convert("RGB"), "JPEG", quality=95),
        _saved(gray.convert("CMYK"), "JPEG", quality=95),
        _saved(gray.convert("RGB").convert("P"), "PNG"),
        _saved(gray.convert("1", dither=Image.Dither.NONE), "PNG"),
        _saved(deep, "PNG"),
        _saved(deep, "TIFF"),
        _saved(Image.fromarray(ring() * 7 - 3), "TIFF"),
        _saved(ink, "PNG"),
        _saved(ink.convert("RGBA"), "PNG"),
        _saved(inked, "PNG", transparency=0),
        _saved(gray, "GIF", save_all=True, append_images=[Image.new("L", gray.size, 255)]),
        _saved(gray, "BMP"),
        _saved(gray.convert("RGB"), "WEBP", lossless=True),
        _saved(gray, "PPM"),
    ):
        assert difference(expected, in_file(content)) < 8, content[:16]


def test_the_orientation_in_the_exif_data_is_applied() -> None:
    upright = np.full((200, 150), 255, np.uint8)
    upright[40:160, 60:72] = upright[40:52, 60:110] = 0
    for mode in ("L", "RGBA", "I;16"):
        for enlarged in (1, 10):
            picture = Image.fromarray(upright).resize((150 * enlarged, 200 * enlarged))
            if mode == "I;16":
                picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
            else:
                picture = picture.convert(mode)
            lying = picture.transpose(Image.Transpose.ROTATE_90)
            exif = Image.Exif()
            exif[0x0112] = 6  # rotate 90 degrees clockwise
            content = _saved(lying, "PNG", exif=exif)
            expected = only_digit((upright / 255).astype(np.float32))
            assert difference(expected, in_file(content)) < 6, (mode, enlarged)


def test_a_file_that_is_not_a_usable_image_is_an_error_with_a_hint() -> None:
    good = photograph(DIGITS.inputs[0], 0)
    png = encoded(ring())
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    large = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(large, "PNG")
    for content, message in (
        (b"hello", "not a readable image"),
        # Pillow would start programs for these.
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable image"),
        (b"\xd7\xcd\xc6\x9a" * 9, "not a readable image"),
        (good[: len(good) // 2], "damaged"),
        (png[: len(png) // 2], "damaged"),
        (png[:60] + bytes(40) + png[100:], "damaged"),
        (bomb.getvalue(), "too many pixels; the limit is 50 million"),
        (large.getvalue(), "8,000 x 8,000 pixels; the limit is 50 million"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            image_files.read_picture(content)
        assert caught.value.hint
