"""What a run records besides its epochs: its result, and where its initial weights come from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from nnctl.config import Config
from nnctl.diagnosis.base import Diagnosis
from nnctl.nn.events import Divergence
from nnctl.runs.checkpoint import DatasetRecord
from nnctl.runs.records import Count, FileRecord, Number, PositiveCount, Share


class Summary(FileRecord):
    """How a training ended. Fields with a default may be missing in runs of early versions.

    Parameters
    ----------
    status : str
        Why the training ended.
    time_limit : bool
        Whether it is ``interrupted`` because the time of ``--max-time`` was over.
    epochs : int
        Number of complete epochs.
    best_epoch, best_val_accuracy, best_val_loss : int, float, float, optional
        Best epoch, and its validation metrics if there are validation examples.
    final_train_loss, final_train_accuracy : float, optional
        Training metrics of the last complete epoch.
    dataset : DatasetRecord
        Dataset of the training.
    seed, parameters, threads : int
        Random seed, number of trained parameters, and threads per step.
    versions, blas : dict
        Versions of the software, and the BLAS, on which the exact bits of the result depend.
    seconds : float
        Wall time of the training.
    planned_epochs : int, optional
        Configured number of epochs.
    network : str
        Layers of the network in words, such as "100 sigmoid, 10 softmax".
    run_dir : str
        Run directory at the time of the training; it may have moved since.
    divergence : Divergence, optional
        Where the training diverged.
    diagnoses : list of Diagnosis
        Why the network does not learn.
    """

    status: Literal["finished", "stopped_early", "interrupted", "diverged"]
    time_limit: bool = False
    epochs: Count
    best_epoch: Count | None
    best_val_accuracy: Share | None
    best_val_loss: Number | None
    final_train_loss: Number | None = None
    final_train_accuracy: Share | None = None
    dataset: DatasetRecord
    seed: Count | None = None
    parameters: Count | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    blas: dict[str, str | int | None] = Field(default_factory=dict)
    threads: Count | None = None
    seconds: Number
    planned_epochs: Count | None = None
    network: str = ""
    run_dir: str = ""
    divergence: Divergence | None = None
    diagnoses: list[Diagnosis] = Field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-compatible values; ``divergence`` and ``time_limit`` only if they apply."""
        return self.model_dump(
            exclude={name for name in ("divergence", "time_limit") if not getattr(self, name)}
        )


class EvaluationRecord(FileRecord):
    """Result on the test set, ``evaluation.json``: what ``nnctl eval`` measured last.

    Parameters
    ----------
    epoch : int
        Epoch of the evaluated network, the best one.
    accuracy, loss : float
        Fraction of correct predictions, and mean loss.
    n : int
        Number of test images.
    """

    epoch: Count
    accuracy: Share
    loss: Number
    n: Count


class InitRecord(FileRecord):
    """Where the initial weights of a run come from, ``init.json``.

    Parameters
    ----------
    run : str
        Directory of the other run.
    epoch : int
        Its best epoch, whose network was used.
    sha256 : str
        SHA-256 of its ``best.npz``.
    layers : list of int
        Layers that begin with its weights, from 1.
    """

    run: str
    epoch: Count
    sha256: str
    layers: list[PositiveCount]


def summarize_layers(config: Config) -> str:
    """Return the layers of a configuration in words, such as "100 sigmoid, 10 softmax"."""
    return ", ".join(f"{layer.units} {layer.function}" for layer in config.network.layers)
