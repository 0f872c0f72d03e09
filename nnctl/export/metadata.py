"""Metadata of an exported network, stored in its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from nnctl.nn.activations import Sigmoid, Softmax
from nnctl.nn.network import Network


@dataclass(frozen=True)
class ModelMetadata:
    """Metadata of an exported network.

    Parameters
    ----------
    nnctl_version : str
        Version of nnctl that wrote the file.
    dataset : str
        Dataset that the network was trained on.
    labels : list of str
        Class names.
    checkpoint : str
        The exported checkpoint: "best" or "last".
    epoch : int
        Number of epochs that the network was trained for.
    """

    nnctl_version: str
    dataset: str
    labels: list[str]
    checkpoint: str
    epoch: int

    def to_strings(self, network: Network) -> dict[str, str]:
        """Return the metadata as strings, including descriptions of inputs and outputs."""
        fields = asdict(self).items()
        return {
            **{name: text if isinstance(text, str) else json.dumps(text) for name, text in fields},
            "images": describe_images(network),
            "probabilities": describe_outputs(network),
        }


def describe_images(network: Network) -> str:
    """Return a description of the network's input."""
    return f"float32 (N, {network.sizes[0]}), pixels divided by 255: 0 is background, 1 is ink"


def describe_outputs(network: Network) -> str:
    """Return a description of the outputs f(z) of the last layer."""
    function, units = network.functions[-1], network.sizes[-1]
    if isinstance(function, Softmax):
        return "softmax of the logits: the probability of each label"
    if isinstance(function, Sigmoid):
        if units == 1:
            return "sigmoid of the logits: the probability of the second label"
        return "sigmoid of the logits: a probability per label; the sum may differ from 1"
    return f"{function.name} of the logits: not probabilities; the largest output marks the label"
