"""A team of threads waits at the barrier, stops after errors, and splits a step evenly."""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from nnctl.nn.activations import Activation, Maxout, PReLU, Tanh
from nnctl.nn.backprop import Backpropagation
from nnctl.nn.network import BatchNorm, Parameters
from nnctl.nn.parallel import split_parameters
from nnctl.nn.threads import ThreadTeam
from nnctl.nn.types import Array
from tests.nn.helpers import HIDDEN, make_network, normal

pytestmark = pytest.mark.timeout(120)


@contextlib.contextmanager
def make_team(size: int) -> Iterator[ThreadTeam]:
    """Return a team whose threads end with the context."""
    team = ThreadTeam(size)
    try:
        yield team
    finally:
        team.stop()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_thread_runs_the_work_once(size: int) -> None:
    done: dict[int, str] = {}

    def work(i: int) -> None:
        done[i] = threading.current_thread().name
        team.wait()

    with make_team(size) as team:
        team.run(work)
    assert set(range(size)) == set(done)
    assert (size == 1) == (threading.current_thread().name in done.values())
    assert len(set(done.values())) == size


def test_no_thread_passes_the_barrier_before_all_reach_it() -> None:
    size = 3
    written = np.zeros(size, int)
    seen: list[list[int]] = [[] for _ in range(size)]

    def work(i: int) -> None:
        for _ in range(200):
            written[i] += 1
            team.wait()
            seen[i].append(int(written.min()))
            team.wait()

    with make_team(size) as team:
        team.run(work)
    assert [[*range(1, 201)]] * size == seen


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_one_thread_is_raised_and_stops_all_threads(failing: int) -> None:
    def work(i: int) -> None:
        if i == failing:
            raise MemoryError(f"thread {i}")
        team.wait()

    with make_team(3) as team, pytest.raises(MemoryError, match=f"thread {failing}"):
        team.run(work)
    # The team is still of use.
    done: list[int] = []
    with make_team(3) as team:
        team.run(done.append)
        team.run(lambda _: team.wait())
    assert sorted(done) == [0, 1, 2]


@pytest.mark.parametrize(("count", "size"), [(0, 2), (1, 1), (1, 3), (7, 3), (512, 4)])
def test_rows_are_divided_evenly(count: int, size: int) -> None:
    rows = [range(count)[part] for part in ThreadTeam(size).split(count)]
    assert [*range(count)] == [row for part in rows for row in part]
    assert size == len(rows)
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_an_overflow_in_another_thread_does_not_warn() -> None:
    def overflow(i: int) -> None:
        results[i] = np.exp(np.full(4, 1e3, np.float32))

    results: dict[int, Array] = {}
    with make_team(3) as team, np.errstate(over="ignore"):
        team.run(overflow)
    assert all(np.isinf(results[i]).all() for i in range(3))


def test_the_barrier_works_after_any_earlier_work() -> None:
    for _ in range(100):
        with make_team(4) as team:
            team.run(lambda _: None)
            team.run(lambda _: team.wait())


def test_an_interrupt_leaves_no_thread_waiting() -> None:
    # A shell starts background processes with interrupts ignored.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt_teams()
    finally:
        signal.signal(signal.SIGINT, previous)


def interrupt_teams() -> None:
    for i in range(100):
        timer = threading.Timer(1e-5 * i, _thread.interrupt_main)
        with contextlib.suppress(KeyboardInterrupt), make_team(2) as team:
            timer.start()
            while True:
                team.run(lambda _: team.wait())
        timer.join()
    with make_team(2) as team:
        team.run(lambda _: team.wait())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50])
def test_shards_cover_all_parameters_evenly_in_whole_rows(count: int) -> None:
    network = make_network([40, 30, 20, 2], ["prelu", "maxout", "softmax"])
    parameters = network.parameters
    parameters.vector[...] = np.arange(parameters.vector.size)
    shards = split_parameters(parameters, parameters, {}, ThreadTeam(count))
    covered = np.concatenate([shard.parameters for shard in shards])
    np.testing.assert_array_equal(parameters.vector, covered)
    assert [False] * (count - 1) + [True] == [shard.is_last for shard in shards]
    for shard in shards:
        weights = [parameters.weights[layer][rows].ravel() for layer, rows in shard.rows]
        assert sum(map(len, weights)) == len(shard.weights)
        assert all(np.shares_memory(part, shard.weights) for part in weights)
        longest_row = 40
        assert abs(len(shard.weights) - parameters.decaying.size / count) <= longest_row


@pytest.mark.parametrize(
    ("hidden", "batch_norm"),
    [
        *((f, None) for f in HIDDEN),
        *((f, BatchNorm(position="before")) for f in (Tanh(), PReLU(), Maxout())),
        *((f, BatchNorm(position="after")) for f in (Tanh(), PReLU(), Maxout())),
    ],
    ids=str,
)
def test_parts_of_a_batch_give_the_gradient_of_the_whole_batch(
    hidden: Activation, batch_norm: BatchNorm | None
) -> None:
    network = make_network([6, 5, 4, 3], [hidden, hidden, "softmax"], batch_norm=batch_norm)
    gradients = [Parameters(6, network.layers, np.float64) for _ in range(2)]
    inputs, deltas, logits = normal(7, 6), normal(7, 3, seed=1), np.empty((7, 3))
    whole, backprop = (Backpropagation(network, gradient, 7) for gradient in gradients)
    whole.forward(inputs, logits)
    whole.output_deltas[...] = deltas
    whole.backward(inputs)

    def work(thread: int) -> None:
        rows, part = parts[thread]
        part.forward(inputs[rows], logits[rows])
        part.output_deltas[...] = deltas[rows]
        part.propagate()

    with make_team(8) as team:  # one of them gets no example
        parts = backprop.split(team)
        team.run(work)
    for shard in split_parameters(network.parameters, gradients[1], {}, ThreadTeam(3)):
        shard.write_gradient(backprop, inputs)
    np.testing.assert_allclose(gradients[0].vector, gradients[1].vector, rtol=1e-12, atol=1e-14)
