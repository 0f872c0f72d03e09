"""Sections of the page about a single run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nnctl.data.dataset import Digits
from nnctl.report.charts import Chart, Line, draw_histogram, draw_lines
from nnctl.report.run_report import PROBED, Portrait
from nnctl.report.sprites import Place, Sheet, diverging, strongest
from nnctl.runs.evaluation import Answers, measure_corrupted

WORST = 24
"""Number of worst mistakes to show."""
IMAGES_PER_CELL = 20
"""Number of images to show per cell of the confusion matrix; half as many on its diagonal."""
UNITS = 48
"""Number of units of the first layer whose weights are shown."""
LAYERS = 8
"""Number of layers whose activations are shown."""

_HEALTH = (
    ("std", "Standard deviation of the activations", False),
    ("error", "Norm of the backpropagated errors", True),
    ("update_ratio", "Norm of a step, relative to the weights", True),
)
_SHARES = (("dead", "Dead units"), ("saturated", "Saturated outputs"))


@dataclass(frozen=True)
class Specimen:
    """An image of a digit on the page.

    Parameters
    ----------
    place : pair of int
        Column and row on the sprite sheet.
    caption : str
        Caption.
    """

    place: Place
    caption: str


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix.

    Parameters
    ----------
    title : str
        What the cell counts, in words.
    count : int
        Number of images.
    right : bool
        Whether they are classified correctly.
    heat : float
        Color intensity from 0 to 1: on the diagonal, the share of the class; elsewhere, the count
        relative to that of the worst cell.
    specimens : list of Specimen
        Some of the images, the worst first.
    """

    title: str
    count: int
    right: bool
    heat: float
    specimens: list[Specimen]


def draw_curves(portrait: Portrait) -> list[Chart]:
    """Return charts of loss and accuracy by epoch, and of the learning rate if it changes."""

    def line(name: str, key: str, color: int) -> Line:
        return Line(name, portrait.epochs, portrait.series(key), color)

    charts = [
        draw_lines("Loss", [line("training", "train_loss", 0), line("validation", "val_loss", 1)]),
        draw_lines(
            "Accuracy",
            [line("training", "train_accuracy", 0), line("validation", "val_accuracy", 1)],
            percent=True,
        ),
    ]
    if len(set(portrait.series("learning_rate"))) > 1:
        charts.append(draw_lines("Learning rate", [line("", "learning_rate", 2)]))
    return [chart for chart in charts if chart]


def draw_health(portrait: Portrait) -> list[Chart]:
    """Return charts of the measured health of the layers after each epoch."""
    count = len(portrait.config.network.layers)

    def lines(key: str) -> list[Line]:
        return [
            Line(f"layer {i + 1}", portrait.epochs, portrait.health(i, key), i)
            for i in range(count)
        ]

    charts = [draw_lines(title, lines(key), log=log) for key, title, log in _HEALTH]
    for key, title in _SHARES:
        shares = lines(key)
        if any(share for line in shares for share in line.y):
            charts.append(draw_lines(title, shares, percent=True))
    return [chart for chart in charts if chart]


def draw_corruptions(portrait: Portrait) -> Chart | None:
    """Return a chart of the accuracy on corrupted test images, by strength of corruption."""
    if portrait.network is None or portrait.evaluation is None or portrait.side is None:
        return None
    answers = portrait.evaluation.answers
    digits = Digits(answers.images[:PROBED], answers.labels[:PROBED])
    clean = float(answers.right[:PROBED].mean())
    lines = [
        Line(row.corruption, range(len(row.amounts) + 1), [clean, *row.accuracies], i)
        for i, row in enumerate(measure_corrupted(portrait.network, digits))
    ]
    return draw_lines("Accuracy by strength of corruption", lines, x="strength", percent=True)


def draw_distributions(portrait: Portrait) -> list[Chart]:
    """Return histograms of each layer's outputs for some test images."""
    images = portrait.images()
    if portrait.network is None or not len(images):
        return []
    charts = []
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = portrait.network.activations(images)
    for number, (layer, values) in enumerate(
        zip(portrait.network.layers, outputs[:LAYERS], strict=False), start=1
    ):
        shown = values[values != 0]
        zeros = 1 - shown.size / values.size
        title = f"Layer {number}, {layer.activation.name}"
        if zeros > 0.01:  # otherwise one tall bar would hide all others
            title += f": nonzero outputs ({100 * zeros:.0f} % are 0)"
        charts.append(draw_histogram(title, shown) if shown.size else None)
    return [chart for chart in charts if chart]


def confusion_cells(portrait: Portrait, sheet: Sheet | None) -> list[list[Cell]]:
    """Return the confusion matrix: a row per true class, a column per predicted class.

    Parameters
    ----------
    portrait : Portrait
        The run.
    sheet : Sheet, optional
        Sprite sheet to which example images are added; None if inputs are not images.
    """
    evaluation = portrait.evaluation
    if evaluation is None:
        return []
    answers, classes, counts = evaluation.answers, evaluation.classes, evaluation.confusion
    wrong = counts - np.diag(counts.diagonal())

    def cell(true: int, decided: int) -> Cell:
        right = true == decided
        count = int(counts[true, decided])
        largest = counts[true].sum() if right else wrong.max()
        inside = np.flatnonzero((answers.labels == true) & (answers.decided == decided))
        worst = inside[np.argsort(-answers.losses[inside], kind="stable")]
        most = IMAGES_PER_CELL // 2 if right else IMAGES_PER_CELL
        answer = "correctly" if right else f"as {classes[decided]}"
        return Cell(
            title=f"{classes[true]} classified {answer}",
            count=count,
            right=right,
            heat=count / int(largest) if count else 0.0,
            specimens=_specimens(answers, worst[:most], sheet) if sheet else [],
        )

    numbers = range(len(classes))
    return [[cell(true, decided) for decided in numbers] for true in numbers]


def worst_mistakes(portrait: Portrait, sheet: Sheet | None) -> list[Specimen]:
    """Return the misclassified images with the highest loss, the worst first."""
    if portrait.evaluation is None or sheet is None:
        return []
    answers, classes = portrait.evaluation.answers, portrait.evaluation.classes
    worst = answers.worst[:WORST]
    pairs = zip(answers.labels[worst], answers.decided[worst], strict=True)
    mistakes = [f"{classes[label]} classified as {classes[decided]}" for label, decided in pairs]
    specimens = _specimens(answers, worst, sheet)
    return [
        replace(specimen, caption=f"{mistake}, {specimen.caption}")
        for mistake, specimen in zip(mistakes, specimens, strict=True)
    ]


def _specimens(answers: Answers, indices: NDArray[np.integer], sheet: Sheet) -> list[Specimen]:
    """Add images to a sheet; the captions are the confidences of the network."""
    shape = (sheet.side, sheet.side)
    return [
        Specimen(
            sheet.add(answers.images[index].reshape(shape)),
            f"{100 * answers.confidences[index]:.0f} %",
        )
        for index in indices
    ]


def draw_weights(portrait: Portrait) -> Sheet | None:
    """Return the incoming weights of the first layer's units as images."""
    if portrait.network is None or portrait.side is None:
        return None
    weights = portrait.network.parameters.weights[0]
    sheet = Sheet(portrait.side)
    for unit in strongest(weights, UNITS):
        sheet.add(diverging(weights[:, unit].reshape(portrait.side, portrait.side)))
    return sheet
