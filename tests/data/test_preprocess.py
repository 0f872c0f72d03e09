"""Pictures are centered and scaled like MNIST's images."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

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


def test_a_large_picture_is_reduced_to_the_means_of_its_blocks() -> None:
    picture = np.random.default_rng(0).random((960, 640), np.float32)
    means = picture.reshape(480, 2, 320, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(preprocess.reduce(picture), means, rtol=1e-4)
    assert preprocess.reduce(picture[:480, :480]).shape == (480, 480)


def test_a_digit_is_cropped_to_the_smallest_box_that_contains_it() -> None:
    ink = np.zeros((9, 8), np.float32)
    ink[[2, 3, 6], [5, 3, 4]] = 1
    np.testing.assert_array_equal(ink[2:7, 3:6], preprocess.crop(ink))


def test_a_digit_fills_20_pixels_around_its_center_of_mass() -> None:
    image = preprocess.normalise(ring())
    rows, columns = (np.flatnonzero((image > 60).any(axis=axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) == pytest.approx((20, 20 / 1.25), abs=1.5)
    assert image.max() == 255
    assert not image[0].any()
    mass = image / image.sum()
    assert mass.sum(axis=1) @ (np.arange(28) + 0.5) == pytest.approx(14.5, abs=0.05)
    assert mass.sum(axis=0) @ (np.arange(28) + 0.5) == pytest.approx(14.5, abs=0.05)


def test_position_size_and_darkness_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    expected = preprocess.normalise(ring(250, (125, 125), 40, 12))
    for _ in range(15):
        radius = rng.uniform(25, 40)
        middle = (rng.uniform(70, 180), rng.uniform(60, 190))
        moved = ring(250, middle, radius, 12 * radius / 40, rng.uniform(0, 0.4))
        assert difference(expected, preprocess.normalise(moved)) < 5


@pytest.mark.parametrize("paper", [0.95, 0.6, 0.3, 0.0])
@pytest.mark.parametrize("shade", [0.0, 0.25])
def test_neither_polarity_nor_uneven_light_matters(paper: float, shade: float) -> None:
    ink = 0.05 if paper > 0.5 else 0.9
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    light = shade * (x + 0.5 * y**2)
    picture = np.clip(ring(ink=ink, paper=paper) + light, 0, 1).astype(np.float32)
    assert difference(preprocess.normalise(ring()), preprocess.normalise(picture)) < 6


@pytest.mark.parametrize("kind", ["none", *DISTORTIONS])
def test_a_digit_survives_each_distortion(kind: str) -> None:
    for i in range(5):
        content = photograph(DIGITS.images[i], i, [kind])
        image = preprocess.normalise(image_files.read_picture(content)).ravel()
        alike = np.corrcoef(image, DIGITS.images[i])[0, 1]
        assert alike > (0.6 if kind == "rotate" else 0.8), (i, alike)


def test_a_thin_pen_is_thickened() -> None:
    thin, thick = (preprocess.normalise(ring(400, (200, 200), 120, width)) for width in (2, 20))
    assert np.count_nonzero(thin > 200) > 0.4 * np.count_nonzero(thick > 200)


def test_specks_and_the_edge_of_a_table_are_removed_and_a_second_stroke_is_kept() -> None:
    expected = preprocess.normalise(ring())
    dirty = ring()
    dirty[20:23, 20:23] = dirty[180:182, 30:33] = 0.1
    dirty[:, -12:] = 0.05
    assert difference(expected, preprocess.normalise(dirty)) < 4
    two = np.full((200, 200), 0.9, np.float32)
    two[60:140, 60:72] = two[60:72, 80:140] = 0.1
    image = preprocess.normalise(two)
    assert (image[:, 20:] > 128).any()
    assert (image[:, :10] > 128).any()


def test_connected_components_agree_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for density in (0.1, 0.3, 0.4, 0.5, 0.9, 0.0):
        mask = rng.random((40, 57)) < density
        expected, count = ndimage.label(mask, np.ones((3, 3)))
        ours = preprocess.label(mask)
        assert ours.max() == count
        assert len(np.unique(np.stack([expected, ours]).reshape(2, -1), axis=1).T) == count + (
            not mask.all()
        )


def test_an_image_of_mnist_is_unchanged() -> None:
    image = DIGITS.images[0].reshape(28, 28)
    for picture in (image, 255 - image):
        decoded = image_files.read_picture(encoded(picture / 255))
        assert difference(image, preprocess.normalise(decoded)) < 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (28, 28), (300, 200)])
@pytest.mark.parametrize("level", [0.0, 0.7, 1.0])
def test_a_picture_without_a_digit_is_an_error(shape: tuple[int, int], level: float) -> None:
    rng = np.random.default_rng(0)
    flat = np.full(shape, level, np.float32)
    noisy = np.clip(0.5 + rng.normal(0, 0.05, shape), 0, 1).astype(np.float32)
    sloping = flat * np.linspace(0.5, 1, shape[1], dtype=np.float32)
    for picture in (flat, sloping, *([noisy] if min(shape) > 100 else [])):
        with pytest.raises(DataError, match="no digit"):
            preprocess.normalise(picture)


def test_the_digit_scales_with_the_size_of_the_image() -> None:
    image = preprocess.normalise(ring(), 56)
    assert image.shape == (56, 56)
    assert np.count_nonzero((image > 100).any(axis=1)) == pytest.approx(40, abs=1)


def _saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def test_every_image_format_is_read() -> None:
    gray = Image.fromarray((ring() * 255).astype(np.uint8))
    deep = Image.fromarray((ring() * 65535).astype(np.uint16))
    ink = Image.merge("LA", [Image.new("L", gray.size, 0), gray.point(lambda level: 255 - level)])
    inked = Image.fromarray((ring() < 0.5).astype(np.uint8)).convert("P")  # on transparent paper
    expected = preprocess.normalise(ring())
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
        image = preprocess.normalise(image_files.read_picture(content))
        assert difference(expected, image) < 8, content[:16]


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
            expected = preprocess.normalise((upright / 255).astype(np.float32))
            image = preprocess.normalise(image_files.read_picture(content))
            assert difference(expected, image) < 6, (mode, enlarged)


def test_a_file_that_is_not_a_usable_image_is_an_error_with_a_hint() -> None:
    good = photograph(DIGITS.images[0], 0)
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
