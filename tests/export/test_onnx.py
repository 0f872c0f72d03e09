"""ONNX export: the outputs of ONNX Runtime agree with nnctl for every activation."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnctl
from nnctl.errors import UsageError
from nnctl.export import onnx as module
from nnctl.export.formats import export
from nnctl.export.metadata import ModelMetadata
from nnctl.export.onnx import to_onnx
from nnctl.nn.activations import (
    ACTIVATIONS,
    Activation,
    Linear,
    Maxout,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
)
from nnctl.nn.network import Layer, Network
from nnctl.nn.types import Array
from nnctl.runs.run import Run
from tests.export.helpers import (
    ALL,
    HIDDEN,
    OUTPUT,
    answers,
    images,
    largest_difference,
    named,
    trained,
)

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

ORIGIN = ModelMetadata("1.2", "mini", ["0", "1"], "best", 3)


def run_onnx(content: bytes, pixels: Array) -> tuple[Array, Array]:
    """Return the logits and probabilities that ONNX Runtime computes."""
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"images": pixels})
    return logits, probabilities


def check(run: Run, folder: Path, pixels: Array) -> None:
    """Export a run and compare logits and probabilities for all images."""
    file = export(run, "onnx", file=folder / "model.onnx").file
    onnx.checker.check_model(onnx.load(file), full_check=True)
    for expected, actual in zip(
        answers(run, pixels), run_onnx(file.read_bytes(), pixels), strict=True
    ):
        assert (expected.shape, expected.dtype) == (actual.shape, actual.dtype)
        assert largest_difference(expected, actual) <= 1e-5


def test_all_activations_are_covered() -> None:
    assert {type(activation) for activation in ALL} == set(ACTIVATIONS.values())
    assert {*HIDDEN, *OUTPUT} == {*ALL}


@pytest.mark.parametrize(
    "layers",
    [*([hidden, Softmax()] for hidden in HIDDEN), *([ReLU(), output] for output in OUTPUT)],
    ids=lambda layers: " ".join(map(named, layers)),
)
def test_the_outputs_of_onnx_runtime_agree_with_nnctl(
    layers: list[Activation], tmp_path: Path
) -> None:
    check(trained(layers), tmp_path, images())


@pytest.mark.parametrize("position", ["before", "after"])
def test_batch_normalization_is_a_part_of_the_exported_weights(
    position: str, tmp_path: Path
) -> None:
    check(trained([PReLU(), Maxout(3), Softmax()], position), tmp_path, images())
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [node.op_type for node in graph.node].count("Gemm") == 3
    assert all(node.op_type != "BatchNormalization" for node in graph.node)


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
@pytest.mark.parametrize("activation", HIDDEN, ids=named)
def test_the_outputs_agree_on_all_of_mnist(activation: Activation, tmp_path: Path) -> None:
    pixels = images("mnist")
    assert pixels.shape == (10_000, 784)
    check(trained([activation, Softmax()]), tmp_path, pixels)


@pytest.mark.parametrize("activation", ALL, ids=named)
def test_the_outputs_agree_for_very_large_inputs(activation: Activation) -> None:
    layers = [Layer(1, activation), Layer(1, Linear())]
    pieces = activation.pieces
    network = Network(1, layers)
    network.parameters.weights[0][...] = np.linspace(1, 2, pieces)
    network.parameters.slopes[0][...] = activation.initial_slopes
    network.parameters.weights[1][...] = 1
    pixels = np.array([[-1e6], [-1e4], [-100], [-20], [-1], [-1e-6], [0]], np.float32)
    pixels = np.concatenate([pixels, -pixels])
    with np.errstate(over="ignore"):
        expected = network.outputs(network.logits(pixels))
    _, actual = run_onnx(to_onnx(network, ORIGIN, Path("x"))[0], pixels)
    assert np.isfinite(expected).all()
    assert largest_difference(expected, actual) <= 1e-5


def test_the_model_accepts_any_batch_size(tmp_path: Path) -> None:
    run = trained([ACTIVATIONS["maxout"](), Softmax()])
    content = export(run, "onnx", file=tmp_path / "m.onnx").file.read_bytes()
    pixels = images()
    _, expected = run_onnx(content, pixels)
    for count in (0, 1, 7):
        _, actual = run_onnx(content, pixels[:count])
        assert actual.shape == (count, 10)
        assert np.allclose(expected[:count], actual, atol=1e-6)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run_onnx(content, pixels[:, :100])


def test_the_file_contains_its_metadata(tmp_path: Path) -> None:
    run = trained([Sigmoid(), Softmax()])
    exported = export(run, "onnx", checkpoint="last", file=tmp_path / "m.onnx")
    model = onnx.load(exported.file)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["labels"]) == [str(digit) for digit in range(10)]
    assert (metadata["nnctl_version"], metadata["dataset"]) == (nnctl.__version__, "mini")
    assert (metadata["checkpoint"], metadata["epoch"]) == ("last", "2")
    assert "divided by 255" in metadata["images"]
    assert "divided by 255" in model.doc_string
    assert "divided by 255" in exported.usage
    shapes: dict[str, list[Any]] = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    expected = {"images": ["N", 784], "logits": ["N", 10], "probabilities": ["N", 10]}
    assert expected == shapes
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]


def test_a_binary_classifier_has_a_single_probability(tmp_path: Path) -> None:
    run = trained([Sigmoid()], positive_digit=9)
    check(run, tmp_path, images())
    entries = onnx.load(tmp_path / "model.onnx").metadata_props
    metadata = {entry.key: entry.value for entry in entries}
    assert json.loads(metadata["labels"]) == ["other", "9"]
    assert "the probability of the second label" in metadata["probabilities"]


def test_the_usage_text_states_that_outputs_are_not_probabilities(tmp_path: Path) -> None:
    exported = export(trained([ReLU(), Linear()]), "onnx", file=tmp_path / "m.onnx")
    assert "linear of the logits: not probabilities" in exported.usage


def test_the_same_run_gives_the_same_file_without_a_warning(tmp_path: Path) -> None:
    run = trained([Sigmoid(), Softmax()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, other = (export(run, "onnx", file=tmp_path / name).file for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()


def test_a_network_that_is_too_large_for_onnx_raises_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    with pytest.raises(UsageError, match="at most 2 GB"):
        to_onnx(Network(4, [Layer(1, Sigmoid())]), ORIGIN, Path("x"))
