"""Corruptions agree with SciPy and change the amount of ink as expected."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from nnctl.data.dataset import open_dataset
from nnctl.nn.corruption import (
    CORRUPTIONS,
    Corruption,
    add_noise,
    blur,
    rotate,
    shift,
    thicken,
    thin,
)

DIGITS = open_dataset("mini", notify=lambda _: None).test.inputs[:45]
PICTURES = DIGITS.reshape(-1, 28, 28)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("sigma", [0.5, 2.5])
def test_blur_agrees_with_scipy(sigma: float) -> None:
    expected = ndimage.gaussian_filter(
        PICTURES / 255, sigma, mode="constant", truncate=10, axes=(1, 2)
    )
    actual = blur(DIGITS, sigma, rng()).reshape(PICTURES.shape)
    np.testing.assert_allclose(255 * expected, actual, atol=0.51)


def test_rotation_to_the_left_or_right_agrees_with_scipy() -> None:
    turned = rotate(DIGITS, 30, rng()).reshape(PICTURES.shape)
    directions = set()
    for before, after in zip(PICTURES, turned, strict=True):
        differences = {}
        for degrees in (-30, 30):
            # SciPy ignores pixels less than one pixel away from the border: add a margin.
            padded = np.pad(before.astype(float), 2)
            expected = ndimage.rotate(padded, degrees, reshape=False, order=1)[2:-2, 2:-2]
            differences[degrees] = np.abs(expected - after).max()
        direction = min(differences, key=differences.__getitem__)
        assert differences[direction] < 1
        directions.add(direction)
    assert directions == {-30, 30}


def test_shift_moves_by_the_given_distance_in_one_of_eight_directions() -> None:
    moved = shift(DIGITS, 2, rng()).reshape(PICTURES.shape)
    whole = [
        not np.delete(image, slice(3, -3), axis).any() for image in PICTURES for axis in (0, 1)
    ]
    inside = np.all(np.reshape(whole, (-1, 2)), axis=1)
    assert inside.sum() > 20
    for before, after in zip(PICTURES[inside], moved[inside], strict=True):
        motion = np.subtract(ndimage.center_of_mass(after), ndimage.center_of_mass(before))
        assert np.hypot(*motion) == pytest.approx(2, abs=0.1)
        eighths = np.arctan2(*motion) / (np.pi / 4)
        assert eighths == pytest.approx(round(eighths), abs=0.1)


def test_noise_has_its_standard_deviation() -> None:
    gray = np.full((50, 784), 128, np.uint8)
    assert (add_noise(gray, 0.1, rng()) / 255).std() == pytest.approx(0.1, rel=0.02)


def test_thicker_strokes_lose_no_ink_and_thinner_ones_gain_none() -> None:
    image = np.zeros((1, 784), np.uint8)
    image.reshape(28, 28)[8:20, 10:15] = 255
    thick, narrow = (change(image, 1, rng()).reshape(28, 28) for change in (thicken, thin))
    assert (thick == 255).sum() == 12 * 5 + 2 * 12 + 2 * 5
    assert (narrow == 255).sum() == 10 * 3
    assert (thicken(DIGITS, 0.5, rng()) >= DIGITS).all()
    assert (thin(DIGITS, 0.5, rng()) <= DIGITS).all()


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.name)
def test_stronger_corruptions_change_more_and_are_reproducible(corruption: Corruption) -> None:
    assert len(corruption.amounts) == 5
    changes = []
    for amount in corruption.amounts:
        images = corruption.apply(DIGITS, amount, rng())
        assert images.shape == DIGITS.shape
        assert images.dtype == np.uint8
        assert np.array_equal(images, corruption.apply(DIGITS, amount, rng()))
        changes.append(np.abs(images.astype(int) - DIGITS).mean())
    assert changes == sorted(changes)
    assert changes[0] > 0.5
