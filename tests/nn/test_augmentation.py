"""Deformations agree with the interpolation of SciPy and stay within their limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from nnctl.data.dataset import open_dataset
from nnctl.nn.augmentation import GROUP, Augmentation, Deformations, Elastic
from nnctl.nn.types import Array

DIGITS = open_dataset("mini", notify=lambda _: None).test.inputs[:50]
EVERYTHING = Augmentation(
    shift=3, rotate=20, scale=0.2, shear=15, elastic=Elastic(alpha=40, sigma=3), noise=0.1
)


def deform(augmentation: Augmentation, pixels: NDArray[np.uint8], seed: int = 0) -> Array:
    """Return deformed images, with values from 0 to 1."""
    side = math.isqrt(pixels.shape[1])
    deformations = augmentation.draw(len(pixels), side, np.random.default_rng(seed))
    out = np.full(pixels.shape, np.nan, np.float32)
    deformations.apply(pixels, 0, out)
    return out


@given(seed=st.integers(0, 1000), spread=st.sampled_from([0.0, 1.0, 30.0]))
def test_interpolation_agrees_with_scipy(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    side, count = 7, GROUP + 3
    pixels = rng.integers(0, 256, (count, side * side), np.uint8)
    grid = np.indices((side, side)).reshape(2, -1)
    places = (grid + rng.normal(0, 1, (2, 2, side * side)) * spread).astype(np.float32)
    out = np.empty(pixels.shape, np.float32)
    Deformations(places, side).apply(pixels, 0, out)
    for i, image in enumerate(pixels):
        # All pixels outside of the image are black: interpolation fades out at the border.
        padded = np.pad(image.reshape(side, side), 1) / 255
        expected = ndimage.map_coordinates(padded, places[i // GROUP] + 1, order=1, cval=0)
        np.testing.assert_allclose(expected, out[i], atol=1e-5)


def test_augmentation_without_deformations_changes_nothing() -> None:
    np.testing.assert_allclose(DIGITS / 255, deform(Augmentation(), DIGITS), atol=1e-7)


@pytest.mark.parametrize("first", [0, 1, GROUP, GROUP + 5])
def test_deforming_a_part_of_the_images_gives_the_same_bits(first: int) -> None:
    deformations = EVERYTHING.draw(len(DIGITS), 28, np.random.default_rng(3))
    whole, part = np.empty((2, *DIGITS.shape), np.float32)
    deformations.apply(DIGITS, 0, whole)
    deformations.apply(DIGITS[first:], first, part[first:])
    assert whole[first:].tobytes() == part[first:].tobytes()


@pytest.mark.parametrize("sigma", [0.5, 4.0, 20.0])
def test_the_elastic_field_is_smoothed_noise_as_in_simard_et_al(sigma: float) -> None:
    fields = Elastic(34, sigma).draw(3, 28, np.random.default_rng(0))
    noise = 2 * np.random.default_rng(0).random((3, 2, 28, 28), np.float32) - 1
    expected = 34 * ndimage.gaussian_filter(noise, sigma, mode="constant", truncate=10, axes=(2, 3))
    np.testing.assert_allclose(expected, fields, atol=1e-4)


def test_elastic_displacements_are_in_pixels() -> None:
    pixels = DIGITS[:GROUP]
    out = deform(Augmentation(elastic=Elastic(34, 4)), pixels, seed=2)
    rng = np.random.default_rng(2)
    Augmentation().draw(GROUP, 28, rng)  # the affine map is drawn first
    places = np.indices((28, 28)) + Elastic(34, 4).draw(1, 28, rng)[0]
    for image, deformed in zip(pixels, out, strict=True):
        padded = np.pad(image.reshape(28, 28), 1) / 255
        expected = ndimage.map_coordinates(padded, places + 1, order=1, cval=0)
        np.testing.assert_allclose(expected.ravel(), deformed, atol=1e-4)


@pytest.mark.parametrize(
    ("augmentation", "moved"),
    [
        (Augmentation(shift=4), 4 * math.sqrt(2)),
        (Augmentation(rotate=30), 10 * math.radians(30)),
        (Augmentation(scale=0.3), 10 * 0.3),
        (Augmentation(shear=20), 10 * math.tan(math.radians(20))),
    ],
    ids=str,
)
def test_deformations_reach_their_limit_and_do_not_exceed_it(
    augmentation: Augmentation, moved: float
) -> None:
    side, middle = 41, 20
    image = np.zeros((side, side), np.uint8)
    image[middle - 1 : middle + 2, middle + 9 : middle + 12] = 255
    image[middle + 9 : middle + 12, middle - 1 : middle + 2] = 255
    across, down = image.copy(), image.copy()
    across[middle + 5 :] = 0
    down[: middle + 5] = 0
    distances = []
    for one, center in ((across, (middle, middle + 10)), (down, (middle + 10, middle))):
        pixels = np.repeat(one.reshape(1, -1), 400 * GROUP, axis=0)
        out = deform(augmentation, pixels, seed=1)[::GROUP].reshape(-1, side, side)
        mass = out.sum(axis=(1, 2))
        for axis in (0, 1):
            along = out.sum(axis=2 - axis) @ np.arange(side) / mass - center[axis]
            distances.append(along)
    lengths = np.hypot(distances[0::2], distances[1::2])
    assert 0.85 * moved < lengths.max() < 1.1 * moved + 0.2
    assert abs(np.mean(distances)) < 0.15 * moved  # both directions are equally likely


def test_noise_has_its_standard_deviation_and_stays_between_black_and_white() -> None:
    gray = np.full((50, 784), 128, np.uint8)
    out = deform(Augmentation(noise=0.05), gray)
    assert out.std() == pytest.approx(0.05, rel=0.02)
    noisy = deform(Augmentation(noise=1), DIGITS)
    assert (noisy.min(), noisy.max()) == (0, 1)


def test_groups_differ_and_the_same_seed_gives_the_same_bits() -> None:
    copies = np.repeat(DIGITS[:1], 2 * GROUP, axis=0)
    without_noise = Augmentation(shift=3, elastic=Elastic())
    out = deform(without_noise, copies)
    assert np.ptp(out[:GROUP], axis=0).max() == 0
    assert np.abs(out[0] - out[GROUP]).max() > 0.1
    assert deform(EVERYTHING, DIGITS, 5).tobytes() == deform(EVERYTHING, DIGITS, 5).tobytes()
    assert deform(EVERYTHING, DIGITS, 5).tobytes() != deform(EVERYTHING, DIGITS, 6).tobytes()
