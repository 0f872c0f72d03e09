"""Begins a run with the trained layers of another run, and records where they come from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from nnctl.errors import DataError, UsageError
from nnctl.nn.network import Network
from nnctl.runs.run import Run
from nnctl.runs.summary import InitRecord


@dataclass(frozen=True, eq=False)
class InitialNetwork:
    """The network of a run, from which another run takes its initial weights.

    Parameters
    ----------
    network : Network
        Network of the best epoch.
    run : str
        Directory of the run.
    epoch : int
        Number of the epoch.
    sha256 : str
        SHA-256 of the checkpoint.
    """

    network: Network
    run: str
    epoch: int
    sha256: str

    @classmethod
    def of(cls, run: Run) -> InitialNetwork:
        """Read the best network of a run.

        Raises
        ------
        DataError
            The checkpoint is missing or damaged.
        """
        try:
            trained = run.load("best")
            digest = hashlib.sha256(run.checkpoint_path("best").read_bytes()).hexdigest()
        except DataError as error:
            error.hint = "Use another run with --init-from, or begin without it."
            raise
        # A name that is not valid Unicode cannot be stored.
        name = str(run.directory).encode(errors="backslashreplace").decode()
        return cls(trained.network, name, trained.epoch, digest)

    def copy_to(self, network: Network) -> InitRecord:
        """Copy the layers that have the same numbers of inputs and units in both networks.

        The slopes of activations and batch normalization are copied if both networks have them. For
        a network without batch normalization, that of the run becomes part of the copied weights.

        Raises
        ------
        UsageError
            No layer fits.
        """
        trained = self.network if network.statistics.size else self.network.folded()
        source, target = trained.parameters, network.parameters
        fitting = [
            i
            for i, (ours, theirs) in enumerate(zip(target.weights, source.weights, strict=False))
            if ours.shape == theirs.shape
        ]
        if not fitting:
            raise UsageError(
                f"no layer of {self.run} fits this network: its sizes are {_sizes(self.network)}, "
                f"and not {_sizes(network)}",
                hint="Use a run with the same inputs and the same units in the first layer, or "
                "begin without --init-from.",
            )
        for i in fitting:
            target.weights[i][...] = source.weights[i]
            target.biases[i][...] = source.biases[i]
            for theirs, ours in (
                (source.slopes, target.slopes),
                (source.gains, target.gains),
                (source.shifts, target.shifts),
                (trained.running_means, network.running_means),
                (trained.running_variances, network.running_variances),
            ):
                if ours[i].shape == theirs[i].shape:
                    ours[i][...] = theirs[i]
        layers = [i + 1 for i in fitting]
        return InitRecord(run=self.run, epoch=self.epoch, sha256=self.sha256, layers=layers)


def _sizes(network: Network) -> str:
    return "-".join(map(str, network.sizes))
