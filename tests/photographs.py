"""Photographs of digits, generated from labeled images."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DISTORTIONS = ("invert", "move", "rotate", "gradient", "noise", "jpeg")
"""All distortions of photographs."""

_SIDE = 420  # pixels of a photograph; the image of the digit, enlarged ten times, has 280


def photograph(image: NDArray[np.uint8], seed: int, kinds: Iterable[str] = DISTORTIONS) -> bytes:
    """Return a photograph of an MNIST image as a PNG file or a JPEG file of low quality.

    Its distortions: dark ink on light paper (invert), off center (move), up to ten degrees askew
    (rotate), light from one side (gradient), grain (noise), and JPEG's artifacts (jpeg).
    """
    rng, kinds = np.random.default_rng(seed), set(kinds)
    angle, direction = rng.uniform(-10, 10), rng.uniform(0, 2 * np.pi)
    down, across = rng.integers(0, _SIDE - 280 + 1, 2) if "move" in kinds else (70, 70)
    digit = Image.fromarray(image.reshape(28, 28)).resize((280, 280), Image.Resampling.BICUBIC)
    if "rotate" in kinds:
        digit = digit.rotate(angle, Image.Resampling.BICUBIC)
    ink = np.zeros((_SIDE, _SIDE))
    ink[down : down + 280, across : across + 280] = np.asarray(digit) / 255
    paper = np.full(ink.shape, 0.85)
    if "gradient" in kinds:
        y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
        paper = 0.65 + 0.18 * (x * np.cos(direction) + y * np.sin(direction))
    picture = paper * (1 - 0.8 * ink) if "invert" in kinds else 1 - paper + 0.9 * paper * ink
    if "noise" in kinds:
        picture = picture + rng.normal(0, 0.06, picture.shape)
    return encoded(picture, "JPEG" if "jpeg" in kinds else "PNG", quality=25)


def encoded(picture: NDArray[np.floating], kind: str = "PNG", **options: int) -> bytes:
    """Return a picture, 0 to 1, as the content of an image file."""
    content = io.BytesIO()
    gray = (np.clip(picture, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(gray).save(content, kind, **({} if kind == "PNG" else options))
    return content.getvalue()
