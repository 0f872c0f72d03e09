"""A network's parameters under the names that PyTorch gives them, and the network in its words.

An activation more needs an entry in `_MODULES` if ``torch.nn`` has a module of the same meaning.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.errors import UsageError
from nnctl.export.origin import Origin, describe_images, describe_outputs
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
from nnctl.nn.network import Network

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
"""The module of ``torch.nn`` for an activation, with the names of parameters in braces.

Softmax is left to whoever wants probabilities, as is usual there: losses take logits.
"""

_ONE: dict[type[Activation], str] = {Sigmoid: "gain", Swish: "beta"}
"""Parameters that the modules do not have, so that they mean the same only where these are 1."""


def to_safetensors(network: Network, origin: Origin, target: Path) -> tuple[bytes, str]:
    """Return a network's parameters as the content of a safetensors file, and how to load them.

    Parameters
    ----------
    network : Network
        With its trained parameters.
    origin : Origin
        What is said of it in the file.
    target : Path
        Where the file is going to be.

    Raises
    ------
    UsageError
        The library is not installed, or PyTorch has no module for an activation.
    """
    try:
        from safetensors.numpy import save
    except ImportError:
        raise UsageError(
            "--format safetensors needs safetensors",
            hint="Install it with: pip install 'nnctl[export]'",
        ) from None
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
    return save(tensors, metadata=origin.metadata(network)), "\n".join(lines)


def translate(network: Network) -> tuple[list[str], dict[str, NDArray[np.float32]]]:
    """Return the modules of PyTorch's ``Sequential``, and the tensors of its ``state_dict``.

    Raises
    ------
    UsageError
        PyTorch has no module that means what an activation means.
    """
    modules: list[str] = []
    tensors: dict[str, NDArray[np.float32]] = {}

    def keep(name: str, array: NDArray[Any]) -> None:
        tensors[f"{len(modules)}.{name}"] = np.ascontiguousarray(array, np.float32)

    for i, layer in enumerate(network.layers):
        activation = layer.activation
        keep("weight", network.parameters.weights[i].T)
        keep("bias", network.parameters.biases[i])
        modules.append(f"Linear({network.sizes[i]}, {layer.maps})")
        if isinstance(activation, Softmax):
            continue
        module = _module(activation, layer.units)
        if module is None:
            raise UsageError(
                f"layer {i + 1} is {_described(activation)}, which PyTorch has no module for",
                hint="Use --format onnx, which holds every activation.",
            )
        if activation.learns:
            keep("weight", network.parameters.learned[i])
        modules.append(module)
    return modules, tensors


def _module(activation: Activation, units: int) -> str | None:
    """Return the module that means what an activation of so many units means, if there is one."""
    missing = _ONE.get(type(activation))
    template = _MODULES.get(type(activation))
    if template is None or (missing and getattr(activation, missing) != 1):
        return None
    parameters = dataclasses.asdict(activation)
    named = {name: "none" if value is None else value for name, value in parameters.items()}
    return template.format(units=units, **named)


def _described(activation: Activation) -> str:
    """Return the name of an activation, with the parameter that is in the way."""
    missing = _ONE.get(type(activation))
    given = f" with {missing}: {getattr(activation, missing):g}" if missing else ""
    return f"{activation.name}{given}"
