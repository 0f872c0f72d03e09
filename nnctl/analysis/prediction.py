"""Classifies unlabeled images with a trained network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnctl.analysis.evaluation import class_names, class_outputs
from nnctl.data.dataset import SMALLEST_SIDE, image_side
from nnctl.data.image_files import (
    STDIN,
    SUFFIXES,
    ImageFile,
    is_idx,
    list_files,
    read_file,
    read_images,
    read_picture,
)
from nnctl.errors import DataError, UsageError, requiring
from nnctl.nn.network import Network
from nnctl.runs.inference import infer
from nnctl.runs.run import Run, Which

if TYPE_CHECKING:
    from nnctl.data.preprocess import Box

BUNDLED_RUN = Run(Path(__file__).parent / "photographs")
"""The run of ``configs/photographs.yaml`` that ships with nnctl; ``make network`` trains it."""

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
    box : Box, optional
        Position of the digit in the picture, in pixels; None for an image of an IDX file.
    """

    image: NDArray[np.uint8]
    outputs: list[float]
    predicted: int
    box: Box | None = None

    @property
    def confidence(self) -> float:
        """The output of the predicted class."""
        return self.outputs[self.predicted]


@dataclass(frozen=True)
class FilePrediction:
    """Result for a picture, or for an image of an IDX file: its digits or an error.

    Parameters
    ----------
    file : str
        File name as the user wrote it; ``-`` is standard input.
    index : int, optional
        Position in an IDX file, from 0; None for other files.
    label : int, optional
        True digit, which is the name of the picture's folder, as in ``7/photo.png``; None for other
        folders.
    classes : list of str
        Names of the classes, such as the digits; or "other" and the positive class.
    digits : list of Prediction
        Outputs for each digit, from left to right; empty if there is an error.
    threshold : float
        Smallest confidence of a prediction.
    error : DataError, optional
        Reason for a missing prediction.
    """

    file: str
    index: int | None
    classes: list[str]
    digits: list[Prediction] = field(default_factory=list)
    label: int | None = None
    threshold: float = 0.0
    error: DataError | None = None

    @property
    def name(self) -> str:
        """The file's name, with the position in an IDX file, as in ``images.gz[3]``."""
        number = "" if self.index is None else f"[{self.index}]"
        return f"{self.file}{number}"

    @property
    def predicted(self) -> str | None:
        """The predicted classes, joined as in ``42``; None if a digit is below the threshold."""
        if not self.digits or any(digit.confidence < self.threshold for digit in self.digits):
            return None
        names = [self.classes[digit.predicted] for digit in self.digits]
        return ("" if all(map(str.isdigit, names)) else " ").join(names)

    @property
    def is_correct(self) -> bool:
        """Whether the prediction is the label."""
        return self.predicted is not None and self.predicted == str(self.label)

    def best(self, digit: Prediction) -> list[tuple[str, float]]:
        """Return the three most likely classes and their outputs; the predicted class is first."""
        outputs, predicted = digit.outputs, digit.predicted
        order = sorted(range(len(outputs)), key=lambda i: (i != predicted, -outputs[i]))
        return [(self.classes[i], outputs[i]) for i in order[:3]]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-compatible values.

        ``digit`` and ``probabilities`` are null if the picture shows several digits. ``digit`` and
        ``number`` are null if a predicted class is not a digit, or is below the threshold.
        """
        predicted = self.predicted
        number = predicted if predicted is not None and predicted.isdigit() else None
        [single] = self.digits if len(self.digits) == 1 else [None]
        result: dict[str, Any] = {"file": self.file}
        if self.index is not None:
            result["index"] = self.index
        if self.label is not None:
            result["label"] = self.label
        if single is not None and number is None and predicted not in (None, "other"):
            result["class"] = predicted
        result |= {
            "digit": None if single is None or number is None else int(number),
            "probabilities": None if single is None else single.outputs,
            "error": None if self.error is None else self.error.message,
        }
        if self.index is None:
            result |= {
                "number": number,
                "digits": [self._digit_to_json(one) for one in self.digits],
            }
        return result

    def _digit_to_json(self, digit: Prediction) -> dict[str, Any]:
        name = self.classes[digit.predicted]
        return {
            "digit": int(name) if name.isdigit() else None,
            "probabilities": digit.outputs,
            "box": None if digit.box is None else digit.box._asdict(),
        }


@dataclass
class Score:
    """Number of correct predictions for the pictures with a label.

    Parameters
    ----------
    labeled : int
        Number of pictures with a label.
    correct : int
        Number of correct predictions.
    rejected : int
        Number of pictures without a prediction: below the threshold, or with an error.
    """

    labeled: int = 0
    correct: int = 0
    rejected: int = 0

    def add(self, prediction: FilePrediction) -> None:
        """Count a prediction, if it has a label."""
        if prediction.label is not None:
            self.labeled += 1
            self.correct += prediction.is_correct
            self.rejected += prediction.predicted is None

    @property
    def accuracy(self) -> float:
        """The fraction of the labeled pictures with a correct prediction."""
        return self.correct / self.labeled

    def to_json(self) -> dict[str, Any]:
        """Return JSON-compatible values."""
        return {"accuracy": self.accuracy, **asdict(self)}


def open_run(names: Sequence[str]) -> tuple[Run, Sequence[str]]:
    """Return the run and the images that arguments ``[RUN] IMAGE...`` name.

    The first argument is a run if it is a directory with a file ``config.yaml``. Otherwise, all
    arguments are images, for the network that ships with nnctl.

    Raises
    ------
    UsageError
        No image is given, or the first argument is neither a run nor an image.
    """
    first = Path(names[0])
    run = Run(first)
    if names[0] and run.config_path.is_file():
        if len(names) == 1:
            raise UsageError(
                f"{first} is a run directory; no image is given",
                hint=f"Add an image: nnctl predict {first} photo.png",
            )
        return run, names[1:]
    if first.is_dir() and not _has_images(names[0]):
        raise UsageError(
            f"{first} is neither a run directory nor a folder of images: it has no config.yaml, "
            "and no images in it or in folders named 0 to 9",
            hint="Name a run directory, an image or a folder of images.",
        )
    is_typing_error = len(names) > 1 and names[0] not in ("", STDIN) and not first.exists()
    if is_typing_error and first.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{first}: run directory not found")
    return BUNDLED_RUN, names


def _has_images(folder: str) -> bool:
    try:
        return bool(list_files(folder))
    except DataError:
        return False


def predict(
    run: Run, names: Sequence[str], checkpoint: Which = "best", threshold: float = 0.0
) -> Iterator[FilePrediction]:
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
    threshold : float
        Smallest confidence of a prediction.

    Raises
    ------
    DataError
        The checkpoint is missing or damaged.
    UsageError
        The network does not classify images, or Pillow or SciPy is not installed.
    """
    if names.count(STDIN) > 1:
        raise UsageError("standard input can be read only once", hint=f"Give {STDIN} once.")
    trained = run.load(checkpoint)
    network = trained.network
    pixels = network.sizes[0]
    classes = class_names(trained.config, network.sizes[-1], trained.dataset.classes)
    if pixels < SMALLEST_SIDE**2:
        raise UsageError(
            f"{run.directory} was trained on {trained.dataset.name}, not on images of digits",
            hint="Use a run that was trained on digits.",
        )

    def predict_file(file: ImageFile) -> Iterator[FilePrediction]:
        content = read_file(file.name)
        images, boxes = read_digits(content, pixels)
        if is_idx(content):
            for start in range(0, len(images), _BLOCK):
                outputs = _classify(network, images[start : start + _BLOCK])
                for i, prediction in enumerate(outputs, start=start):
                    yield FilePrediction(file.name, i, classes, [prediction], file.label, threshold)
            return
        digits = _classify(network, images, boxes)
        yield FilePrediction(file.name, None, classes, [*digits], file.label, threshold)

    for name in names:
        try:
            files = list_files(name)
        except DataError as error:
            yield FilePrediction(name, None, classes, error=error)
            continue
        for file in files:
            try:
                yield from predict_file(file)
            except DataError as error:
                yield FilePrediction(file.name, None, classes, label=file.label, error=error)


def _classify(
    network: Network, images: NDArray[np.uint8], boxes: Sequence[Box | None] = ()
) -> Iterator[Prediction]:
    """Yield the network's prediction for each image, shape (n, height, width)."""
    _, outputs, predicted = infer(network, images.reshape(len(images), -1))
    columns = class_outputs(outputs).tolist(), predicted.tolist(), boxes or [None] * len(images)
    return (Prediction(*row) for row in zip(images, *columns, strict=True))


def read_digits(content: bytes, pixels: int) -> tuple[NDArray[np.uint8], list[Box]]:
    """Return the images of the digits in a file, ``(n, height, width)``, as a network sees them.

    Parameters
    ----------
    content : bytes
        Content of a picture, or of an IDX file of images.
    pixels : int
        Number of inputs of the network.

    Returns
    -------
    images : array of uint8, shape (n, height, width)
        Digits of a picture, or the images of an IDX file unchanged.
    boxes : list of Box
        Positions of the digits in the picture; empty for an IDX file.

    Raises
    ------
    DataError
        The content cannot be read, or its images have another number of pixels.
    UsageError
        The network does not take square images, or Pillow or SciPy is not installed.
    """
    if is_idx(content):
        images = read_images(content)
        _, height, width = images.shape
        if height * width != pixels:
            raise DataError(
                f"its images have {height} x {width} pixels; this network takes {pixels}",
                hint="IDX files are not resized: use images of the training size.",
            )
        return images, []
    side = image_side(pixels)
    if side is None:
        raise UsageError(
            f"the network takes {pixels} pixels: not a square image",
            hint="Use IDX files with such images.",
        )
    with requiring("Pillow and SciPy", "reading images", extra="plot"):
        from nnctl.data.preprocess import Box, find_digits

        picture = read_picture(content)
    digits = find_digits(picture.pixels, side)
    boxes = [Box(*(round(edge * picture.reduction) for edge in digit.box)) for digit in digits]
    return np.stack([digit.image for digit in digits]), boxes
