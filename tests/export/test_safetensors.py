"""Safetensors export: PyTorch runs the printed code, and its outputs agree with nnctl."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnctl.errors import UsageError
from nnctl.export.formats import export
from nnctl.export.safetensors import translate
from nnctl.nn.activations import (
    ACTIVATIONS,
    Activation,
    Exponential,
    LeakyReLU,
    Maxout,
    PReLU,
    Sigmoid,
    Softmax,
    Step,
    Swish,
)
from nnctl.nn.types import Array
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

MISSING = (Step, Exponential, Maxout)
"""Activations without a PyTorch module."""


def is_missing(activation: Activation) -> bool:
    return isinstance(activation, MISSING) or activation in (Sigmoid(2.5), Swish(1.7))


def import_torch() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from importing PyTorch
        return pytest.importorskip("torch", reason="needs PyTorch: pip install torch")


def run_torch(usage: str, pixels: Array) -> Array:
    """Return the outputs of the PyTorch model that the printed code creates."""
    torch = import_torch()
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(usage, "printed", "exec"), names)  # our own text
        model = names["model"]
        assert isinstance(model, torch.nn.Sequential)
        with torch.no_grad():
            result: Array = model(torch.from_numpy(pixels)).numpy()
    return result


@pytest.mark.parametrize(
    ("layers", "position"),
    [
        *(([hidden, Softmax()], None) for hidden in HIDDEN if not is_missing(hidden)),
        *(([LeakyReLU(0.3), output], None) for output in OUTPUT if not is_missing(output)),
        ([PReLU(), Sigmoid(), Softmax()], "before"),
        ([PReLU(), Sigmoid(), Softmax()], "after"),
    ],
    ids=lambda value: " ".join(map(named, value)) if isinstance(value, list) else str(value),
)
def test_the_outputs_of_pytorch_agree_with_nnctl(
    layers: list[Activation], position: str | None, tmp_path: Path
) -> None:
    import_torch()
    run = trained(layers, position)
    exported = export(run, "safetensors", file=tmp_path / "it's a model.safetensors")
    logits, outputs = answers(run, images())
    ends_in_logits = isinstance(run.network().functions[-1], Softmax)
    assert ("returns logits: torch.softmax" in exported.usage) == ends_in_logits
    actual = run_torch(exported.usage, images())
    assert largest_difference(logits if ends_in_logits else outputs, actual) <= 1e-5


@pytest.mark.parametrize("activation", [f for f in HIDDEN if is_missing(f)], ids=named)
def test_an_activation_without_a_pytorch_module_raises_an_error(
    activation: Activation, tmp_path: Path
) -> None:
    run = trained([activation, Softmax()])
    with pytest.raises(UsageError, match=rf"layer 1 uses {activation.name}.*PyTorch") as caught:
        export(run, "safetensors", file=tmp_path / "m")
    assert "--format onnx" in str(caught.value.hint)
    assert not [*tmp_path.iterdir()]


def test_all_other_activations_are_translated() -> None:
    for kind in set(ACTIVATIONS.values()) - set(MISSING):
        layers = [kind(), Softmax()] if kind.place != "output" else [kind()]
        translate(trained(layers).network())


@pytest.mark.parametrize(("position", "modules"), [("before", (1, 2)), ("after", (2, 1))])
def test_batch_normalization_is_a_module_of_its_own(
    position: str, modules: tuple[int, int]
) -> None:
    network = trained([PReLU(), Softmax()], position).network()
    written, tensors = translate(network)
    norm, activation = modules
    assert written[norm] == "BatchNorm1d(20, eps=1e-05, momentum=0.1)"
    assert written[activation] == "PReLU(20)"
    x = images() @ tensors["0.weight"].T + tensors["0.bias"]
    for i in (1, 2):  # as PyTorch documents its modules
        w = tensors[f"{i}.weight"]
        if i == norm:
            std = np.sqrt(tensors[f"{i}.running_var"] + 1e-5)
            x = (x - tensors[f"{i}.running_mean"]) / std * w + tensors[f"{i}.bias"]
        else:
            x = np.where(x > 0, x, w * x)
    actual = x @ tensors["3.weight"].T + tensors["3.bias"]
    assert largest_difference(network.logits(images()), actual) <= 1e-5


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
    assert np.array_equal(tensors["1.weight"], parameters.slopes[0])
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    assert json.loads(metadata["labels"])[9] == "9"
    assert "divided by 255" in metadata["images"]
