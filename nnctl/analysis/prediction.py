"""Classifies unlabeled images with a trained network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.analysis.evaluation import class_names
from nnctl.data.dataset import SMALLEST_SIDE, image_side
from nnctl.data.image_files import STDIN, is_idx, list_files, read_file, read_images, read_picture
from nnctl.data.preprocess import normalise
from nnctl.errors import DataError, UsageError
from nnctl.runs.inference import infer
from nnctl.runs.run import Run, Which

_BLOCK = 1000  # images of an IDX file classified at a time


@dataclass(frozen=True, eq=False)
class Prediction:
    """Output of a network for an image.

    Parameters
    ----------
    image : array of uint8, shape (height, width)
        Image as the network saw it.
    outputs : list of float
        Output of each class; with softmax its probability.
    predicted : int
        Predicted class.
    """

    image: NDArray[np.uint8]
    outputs: list[float]
    predicted: int


@dataclass(frozen=True)
class FilePrediction:
    """Result for an image of a file: a prediction or an error.

    Parameters
    ----------
    file : str
        File name as the user wrote it; ``-`` is standard input.
    index : int, optional
        Position in an IDX file, from 0; None for other files.
    classes : list of str
        Names of the classes: the digits; or "other" and the positive digit.
    prediction : Prediction, optional
        The network's output; None if there is an error.
    error : DataError, optional
        Reason for a missing prediction.
    """

    file: str
    index: int | None
    classes: list[str]
    prediction: Prediction | None = None
    error: DataError | None = None

    @property
    def name(self) -> str:
        """The file's name, with the position in an IDX file, as in ``images.gz[3]``."""
        number = "" if self.index is None else f"[{self.index}]"
        return f"{self.file}{number}"

    @property
    def best(self) -> list[tuple[str, float]]:
        """The three most likely classes and their outputs; the predicted one is first."""
        if self.prediction is None:
            return []
        outputs, chosen = self.prediction.outputs, self.prediction.predicted
        order = sorted(range(len(outputs)), key=lambda i: (i != chosen, -outputs[i]))
        return [(self.classes[i], outputs[i]) for i in order[:3]]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the digit is null if the answer is "other" or missing."""
        result: dict[str, Any] = {"file": self.file}
        if self.index is not None:
            result["index"] = self.index
        name = None if self.prediction is None else self.classes[self.prediction.predicted]
        return result | {
            "digit": None if name in (None, "other") else int(str(name)),
            "probabilities": None if self.prediction is None else self.prediction.outputs,
            "error": None if self.error is None else self.error.message,
        }


def predict(run: Run, names: Sequence[str], checkpoint: Which = "best") -> Iterator[FilePrediction]:
    """Classify image files with the network of a run, and yield a prediction for each image.

    A file that cannot be read yields a prediction with an error, and the next files follow.

    Parameters
    ----------
    run : Run
        Run with the checkpoint.
    names : sequence of str
        Names of image files, IDX files or folders of images; ``-`` is standard input.
    checkpoint : str
        ``best`` for the best epoch, or ``last``.

    Raises
    ------
    DataError
        The checkpoint is missing or damaged.
    UsageError
        The network does not classify images, or Pillow is not installed.
    """
    if names.count(STDIN) > 1:
        raise UsageError("standard input can be read only once", hint=f"Give {STDIN} once.")
    trained = run.load(checkpoint)
    network = trained.network
    pixels, classes = network.sizes[0], class_names(trained.config, network)
    if pixels < SMALLEST_SIDE**2:
        raise UsageError(
            f"{run.directory} was trained on {trained.dataset.name}, not on images of digits",
            hint="Use a run that was trained on digits.",
        )

    def predict_images(images: NDArray[np.uint8]) -> Iterator[Prediction]:
        _, outputs, predicted = infer(network, images.reshape(len(images), -1))
        if outputs.shape[1] == 1:  # a single sigmoid unit gives the second of two classes
            outputs = np.hstack([1 - outputs, outputs])
        rows = zip(images, outputs.tolist(), predicted.tolist(), strict=True)
        return (Prediction(*row) for row in rows)

    def of_file(name: str) -> Iterator[FilePrediction]:
        content = read_file(name)
        if is_idx(content):
            images = read_images(content)
            if math.prod(images.shape[1:]) != pixels:
                height, width = images.shape[1:]
                raise DataError(
                    f"its images have {height} x {width} pixels; this network takes {pixels}",
                    hint="IDX files are not resized: use images of the training size.",
                )
            for begin in range(0, len(images), _BLOCK):
                for i, one in enumerate(
                    predict_images(images[begin : begin + _BLOCK]), start=begin
                ):
                    yield FilePrediction(name, i, classes, one)
            return
        side = image_side(pixels)
        if side is None:
            raise UsageError(
                f"the network of {run.directory} takes {pixels} pixels: not a square image",
                hint="Use IDX files with such images.",
            )
        image = normalise(read_picture(content), side)
        yield FilePrediction(name, None, classes, next(predict_images(image[None])))

    for name in names:
        try:
            files = list_files(name)
        except DataError as error:
            yield FilePrediction(name, None, classes, error=error)
            continue
        for file in files:
            try:
                yield from of_file(file)
            except DataError as error:
                yield FilePrediction(file, None, classes, error=error)
