"""Where an exported network comes from, as its file tells."""

from __future__ import annotations

import json
from dataclasses import dataclass

from nnctl.nn.activations import Sigmoid, Softmax
from nnctl.nn.network import Network


@dataclass(frozen=True)
class Origin:
    """What a file says of the network in it.

    Parameters
    ----------
    nnctl_version : str
        Of the program that wrote it.
    dataset : str
        That it was trained on.
    labels : list of str
        What its classes are called.
    checkpoint : str
        The best epoch's, or the last.
    epoch : int
        After how many epochs.
    """

    nnctl_version: str
    dataset: str
    labels: list[str]
    checkpoint: str
    epoch: int

    def metadata(self, network: Network) -> dict[str, str]:
        """Return all that a file says of its network, as text by name."""
        return {
            "nnctl_version": self.nnctl_version,
            "dataset": self.dataset,
            "labels": json.dumps(self.labels),
            "checkpoint": self.checkpoint,
            "epoch": str(self.epoch),
            "images": describe_images(network),
            "probabilities": describe_outputs(network),
        }


def describe_images(network: Network) -> str:
    """Say what the network takes."""
    return f"float32 (N, {network.sizes[0]}), pixels divided by 255: 0 is background, 1 is ink"


def describe_outputs(network: Network) -> str:
    """Say what the outputs f(z) of the last layer are."""
    function, units = network.functions[-1], network.sizes[-1]
    if isinstance(function, Softmax):
        return "softmax of the logits: the probability of each label"
    if isinstance(function, Sigmoid):
        whose = "the second label" if units == 1 else "each label by itself; they need not sum to 1"
        return f"sigmoid of the logits: the probability of {whose}"
    return f"{function.name} of the logits; no probabilities: the largest tells the label"
