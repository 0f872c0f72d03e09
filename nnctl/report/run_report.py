"""Data of a run for its report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from nnctl.analysis.evaluation import (
    Evaluation,
    class_names,
    evaluate,
    gives_probabilities,
)
from nnctl.analysis.inspection import Inspection, inspect_run, trained_network
from nnctl.config import Config, to_mapping
from nnctl.data.dataset import image_side
from nnctl.errors import NnctlError
from nnctl.nn.events import EpochMetrics
from nnctl.nn.examples import scaled
from nnctl.nn.metrics import CalibrationBin, calibration
from nnctl.nn.network import Network
from nnctl.nn.types import Array
from nnctl.report.charts import Line
from nnctl.runs.differences import flatten
from nnctl.runs.resolve import Notify
from nnctl.runs.run import Run
from nnctl.runs.summary import Summary
from nnctl.text import enumeration

MEASURED_IMAGES = 1000
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
    summary : Summary, optional
        Its summary; None during training.
    history : list of EpochMetrics
        Metrics of the completed epochs.
    step_losses : dict of int to float
        Losses by step, if they were recorded.
    inspection : Inspection
        Its layers and their diagnoses.
    network : Network, optional
        Network of the best epoch, with batch normalization made a part of its weights; None before
        the first epoch is complete.
    evaluation : Evaluation, optional
        Evaluation of the network on the test set; None if either is not available.
    evaluation_error : str
        Why the evaluation is missing; empty if it exists.
    """

    run: Run
    config: Config
    summary: Summary | None
    history: list[EpochMetrics]
    step_losses: dict[int, float]
    inspection: Inspection
    network: Network | None
    evaluation: Evaluation | None
    evaluation_error: str

    @classmethod
    def of(cls, run: Run, notify: Notify) -> RunReport:
        """Read a run and evaluate its network on the test set, if both are available.

        Raises
        ------
        NnctlError
            The configuration or the metrics cannot be read.
        """
        network = evaluation = None
        evaluation_error = ""
        try:
            evaluation = evaluate(run, notify=notify)
            network = evaluation.network  # a running training may have saved another one by now
        except NnctlError as error:
            evaluation_error = error.message
            with contextlib.suppress(NnctlError):
                network = run.network()
        return cls(
            run=run,
            config=run.config,
            summary=run.summary,
            history=run.history,
            step_losses=run.step_losses,
            inspection=inspect_run(run, trained_network(run)),
            # The page needs only weights and biases to compute the activations and show the units.
            network=network and network.folded(),
            evaluation=evaluation,
            evaluation_error=evaluation_error,
        )

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.run.directory.resolve().name

    def line(
        self,
        name: str,
        metric: Callable[[EpochMetrics], float | None],
        color: int = 0,
        *,
        thin: bool = False,
    ) -> Line:
        """Return the line of a metric by epoch."""
        epochs = [epoch.epoch for epoch in self.history]
        return Line(name, epochs, [metric(epoch) for epoch in self.history], color, thin)

    @property
    def best(self) -> EpochMetrics | None:
        """Metrics of the epoch with the best validation accuracy; None without validation."""
        measured = [
            (epoch.val_accuracy, -epoch.val_loss, -epoch.epoch, epoch)
            for epoch in self.history
            if epoch.val_accuracy is not None and epoch.val_loss is not None
        ]
        return max(measured)[-1] if measured else None

    @property
    def seconds(self) -> float:
        """Duration of the training, or of its epochs so far."""
        if self.summary:
            return self.summary.seconds
        return float(sum(epoch.seconds for epoch in self.history))

    @property
    def status(self) -> str:
        """How the training ended, in words."""
        return self.summary.status.replace("_", " ") if self.summary else "not ended"

    @property
    def trained_on(self) -> str:
        """Name of the dataset that the run was trained on."""
        return self.summary.dataset.name if self.summary else self.config.data.dataset

    @property
    def wrong(self) -> int:
        """Number of misclassified test images."""
        return int((~self.evaluation.predictions.right).sum()) if self.evaluation else 0

    @cached_property
    def classes(self) -> list[str]:
        """Class names."""
        if self.network is None:
            return []
        names = self.run.checkpoint("best").dataset.classes
        return class_names(self.config, self.network.sizes[-1], names)

    @property
    def noun(self) -> str:
        """What the images show, in a word."""
        return "digit" if any(name.isdecimal() for name in self.classes) else "image"

    @property
    def examples(self) -> str:
        """What the test set consists of, in a word."""
        return "images" if self.side else "examples"

    @property
    def environment(self) -> list[tuple[str, str]]:
        """Names and values of what the training used: seed, versions, dataset hashes."""
        rows: dict[str, object] = {"directory": self.name}
        if summary := self.summary:
            blas = [str(summary.blas.get(name, "")) for name in ("name", "version")]
            rows |= {
                "seed": summary.seed,
                "threads": summary.threads,
                **summary.versions,
                "BLAS": " ".join(blas).strip(),
                f"training {self.examples}": f"{summary.dataset.training:,}",
                f"validation {self.examples}": f"{summary.dataset.validation:,}",
                **{f"SHA-256 of {name}": text for name, text in summary.dataset.hashes.items()},
            }
        with contextlib.suppress(NnctlError):  # the report shows the rest of a damaged run
            if record := self.run.initial:
                layers = enumeration([*map(str, record.layers)])
                rows["initial weights"] = f"layers {layers} of {Path(record.run).name}"
        return [(name, str(value)) for name, value in rows.items() if value not in (None, "")]

    def without_paths(self, text: str) -> str:
        """Replace the absolute paths of this run in a text by their last parts.

        A page is shown to others, whom the folders of its author do not concern.
        """
        directory = self.run.directory
        values = [*flatten(to_mapping(self.config)).values(), directory, directory.resolve()]
        if self.summary:
            values += [self.summary.run_dir, self.summary.dataset.name]
        paths = {str(value) for value in values if isinstance(value, str | Path)}
        for path in sorted(filter(_is_absolute, paths), key=len, reverse=True):
            text = text.replace(path, PureWindowsPath(path).name)
        return text

    @property
    def side(self) -> int | None:
        """Side of the input images in pixels; None if inputs are not images, such as for gates."""
        return image_side(self.network.sizes[0]) if self.network else None

    @property
    def gives_probabilities(self) -> bool:
        """Whether the outputs are probabilities."""
        return self.network is not None and gives_probabilities(self.network)

    @cached_property
    def calibration(self) -> list[CalibrationBin]:
        """Calibration bins; empty if the outputs are not probabilities."""
        if self.evaluation is None or not self.gives_probabilities:
            return []
        predictions = self.evaluation.predictions
        return calibration(predictions.confidences, predictions.right)

    def images(self) -> Array:
        """Return the first test images, 0 to 1, ``(n, pixels)``; n is 0 without an evaluation."""
        if self.network is None or self.evaluation is None:
            return np.empty((0, 0), np.float32)
        return scaled(self.evaluation.predictions.images[:MEASURED_IMAGES], self.network.dtype)


def _is_absolute(path: str) -> bool:
    """Return whether a path is absolute on any system: a run may have been moved."""
    return PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()
