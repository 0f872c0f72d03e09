"""Data of a run for its report."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.analysis.evaluation import (
    SMALLEST_SIDE,
    Evaluation,
    class_names,
    evaluate,
    says_probabilities,
)
from nnctl.analysis.inspection import Inspection, inspect_run, trained_network
from nnctl.config import Config
from nnctl.errors import NnctlError
from nnctl.nn.examples import scaled
from nnctl.nn.metrics import CalibrationBin, calibration
from nnctl.nn.network import Network
from nnctl.nn.types import Array
from nnctl.runs.resolve import Notify
from nnctl.runs.run import Run

PROBED = 1000
"""Number of test images whose activations are measured."""


@dataclass(frozen=True, eq=False)
class RunReport:
    """Data of a run that is complete or still in training.

    Parameters
    ----------
    run : Run
        The run.
    config : Config
        Its configuration.
    summary : dict
        Its summary; empty during training.
    rows : list of dict
        Metrics of the completed epochs.
    inspection : Inspection
        Its layers and their diagnoses.
    network : Network, optional
        Network of the best epoch; None before the first epoch is complete.
    evaluation : Evaluation, optional
        Evaluation of the network on the test set; None if either is not available.
    lacking : str
        Why the evaluation is missing; empty if it exists.
    """

    run: Run
    config: Config
    summary: dict[str, Any]
    rows: list[dict[str, Any]]
    inspection: Inspection
    network: Network | None
    evaluation: Evaluation | None
    lacking: str

    @classmethod
    def of(cls, run: Run, data_dir: Path | None, notify: Notify) -> RunReport:
        """Read a run and evaluate its network on the test set, if both are available.

        Raises
        ------
        NnctlError
            The configuration or the metrics cannot be read.
        """
        network = evaluation = None
        lacking = ""
        try:
            evaluation = evaluate(run, data_dir=data_dir, notify=notify)
            network = evaluation.network  # a running training may have saved another one by now
        except NnctlError as error:
            lacking = error.message
            with contextlib.suppress(NnctlError):
                network = run.network()
        return cls(
            run=run,
            config=run.config,
            summary=run.summary,
            rows=run.metrics,
            inspection=inspect_run(run, trained_network(run)),
            network=network,
            evaluation=evaluation,
            lacking=lacking,
        )

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.run.directory.resolve().name

    @property
    def epochs(self) -> list[int]:
        """Numbers of the completed epochs."""
        return [row["epoch"] for row in self.rows]

    def series(self, key: str) -> list[float | None]:
        """Return a metric for every epoch."""
        return [row.get(key) for row in self.rows]

    def health(self, layer: int, key: str) -> list[float | None]:
        """Return a health figure of a layer, counted from 0, for every epoch."""
        return [row["health"][layer].get(key) for row in self.rows]

    @property
    def best_row(self) -> dict[str, Any] | None:
        """Metrics of the epoch with the best validation accuracy; None without validation."""
        measured = [row for row in self.rows if row["val_accuracy"] is not None]
        return max(measured, key=lambda row: (row["val_accuracy"], -row["val_loss"]), default=None)

    @property
    def seconds(self) -> float:
        """Total duration of the epochs."""
        return float(sum(row["seconds"] for row in self.rows))

    @property
    def status(self) -> str:
        """How the training ended, in words."""
        return str(self.summary.get("status", "not ended")).replace("_", " ")

    @property
    def trained_on(self) -> str:
        """Name of the dataset that the run was trained on."""
        return str(self.summary.get("dataset", {}).get("name", self.config.data.dataset))

    @property
    def wrong(self) -> int:
        """Number of misclassified test images."""
        answers = self.evaluation.answers if self.evaluation else None
        return 0 if answers is None else int((~answers.right).sum())

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return class_names(self.config, self.network) if self.network else []

    @property
    def facts(self) -> list[tuple[str, str]]:
        """Names and values of what the training used: seed, versions, dataset hashes."""
        dataset = dict(self.summary.get("dataset", {}))
        hashes = dataset.pop("hashes", {})
        blas = self.summary.get("blas") or {}
        facts = {
            "directory": self.run.directory.resolve(),
            **{name: self.summary.get(name) for name in ("seed", "threads", "seconds")},
            **self.summary.get("versions", {}),
            "BLAS": " ".join(str(blas.get(name, "")) for name in ("name", "version")).strip(),
            "training images": dataset.get("training"),
            "validation images": dataset.get("validation"),
            **{f"SHA-256 of {name}": text for name, text in hashes.items()},
        }
        return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]

    @property
    def side(self) -> int | None:
        """Side of the input images in pixels; None if inputs are not images, such as for gates."""
        pixels = self.network.sizes[0] if self.network else 0
        side = math.isqrt(pixels)
        return side if side * side == pixels and side >= SMALLEST_SIDE else None

    @property
    def says_probabilities(self) -> bool:
        """Whether the outputs are probabilities."""
        return self.network is not None and says_probabilities(self.network)

    @cached_property
    def calibration(self) -> list[CalibrationBin]:
        """Calibration bins; empty if the outputs are not probabilities."""
        if self.evaluation is None or not self.says_probabilities:
            return []
        answers = self.evaluation.answers
        return calibration(answers.confidences, answers.right)

    def images(self) -> Array:
        """Return the first test images, 0 to 1, ``(n, pixels)``; n is 0 without an evaluation."""
        if self.network is None or self.evaluation is None:
            return np.empty((0, self.network.sizes[0] if self.network else 0), np.float32)
        return scaled(self.evaluation.answers.images[:PROBED], self.network.dtype)
