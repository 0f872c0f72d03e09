"""Conversion of a network to a PyTorch ``Sequential`` and a safetensors file with its weights.

A new activation needs an entry in `_MODULES` if ``torch.nn`` has an equivalent module.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.errors import UsageError, requiring
from nnctl.export.metadata import ModelMetadata, describe_images, describe_outputs
from nnctl.nn.activations import (
    ELU,
    GELU,
    SELU,
    Activation,
    HardSigmoid,
    LeakyReLU,
    Linear,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Softsign,
    Swish,
    Tanh,
)
from nnctl.nn.network import BatchNorm, Network

_MODULES: dict[type[Activation], str] = {
    Sigmoid: "Sigmoid()",
    HardSigmoid: "Hardsigmoid()",
    Tanh: "Tanh()",
    Softsign: "Softsign()",
    ReLU: "ReLU()",
    LeakyReLU: "LeakyReLU(negative_slope={negative_slope})",
    PReLU: "PReLU({units})",
    ELU: "ELU(alpha={alpha})",
    SELU: "SELU()",
    GELU: "GELU(approximate='{approximate}')",
    Swish: "SiLU()",
    Softplus: "Softplus()",
    Linear: "Identity()",
}
"""The ``torch.nn`` module of each activation, with parameter names in braces.

Softmax is omitted: as usual in PyTorch, the model returns logits, which is what losses take.
"""

_MUST_BE_ONE: dict[type[Activation], str] = {Sigmoid: "gain", Swish: "beta"}
"""Parameters that PyTorch's modules lack; the modules are equivalent only if they are 1."""


def to_safetensors(network: Network, metadata: ModelMetadata, target: Path) -> tuple[bytes, str]:
    """Return the content of a safetensors file, and the PyTorch code that loads it.

    Parameters
    ----------
    network : Network
        A trained network.
    metadata : ModelMetadata
        Metadata to store in the file.
    target : Path
        Path of the file, for the code that loads it.

    Raises
    ------
    UsageError
        The library is not installed, or PyTorch has no module for an activation.
    """
    with requiring("the safetensors package", "--format safetensors", extra="export"):
        from safetensors.numpy import save
    modules, tensors = translate(network)
    ends_in_logits = isinstance(network.functions[-1], Softmax)
    lines = [
        "import torch",
        "from safetensors.torch import load_file",
        "",
        f"# takes {describe_images(network)}",
        "model = torch.nn.Sequential(",
        *(f"    torch.nn.{module}," for module in modules),
        ")",
        "# returns logits: torch.softmax(logits, dim=1) gives the probabilities"
        if ends_in_logits
        else f"# returns {describe_outputs(network)}",
        f"model.load_state_dict(load_file({str(target)!r}))",
    ]
    if any(layer.batch_norm for layer in network.layers):
        lines.append("model.eval()  # batch normalization uses its running statistics")
    return save(tensors, metadata=metadata.to_strings(network)), "\n".join(lines)


def translate(network: Network) -> tuple[list[str], dict[str, NDArray[np.float32]]]:
    """Return the modules of a PyTorch ``Sequential`` and the tensors of its ``state_dict``.

    Raises
    ------
    UsageError
        PyTorch has no module that is equivalent to an activation.
    """
    modules: list[str] = []
    tensors: dict[str, NDArray[np.float32]] = {}

    def add_tensor(name: str, array: NDArray[Any]) -> None:
        tensors[f"{len(modules)}.{name}"] = np.ascontiguousarray(array, np.float32)

    def add_batch_norm(layer: int, norm: BatchNorm) -> None:
        add_tensor("weight", network.parameters.gains[layer])
        add_tensor("bias", network.parameters.shifts[layer])
        add_tensor("running_mean", network.running_means[layer])
        add_tensor("running_var", network.running_variances[layer])
        # PyTorch's momentum is the share of the new value.
        modules.append(
            f"BatchNorm1d({network.layers[layer].n_normalized}, eps={norm.epsilon:g}, "
            f"momentum={1 - norm.momentum:g})"
        )

    for i, layer in enumerate(network.layers):
        activation = layer.activation
        add_tensor("weight", network.parameters.weights[i].T)
        add_tensor("bias", network.parameters.biases[i])
        modules.append(f"Linear({network.sizes[i]}, {layer.columns})")
        if isinstance(activation, Softmax):
            continue
        norm = layer.batch_norm
        if norm and norm.position == "before":
            add_batch_norm(i, norm)
        module = _module(activation, layer.units, number=i + 1)
        if activation.has_slopes:
            add_tensor("weight", network.parameters.slopes[i])
        modules.append(module)
        if norm and norm.position == "after":
            add_batch_norm(i, norm)
    return modules, tensors


def _module(activation: Activation, units: int, number: int) -> str:
    """Return the module that is equivalent to the activation of the layer with this number."""
    missing = _MUST_BE_ONE.get(type(activation))
    template = _MODULES.get(type(activation))
    if template is None or (missing and getattr(activation, missing) != 1):
        parameter = f" with {missing}: {getattr(activation, missing):g}" if missing else ""
        raise UsageError(
            f"layer {number} uses {activation.name}{parameter}, for which PyTorch has no module",
            hint="Use --format onnx, which supports every activation.",
        )
    parameters = dataclasses.asdict(activation)
    named = {name: "none" if value is None else value for name, value in parameters.items()}
    return template.format(units=units, **named)
