"""Networks created from arrays, and runs saved from them."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnctl
from nnctl.config import from_mapping
from nnctl.errors import ConfigError, DamagedFileError, UsageError
from nnctl.nn.activations import LeakyReLU
from nnctl.nn.network import Network
from nnctl.runs.initial import InitialNetwork
from nnctl.runs.pretrained import save_network
from nnctl.runs.run import Run
from nnctl.runs.training_run import TrainingRun
from tests.conftest import CONFIGS, Nnctl
from tests.runs.helpers import MINI, SMALL, begin, ignore, outcome, resume, train

RNG = np.random.default_rng(0)


def arrays(*sizes: int) -> tuple[list[Any], list[Any]]:
    """Return random weights and biases in float64."""
    pairs = itertools.pairwise(sizes)
    return [RNG.normal(size=pair) for pair in pairs], [RNG.normal(size=n) for n in sizes[1:]]


def test_a_network_from_arrays_computes_f_of_x_w_plus_b() -> None:
    weights, biases = arrays(4, 3, 2)
    network = nnctl.Network.from_arrays(
        weights, [biases[0][:, None], biases[1][None]], [{"name": "sigmoid", "gain": 2}, "linear"]
    )
    inputs = RNG.normal(size=(5, 4)).astype(np.float32)
    hidden = 1 / (1 + np.exp(-2 * (inputs @ weights[0] + biases[0])))
    assert np.allclose(hidden @ weights[1] + biases[1], network.logits(inputs), atol=1e-5)


def test_prelu_and_maxout_have_their_own_arrays() -> None:
    weights, biases = arrays(4, 3, 6)
    network = nnctl.Network.from_arrays(
        weights, biases, ["prelu", {"name": "maxout", "pieces": 3}], slopes={0: [1, 2, 3]}
    )
    assert network.sizes == (4, 3, 2)
    assert network.parameters.slopes[0].tolist() == [1, 2, 3]
    untrained = nnctl.Network.from_arrays(weights[:1], biases[:1], ["prelu"])
    assert untrained.parameters.slopes[0].tolist() == [0.25] * 3


def ones(*shape: int) -> Any:
    return np.ones(shape)


GOOD: dict[str, Any] = {
    "weights": [ones(4, 3), ones(3, 2)],
    "biases": [ones(3), ones(2)],
    "activations": ["relu", LeakyReLU()],
}
NOT_NUMBERS = "biases of layer 1 are not an array of numbers"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"biases": [ones(3)]}, "got 2 weights, 1 biases and 2 activations"),
        ({"weights": [], "biases": [], "activations": []}, "got 0 weights, 0 biases"),
        ({"weights": [ones(3), ones(3, 2)]}, r"layer 1: expected weights \(inputs, units\)"),
        ({"weights": [ones(4, 3), ones(4, 2)]}, r"layer 2: weights \(4, 2\) do not fit 3"),
        ({"weights": [1.0, ones(3, 2)]}, "layer 1: expected weights"),
        ({"biases": [ones(2, 2), ones(2)]}, r"layer 1: .* got \(4, 3\) and \(2, 2\)"),
        ({"biases": [ones(3), ones(5)]}, "3 inputs and 5 biases"),
        ({"biases": [3.0, ones(2)]}, "layer 1: expected weights"),
        ({"weights": [ones(4, 3), np.full((3, 2), np.nan)]}, "weights of layer 2 .* not finite"),
        ({"biases": [ones(3), np.full(2, np.nan)]}, "biases of layer 2 .* not finite"),
        ({"biases": [np.full(3, 1e300), ones(2)]}, "biases of layer 1 .* not finite"),
        ({"biases": [["a", "b", "c"], ones(2)]}, NOT_NUMBERS),
        ({"biases": [[[1], [1, 2]], ones(2)]}, NOT_NUMBERS),
        ({"activations": ["relu", "sigmod"]}, "layer 2: unknown activation 'sigmod'; did you mean"),
        ({"activations": ["relu", {"gain": 2}]}, "layer 2: unknown activation"),
        ({"activations": [{"name": "elu", "alpha": -1}, "relu"]}, "layer 1: elu: alpha must not"),
        ({"activations": [{"name": "relu", "gain": 1}, "relu"]}, "layer 1: relu: "),
        ({"activations": ["maxout", "relu"]}, "layer 1: 3 biases are not a multiple of 2 pieces"),
        ({"slopes": {0: [1, 2, 3]}}, "layer 1 has no slopes"),
        ({"slopes": {7: [1]}}, "layer 8 has no slopes"),
        ({"activations": ["prelu", "relu"], "slopes": {0: [1]}}, "layer 1 has 3 slopes, got"),
        ({"activations": ["prelu", "relu"], "slopes": {0: [1] * 4}}, "layer 1 has 3 slopes, got"),
    ],
)
def test_arrays_that_do_not_fit_are_errors(wrong: dict[str, Any], message: str) -> None:
    nnctl.Network.from_arrays(**GOOD)
    with pytest.raises(UsageError, match=message):
        nnctl.Network.from_arrays(**{**GOOD, **wrong})


@pytest.mark.parametrize("layer", [0, 1])
def test_transposed_weights_are_recognized(layer: int) -> None:
    weights = [*GOOD["weights"]]
    weights[layer] = weights[layer].T
    with pytest.raises(UsageError) as caught:
        nnctl.Network.from_arrays(**{**GOOD, "weights": weights})
    assert "Transpose" in str(caught.value.hint)


@pytest.fixture
def trained(scratch: Path) -> Run:
    """A trained run, whose weights are used like those of another program."""
    return nnctl.train(CONFIGS / "smoke.yaml", epochs=1, run_dir=scratch / "trained")


def test_a_run_from_arrays_can_be_evaluated_checked_and_trained_further(
    nnctl: Nnctl, trained: Run
) -> None:
    import nnctl as api

    parameters = trained.network().parameters
    activations = ["relu", "softmax"]
    network = api.Network.from_arrays(parameters.weights, parameters.biases, activations)
    run = api.save(network, "book", dataset="mini", settings={"optimizer.learning_rate": 0.05})
    expected, actual = api.evaluate(trained), api.evaluate(run)
    assert (expected.accuracy, expected.loss) == (actual.accuracy, actual.loss)
    assert json.loads(nnctl("eval", "book", "--json").stdout)["accuracy"] == expected.accuracy
    nnctl("check", "book")
    best = Path("book/best.npz").read_bytes()
    nnctl("train", "--resume", "book", "--epochs", "1", "--quiet")
    assert Path("book/best.npz").read_bytes() != best
    assert api.evaluate(run).accuracy > expected.accuracy - 0.01
    assert run.config.optimizer.learning_rate == 0.05
    shutil.rmtree("book")


def test_a_run_from_arrays_keeps_them_although_averaged_weights_are_configured(
    scratch: Path,
) -> None:
    network = nnctl.Network.from_arrays([[[1.0], [1.0]]], [[-1.5]], ["step"])
    settings = {"training.average": 0.9}
    run = nnctl.save(network, scratch / "and", dataset="and", settings=settings)
    assert nnctl.evaluate(run).accuracy == 1


def test_a_network_with_batch_normalization_is_saved_with_its_statistics(
    scratch: Path, trained: Run
) -> None:
    key = "network.layers.0.batch_norm"
    settings = {f"{key}.position": "after", f"{key}.momentum": 0.8}
    normalized = nnctl.train(
        CONFIGS / "smoke.yaml", epochs=1, settings=settings, run_dir=scratch / "bn"
    )
    run = save_network(normalized.network(), scratch / "copy", "mini", notify=ignore)
    expected, actual = nnctl.evaluate(normalized), nnctl.evaluate(run)
    assert (expected.accuracy, expected.loss) == (actual.accuracy, actual.loss)
    assert run.config.network.layers[0].batch_norm == normalized.config.network.layers[0].batch_norm
    assert expected.accuracy > nnctl.evaluate(trained).accuracy - 0.1


def test_a_network_that_does_not_fit_the_dataset_is_an_error(scratch: Path) -> None:
    for sizes, error, message in (
        ((784, 9), ConfigError, "the last layer has 9 units"),
        ((10, 10), UsageError, "784 pixels; this network takes 10"),
    ):
        network = nnctl.Network.from_arrays(*arrays(*sizes), ["softmax"])
        with pytest.raises(error, match=message):
            nnctl.save(network, "book", dataset="mini")
        assert not (scratch / "book").exists()


@pytest.mark.usefixtures("scratch")
def test_the_loss_fits_the_outputs() -> None:
    network = nnctl.Network.from_arrays(*arrays(784, 10), ["tanh"])
    assert nnctl.save(network, "tanh", dataset="mini").config.loss == "quadratic"
    nine = nnctl.Network.from_arrays(*arrays(784, 1), ["sigmoid"])
    settings = {"data.positive_digit": 9, "loss": "quadratic"}
    run = nnctl.save(nine, "nine", dataset="mini", settings=settings)
    assert run.config.loss == "quadratic"
    assert nnctl.evaluate(run).classes == ["other", "9"]
    with pytest.raises(UsageError, match="not empty"):
        nnctl.save(nine, "nine", dataset="mini", settings=settings)


# Runs that begin with the weights of another run --------------------------------------------------


def test_layers_that_fit_begin_with_the_weights_of_another_run(
    nnctl: Nnctl, trained_run: Path, scratch: Path
) -> None:
    layers = [{"units": 64, "activation": "prelu"}, {"units": 9, "activation": "relu"}]
    settings = f"network.layers={json.dumps([*layers, {'units': 10, 'activation': 'softmax'}])}"
    command = ("train", CONFIGS / "smoke.yaml", "--epochs", 1, "--set", settings)
    done = nnctl(*command, "--init-from", trained_run, "--run-dir", "run")
    assert f"weights   of layer 1 from {trained_run}, epoch 2" in done.stderr
    assert re.findall(r"layer \d \(.*\) has new weights", done.stderr) == [
        "layer 2 (9 relu) has new weights",
        "layer 3 (10 softmax) has new weights",
    ]
    record = json.loads((scratch / "run" / "init.json").read_text("utf-8"))
    sha256 = hashlib.sha256((trained_run / "best.npz").read_bytes()).hexdigest()
    assert record["sha256"] == sha256
    assert record["layers"] == [1]


def test_a_run_with_initial_weights_resumes_to_the_same_bits(
    tmp_path: Path, trained_run: Path
) -> None:
    initial = InitialNetwork.of(Run.open(trained_run))
    layers = [{"units": 64, "activation": "prelu"}, {"units": 10, "activation": "softmax"}]
    config = {**SMALL, "network": {"layers": layers}}
    fresh = begin(tmp_path / "fresh", config).network.parameters
    for name, events in (("whole", None), ("killed", 0), ("interrupted", 3)):
        run = Run.create_at(tmp_path / name)
        training = TrainingRun.create(run, from_mapping(config, "test"), MINI, initial)
        parameters, source = training.network.parameters, initial.network.parameters
        for ours, theirs in (
            (parameters.weights, source.weights),
            (parameters.biases, source.biases),
            (parameters.slopes[:1], fresh.slopes[:1]),
        ):
            assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))
        if events == 0:
            training.lock.unlock()
        else:
            assert train(training, events) == ("interrupted" if events else "finished")
        if events is not None:
            assert train(resume(tmp_path / name)) == "finished"
        assert outcome(tmp_path / name) == outcome(tmp_path / "whole")
    (tmp_path / "whole" / "last.npz").unlink()
    with pytest.raises(DamagedFileError, match="begins with the weights of another run"):
        resume(tmp_path / "whole")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1, "run": 3}'])
def test_a_damaged_record_of_initial_weights_is_reported(
    nnctl: Nnctl, copied_run: Path, text: str
) -> None:
    (copied_run / "init.json").write_text(text, "utf-8")
    done = nnctl("train", "--resume", "run", "--epochs", 3, code=3)
    assert "init.json" in done.stderr


@pytest.mark.parametrize(
    ("damage", "options", "code", "message"),
    [
        (lambda _: None, ("--set", "network.layers.0.units=9"), 2, "no layer of run fits this"),
        (lambda _: None, ("--resume", "run"), 2, "cannot be used with --resume"),
        (lambda run: (run / "best.npz").write_bytes(b"PK"), (), 3, "best.npz is damaged"),
        (lambda run: (run / "best.npz").unlink(), (), 3, "best.npz: file not found"),
        (lambda run: (run / "config.yaml").unlink(), (), 2, "is not a run directory"),
        (shutil.rmtree, (), 2, "run directory not found"),
    ],
)
def test_a_run_whose_weights_cannot_be_used_is_reported_and_leaves_no_directory(
    nnctl: Nnctl, copied_run: Path, damage: Any, options: tuple[str, ...], code: int, message: str
) -> None:
    damage(copied_run)
    command = ("train", CONFIGS / "smoke.yaml", "--init-from", "run", *options)
    done = nnctl(*command, code=code)
    assert message in done.stderr
    assert "Hint" in done.stderr or code == 2
    assert not list(copied_run.parent.glob("runs/*"))


def test_batch_normalization_continues_with_the_statistics_of_the_other_run(nnctl: Nnctl) -> None:
    words = ("--set", "network.layers.0.batch_norm=true", "--subset", 200, "--epochs", 1)
    nnctl("train", "smoke", *words, "--run-dir", "first")
    first = Run(Path("first")).network()
    target = Network(first.sizes[0], first.layers)
    target.initialize(np.random.default_rng(1))
    record = InitialNetwork.of(Run(Path("first"))).copy_to(target)
    assert record.layers == [1, 2]
    assert first.running_means[0].any()
    np.testing.assert_array_equal(target.parameters.vector, first.parameters.vector)
    np.testing.assert_array_equal(target.statistics, first.statistics)
    plain = Network(first.sizes[0], [replace(layer, batch_norm=None) for layer in first.layers])
    InitialNetwork.of(Run(Path("first"))).copy_to(plain)
    inputs = np.random.default_rng(2).random((5, first.sizes[0]), np.float32)
    np.testing.assert_allclose(plain.logits(inputs), first.logits(inputs), rtol=1e-3, atol=1e-4)
