"""What a trained network says of pictures that nobody has labelled."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.data.images import STDIN, is_idx, list_files, read_file, read_images, read_picture
from nnctl.data.pictures import normalise
from nnctl.errors import DataError, UsageError
from nnctl.nn.metrics import predict as logits_of
from nnctl.runs.directory import Run, Which, config_of, network_of
from nnctl.runs.evaluation import SMALLEST_SIDE, class_names

_BLOCK = 1000  # images of an IDX file at a time


@dataclass(frozen=True)
class Answer:
    """What a network says of an image.

    Parameters
    ----------
    image : array of uint8, shape (height, width)
        What it saw.
    outputs : list of float
        Of each class; under softmax their probabilities.
    answer : int
        The class that it decided for.
    """

    image: NDArray[np.uint8]
    outputs: list[float]
    answer: int


@dataclass(frozen=True)
class Prediction:
    """An image of a file, with what came of it.

    Parameters
    ----------
    file : str
        As the user named it; ``-`` is standard input.
    index : int, optional
        Which image of an IDX file, from 0.
    classes : list of str
        What the classes are called: the digits; or other and the one that was asked for.
    answer : Answer, optional
        None where there is an error.
    error : DataError, optional
        Why there is no answer.
    """

    file: str
    index: int | None
    classes: list[str]
    answer: Answer | None = None
    error: DataError | None = None

    @property
    def name(self) -> str:
        """The file, and which image of it, in one line."""
        number = "" if self.index is None else f"[{self.index}]"
        return f"{self.file}{number}"

    @property
    def best(self) -> list[tuple[str, float]]:
        """The three classes with the largest outputs, with these; the answer first."""
        if self.answer is None:
            return []
        outputs, chosen = self.answer.outputs, self.answer.answer
        order = sorted(range(len(outputs)), key=lambda i: (i != chosen, -outputs[i]))
        return [(self.classes[i], outputs[i]) for i in order[:3]]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the digit is null where it is another than was asked for."""
        result: dict[str, Any] = {"file": self.file}
        if self.index is not None:
            result["index"] = self.index
        name = None if self.answer is None else self.classes[self.answer.answer]
        return result | {
            "digit": None if name in (None, "other") else int(str(name)),
            "probabilities": None if self.answer is None else self.answer.outputs,
            "error": None if self.error is None else self.error.message,
        }


def predict(run: Run, names: Sequence[str], checkpoint: Which = "best") -> Iterator[Prediction]:
    """Yield what the network of a run says of each picture; what fails is told, and others go on.

    Parameters
    ----------
    run : Run
        With the checkpoint.
    names : sequence of str
        Pictures, IDX files, folders of pictures, or ``-``.
    checkpoint : str
        The best epoch's, or the last.

    Raises
    ------
    DataError
        The checkpoint cannot be had.
    UsageError
        The network takes no pictures, or Pillow is not installed.
    """
    if names.count(STDIN) > 1:
        raise UsageError("standard input can be read only once", hint=f"Give {STDIN} once.")
    saved = run.checkpoint(checkpoint)
    path = run.checkpoint_path(checkpoint)
    network, config = network_of(saved, path), config_of(saved, path)
    pixels, classes = network.sizes[0], class_names(config, network)
    if pixels < SMALLEST_SIDE**2:
        raise UsageError(
            f"{run.directory} was trained on {saved.dataset['name']}, not on pictures of digits",
            hint="Name a run that was trained on digits.",
        )

    def answers(images: NDArray[np.uint8]) -> Iterator[Answer]:
        with np.errstate(over="ignore", invalid="ignore"):
            logits = logits_of(network, images.reshape(len(images), -1))
            outputs, decided = network.outputs(logits), network.decide(logits)
        if outputs.shape[1] == 1:  # of a single question: no and yes
            outputs = np.hstack([1 - outputs, outputs])
        rows = zip(images, outputs.tolist(), decided.tolist(), strict=True)
        return (Answer(*row) for row in rows)

    def of_file(name: str) -> Iterator[Prediction]:
        content = read_file(name)
        if is_idx(content):
            images = read_images(content)
            if math.prod(images.shape[1:]) != pixels:
                height, width = images.shape[1:]
                raise DataError(
                    f"its images have {height} x {width} pixels; this network takes {pixels}",
                    hint="IDX files are taken as they are: give one as the run was trained on.",
                )
            for begin in range(0, len(images), _BLOCK):
                for i, answer in enumerate(answers(images[begin : begin + _BLOCK]), start=begin):
                    yield Prediction(name, i, classes, answer)
            return
        side = math.isqrt(pixels)
        if side**2 != pixels:
            raise UsageError(
                f"the network of {run.directory} takes images of {pixels} pixels, no square",
                hint="Give IDX files of such images.",
            )
        image = normalise(read_picture(content), side)
        yield Prediction(name, None, classes, next(answers(image[None])))

    for given in names:
        try:
            files = list_files(given)
        except DataError as error:
            yield Prediction(given, None, classes, error=error)
            continue
        for name in files:
            try:
                yield from of_file(name)
            except DataError as error:
                yield Prediction(name, None, classes, error=error)
