"""The parts of the page that tell of one run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nnctl.data.dataset import Digits
from nnctl.report.charts import Chart, Line, draw_histogram, draw_lines
from nnctl.report.pictures import Place, Sheet, diverging, strongest
from nnctl.report.portrait import PROBED, Portrait
from nnctl.runs.evaluation import Answers, measure_corrupted

WORST = 24
"""Mistakes that are shown."""
OF_A_CELL = 20
"""Digits of a cell of the confusion matrix that are shown, of right ones half as many."""
UNITS = 48
"""Units of the first layer whose weights are shown."""
LAYERS = 8
"""Layers whose activations are shown."""

_HEALTH = (
    ("std", "Spread of the activations: standard deviation", False),
    ("error", "Length of the errors that come back", True),
    ("update_ratio", "Length of a step, as a share of the weights", True),
)
_SHARES = (("dead", "Dead units"), ("saturated", "Saturated outputs"))


@dataclass(frozen=True)
class Specimen:
    """A digit on the page.

    Parameters
    ----------
    place : pair of int
        Its column and row on the sheet of digits.
    caption : str
        What is written below it.
    """

    place: Place
    caption: str


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix.

    Parameters
    ----------
    title : str
        What it counts, in words.
    count : int
        The images.
    right : bool
        Whether they are told right.
    heat : float
        From 0 to 1: of right ones, the share of the class; of others, that of the worst cell.
    specimens : list of Specimen
        Some of them, the worst first.
    """

    title: str
    count: int
    right: bool
    heat: float
    specimens: list[Specimen]


def draw_curves(portrait: Portrait) -> list[Chart]:
    """Return loss and accuracy by epoch, and the learning rate, if it changes."""

    def line(name: str, key: str, colour: int) -> Line:
        return Line(name, portrait.epochs, portrait.series(key), colour)

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
    """Return how the layers were after each epoch, as far as that was measured."""
    count = len(portrait.config.network.layers)

    def lines(key: str) -> list[Line]:
        return [
            Line(f"layer {i + 1}", portrait.epochs, portrait.health(i, key), i)
            for i in range(count)
        ]

    charts = [draw_lines(title, lines(key), log=log) for key, title, log in _HEALTH]
    for key, title in _SHARES:
        drawn = lines(key)
        if any(share for line in drawn for share in line.y):
            charts.append(draw_lines(title, drawn, percent=True))
    return [chart for chart in charts if chart]


def draw_faults(portrait: Portrait) -> Chart | None:
    """Return the accuracy on test images with faults, by their strength."""
    if portrait.network is None or portrait.evaluation is None or portrait.side is None:
        return None
    answers = portrait.evaluation.answers
    some = Digits(answers.images[:PROBED], answers.labels[:PROBED])
    sound = float(answers.right[:PROBED].mean())
    lines = [
        Line(row.corruption, range(len(row.amounts) + 1), [sound, *row.accuracies], i)
        for i, row in enumerate(measure_corrupted(portrait.network, some))
    ]
    return draw_lines("Accuracy by the strength of a fault", lines, x="strength", percent=True)


def draw_distributions(portrait: Portrait) -> list[Chart]:
    """Return how the outputs of each layer are distributed over some test images."""
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
        if zeros > 0.01:  # one tall bar would hide all others
            title += f": {100 * zeros:.0f} % are 0; the others"
        charts.append(draw_histogram(title, shown) if shown.size else None)
    return [chart for chart in charts if chart]


def confusion_cells(portrait: Portrait, sheet: Sheet | None) -> list[list[Cell]]:
    """Return the confusion matrix, true classes by answers, with some digits of each cell.

    Parameters
    ----------
    portrait : Portrait
        The run.
    sheet : Sheet, optional
        To which digits are added, if its inputs are pictures.
    """
    evaluation = portrait.evaluation
    if evaluation is None:
        return []
    answers, classes, counts = evaluation.answers, evaluation.classes, evaluation.confusion
    wrong = counts - np.diag(counts.diagonal())

    def cell(true: int, decided: int) -> Cell:
        right = true == decided
        count = int(counts[true, decided])
        whole = counts[true].sum() if right else wrong.max()
        inside = np.flatnonzero((answers.labels == true) & (answers.decided == decided))
        worst = inside[np.argsort(-answers.losses[inside], kind="stable")]
        most = OF_A_CELL // 2 if right else OF_A_CELL
        return Cell(
            title=f"{classes[true]} {'told right' if right else f'taken for {classes[decided]}'}",
            count=count,
            right=right,
            heat=count / int(whole) if count else 0.0,
            specimens=_specimens(answers, worst[:most], sheet) if sheet else [],
        )

    numbers = range(len(classes))
    return [[cell(true, decided) for decided in numbers] for true in numbers]


def worst_mistakes(portrait: Portrait, sheet: Sheet | None) -> list[Specimen]:
    """Return the mistakes with the highest loss, the worst first."""
    if portrait.evaluation is None or sheet is None:
        return []
    answers, classes = portrait.evaluation.answers, portrait.evaluation.classes
    worst = answers.worst[:WORST]
    pairs = zip(answers.labels[worst], answers.decided[worst], strict=True)
    told = [f"{classes[label]} taken for {classes[decided]}" for label, decided in pairs]
    specimens = _specimens(answers, worst, sheet)
    return [
        replace(one, caption=f"{what}, {one.caption}")
        for what, one in zip(told, specimens, strict=True)
    ]


def _specimens(answers: Answers, indices: NDArray[np.integer], sheet: Sheet) -> list[Specimen]:
    """Add images to a sheet; the captions say how sure the network is."""
    shape = (sheet.side, sheet.side)
    return [
        Specimen(
            sheet.add(answers.images[index].reshape(shape)),
            f"{100 * answers.confidences[index]:.0f} %",
        )
        for index in indices
    ]


def draw_weights(portrait: Portrait) -> Sheet | None:
    """Return the weights of the first layer's units, as images of their inputs."""
    if portrait.network is None or portrait.side is None:
        return None
    weights = portrait.network.parameters.weights[0]
    sheet = Sheet(portrait.side)
    for unit in strongest(weights, UNITS):
        sheet.add(diverging(weights[:, unit].reshape(portrait.side, portrait.side)))
    return sheet
