"""A diagnosis: the evidence, the reason, and the key of the configuration to change."""

from __future__ import annotations

from dataclasses import dataclass, field

TITLES = {
    "equal units": "unbroken symmetry",
    "exponential": "exponential activation",
    "faint activations": "vanishing activations",
    "flat loss": "loss plateau",
    "saturation": "saturated units",
    "shifted activations": "activations not zero-centered",
    "silent outputs": "dead outputs",
    "step": "step activation",
}
"""Usual term for a problem by its kind, where the kind, as written to files, is not the term."""


@dataclass(frozen=True)
class Diagnosis:
    """A problem that keeps a network from learning.

    Parameters
    ----------
    kind : str
        Name of the problem in files and JSON; see also `title`.
    layer : int, optional
        Number of the layer, from 1.
    evidence : str
        Measured values, or settings, that show the problem.
    reason : str
        Explanation of why this prevents learning.
    cure : str
        Changes to the configuration, with their keys.
    """

    kind: str
    layer: int | None = field(default=None, kw_only=True)
    evidence: str
    reason: str
    cure: str

    @property
    def title(self) -> str:
        """The problem in the field's terms, for people."""
        return TITLES.get(self.kind, self.kind)


def layer_key(layer: int, key: str) -> str:
    """Return the dotted key of a setting of a layer, numbered from 1."""
    return f"network.layers.{layer - 1}.{key}"
