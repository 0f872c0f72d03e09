"""Safetensors: PyTorch loads the weights into the printed network, and agrees with nnctl."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from nnctl.errors import UsageError
from nnctl.export.export import export
from nnctl.export.safetensors import translate
from nnctl.nn.activations import (
    ACTIVATIONS,
    Activation,
    Array,
    Exponential,
    LeakyReLU,
    Maxout,
    PReLU,
    Sigmoid,
    Softmax,
    Step,
    Swish,
)
from nnctl.runs.directory import Run
from tests.export.helpers import (
    HIDDEN,
    OUTPUT,
    answers,
    images,
    largest_difference,
    named,
    trained,
)

safetensors = pytest.importorskip("safetensors")

STRANGERS = (Step, Exponential, Maxout)
"""What PyTorch has no module for."""


def is_foreign(activation: Activation) -> bool:
    """Tell whether PyTorch has no module that means the same."""
    return isinstance(activation, STRANGERS) or activation in (Sigmoid(2.5), Swish(1.7))


def run_torch(usage: str, pixels: Array) -> Array:
    """Carry out the printed lines, and return what the network returns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own
        torch = pytest.importorskip("torch", reason="needs PyTorch: pip install torch")
        names: dict[str, object] = {}
        exec(compile(usage, "printed", "exec"), names)  # our own text
        model = names["model"]
        assert isinstance(model, torch.nn.Sequential)
        with torch.no_grad():
            result: Array = model(torch.from_numpy(pixels)).numpy()
    return result


def check(run: Run, folder: Path) -> None:
    """Compare what PyTorch returns for all test images."""
    exported = export(run, "safetensors", file=folder / "it's a model.safetensors")
    logits, outputs = answers(run, images())
    ends_in_logits = isinstance(run.network().functions[-1], Softmax)
    assert ("returns logits: torch.softmax" in exported.usage) == ends_in_logits
    actual = run_torch(exported.usage, images())
    assert largest_difference(logits if ends_in_logits else outputs, actual) <= 1e-5


@pytest.mark.parametrize("activation", [f for f in HIDDEN if not is_foreign(f)], ids=named)
def test_pytorch_comes_to_the_same_numbers(activation: Activation, tmp_path: Path) -> None:
    check(trained([activation, Softmax()]), tmp_path)


@pytest.mark.parametrize("activation", [f for f in OUTPUT if not is_foreign(f)], ids=named)
def test_an_output_layer_comes_to_the_same_numbers(activation: Activation, tmp_path: Path) -> None:
    check(trained([LeakyReLU(0.3), activation]), tmp_path)


@pytest.mark.parametrize("activation", [f for f in HIDDEN if is_foreign(f)], ids=named)
def test_what_pytorch_has_no_module_for_is_told(activation: Activation, tmp_path: Path) -> None:
    run = trained([activation, Softmax()])
    with pytest.raises(UsageError, match=rf"layer 1 is {activation.name}.*PyTorch") as caught:
        export(run, "safetensors", file=tmp_path / "m")
    assert "--format onnx" in str(caught.value.hint)
    assert not [*tmp_path.iterdir()]


def test_every_activation_is_known_or_known_to_be_missing() -> None:
    for kind in set(ACTIVATIONS.values()) - set(STRANGERS):
        layers = [kind(), Softmax()] if kind.place != "output" else [kind()]
        translate(trained(layers).network())


def test_tensors_have_the_names_and_shapes_of_a_state_dict(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load

    run = trained([PReLU(), Softmax()])
    file = export(run, "safetensors", file=tmp_path / "m").file
    tensors = load(file.read_bytes())
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assert shapes == {
        "0.weight": (20, 784),
        "0.bias": (20,),
        "1.weight": (20,),
        "2.weight": (10, 20),
        "2.bias": (10,),
    }
    parameters = run.network().parameters
    assert np.array_equal(tensors["0.weight"].T, parameters.weights[0])
    assert np.array_equal(tensors["1.weight"], parameters.learned[0])
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    assert json.loads(metadata["labels"])[9] == "9"
    assert "divided by 255" in metadata["images"]
