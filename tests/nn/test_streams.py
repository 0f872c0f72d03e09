"""Random streams are reproducible and independent."""

from __future__ import annotations

import numpy as np
import pytest

from nnctl.nn.streams import Purpose, stream

PURPOSES: list[Purpose] = ["initialization", "shuffling", "subset", "augmentation", "dropout"]


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_stream_depends_on_the_seed(purpose: Purpose) -> None:
    draws = stream(3, purpose).random(5).tolist()
    assert draws == stream(3, purpose).random(5).tolist()
    assert draws != stream(4, purpose).random(5).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_streams_are_independent_children_of_a_numpy_seed_sequence(seed: int) -> None:
    for purpose, child in zip(PURPOSES, np.random.SeedSequence(seed).spawn(5), strict=True):
        expected = np.random.PCG64(child).random_raw(3).tolist()
        assert expected == stream(seed, purpose).bit_generator.random_raw(3).tolist()


def test_streams_of_one_seed_are_not_correlated() -> None:
    draws = [stream(0, purpose).standard_normal(10_000) for purpose in PURPOSES]
    assert abs(np.corrcoef(draws) - np.eye(5)).max() < 0.05


def test_different_places_have_different_streams() -> None:
    places = [(), (0,), (0, 0), (0, 1), (1, 0)]
    draws = {place: stream(3, "dropout", *place).random() for place in places}
    assert len(set(draws.values())) == len(places)
    assert draws[0, 1] == stream(3, "dropout", 0, 1).random()
