"""Sections of the page about a single run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nnctl.analysis.evaluation import Predictions, measure_corrupted
from nnctl.nn.events import Monitored
from nnctl.nn.examples import Examples
from nnctl.nn.health import LayerHealth
from nnctl.report import findings
from nnctl.report.charts import Chart, Line, draw_histogram, draw_lines, draw_panels
from nnctl.report.run_report import MEASURED_IMAGES, RunReport
from nnctl.report.sprites import Position, SpriteSheet, diverging, largest_norm
from nnctl.text import percent

SAMPLES = 200
"""Number of test images, right or wrong, among which the page looks for a unit's strongest ones."""
WORST = 24
"""Number of worst mistakes to show."""
IMAGES_PER_CELL = 20
"""Number of images to show per cell of the confusion matrix; half as many on its diagonal."""
UNITS = 48
"""Number of units of the first layer whose weights are shown."""
LAYERS = 8
"""Number of layers whose activations are shown."""
PANELS = 10
"""Number of classes whose accuracy by epoch is shown."""

_Figure = Callable[[LayerHealth], float]
_SHARES: tuple[tuple[_Figure, str], ...] = (
    (lambda layer: layer.dead, "Dead units"),
    (lambda layer: layer.saturated, "Saturated outputs"),
)


@dataclass(frozen=True)
class ExampleImage:
    """An image of a digit on the page.

    Parameters
    ----------
    position : pair of int
        Column and row on the sprite sheet.
    caption : str
        Caption.
    title : str
        What the image shows, in words.
    """

    position: Position
    caption: str
    title: str = ""


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
    examples : list of ExampleImage
        Some of the images, the worst first.
    """

    title: str
    count: int
    right: bool
    heat: float
    examples: list[ExampleImage]


def draw_curves(run_report: RunReport) -> list[Chart]:
    """Return charts of loss and accuracy by epoch, and of the learning rate if it changes."""
    line = run_report.line

    def monitored(name: str, figure: Callable[[Monitored], float | None], color: int) -> Line:
        return line(name, lambda epoch: figure(epoch.monitor) if epoch.monitor else None, color)

    losses = [
        line("training", lambda epoch: epoch.train_loss, 0),
        line("validation", lambda epoch: epoch.val_loss, 1),
        monitored("test", lambda figures: figures.test_loss, 2),
    ]
    accuracies = [
        line("training", lambda epoch: epoch.train_accuracy, 0),
        line("validation", lambda epoch: epoch.val_accuracy, 1),
        monitored("test", lambda figures: figures.test_accuracy, 2),
        monitored("training, after the epoch", lambda figures: figures.train_accuracy, 3),
    ]
    cost = monitored("", lambda figures: figures.cost, 0)
    steps = run_report.step_losses
    best = run_report.best
    marked = best.epoch if best and len(run_report.history) > 1 else None
    finding = findings.about_curves(run_report.history, best)
    charts = [
        draw_lines("Loss", losses, finding=findings.about_losses(run_report.history), best=marked),
        draw_lines("Accuracy", accuracies, percent=True, finding=finding, best=marked),
        draw_lines("Cost with its regularization term", [cost]),
        draw_lines("Loss by step", [Line("", [*steps], [*steps.values()], 0)], x="step"),
        _draw_classes(run_report, marked),
    ]
    rates = line("", lambda epoch: epoch.learning_rate, 2)
    if len(set(rates.y)) > 1:
        charts.append(draw_lines("Learning rate", [rates]))
    return [chart for chart in charts if chart]


def _draw_classes(run_report: RunReport, best: int | None) -> Chart | None:
    """Return the validation accuracy of each class by epoch, if it was recorded."""
    rows = [epoch.val_class_accuracies or [] for epoch in run_report.history]
    names = run_report.classes
    if len(names) < 2 or not rows or not all(len(row) == len(names) for row in rows):
        return None
    epochs = [epoch.epoch for epoch in run_report.history]
    lines = [Line(name, epochs, [row[i] for row in rows], 0) for i, name in enumerate(names)]
    hardest = sorted(range(len(names)), key=lambda i: (rows[-1][i] is None, rows[-1][i] or 0.0))
    return draw_panels(
        "Validation accuracy of each class"
        if len(names) <= PANELS
        else f"Validation accuracy of the {PANELS} hardest classes",
        [lines[i] for i in sorted(hardest[:PANELS])],
        finding=findings.about_classes(names, rows[-1]),
        best=best,
    )


def draw_health(run_report: RunReport) -> list[Chart]:
    """Return charts of the measured health of the layers after each epoch."""

    def line(i: int, figure: _Figure) -> Line:
        return run_report.line(
            f"layer {i + 1}", lambda epoch: figure(epoch.health[i]) if epoch.health else None, i
        )

    def lines(figure: _Figure) -> list[Line]:
        return [line(i, figure) for i in range(len(run_report.config.network.layers))]

    measured = [epoch.health for epoch in run_report.history if epoch.health]
    last = measured[-1] if measured else []
    charts = [
        draw_lines("Standard deviation of the activations", lines(lambda layer: layer.std)),
        draw_lines(
            "Norm of the backpropagated errors",
            lines(lambda layer: layer.error),
            log=True,
            finding=findings.about_errors(last),
        ),
        draw_lines(
            "Norm of a step, relative to the weights",
            lines(lambda layer: layer.update_ratio),
            log=True,
            finding=findings.about_steps(last),
            guide=(findings.USUAL_STEP, f"dotted: usual, {findings.USUAL_STEP:g}"),
        ),
    ]
    for figure, title in _SHARES:
        shares = lines(figure)
        if any(share for line in shares for share in line.y):
            charts.append(draw_lines(title, shares, percent=True))
    return [chart for chart in charts if chart]


def draw_corruptions(run_report: RunReport) -> Chart | None:
    """Return a chart of the accuracy on corrupted test images, by strength of corruption."""
    if run_report.network is None or run_report.evaluation is None or run_report.side is None:
        return None
    predictions = run_report.evaluation.predictions
    examples = Examples(predictions.images[:MEASURED_IMAGES], predictions.labels[:MEASURED_IMAGES])
    clean = float(predictions.right[:MEASURED_IMAGES].mean())
    rows = measure_corrupted(run_report.network, examples, lambda _: None)
    lines = [
        Line(row.corruption, range(len(row.amounts) + 1), [clean, *row.accuracies], i)
        for i, row in enumerate(rows)
    ]
    return draw_lines(
        "Accuracy by strength of corruption",
        lines,
        x="strength",
        percent=True,
        finding=findings.about_corruptions(rows),
    )


def draw_distributions(run_report: RunReport) -> list[Chart]:
    """Return histograms of each layer's outputs for some test images."""
    images = run_report.images()
    if run_report.network is None or not len(images):
        return []
    charts = []
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = run_report.network.activations(images)
    for number, (layer, values) in enumerate(
        zip(run_report.network.layers, outputs[:LAYERS], strict=False), start=1
    ):
        shown = values[values != 0]
        zeros = 1 - shown.size / values.size
        title, finding = f"Layer {number}, {layer.activation.name}", ""
        if zeros > 0.01:  # otherwise one tall bar would hide all others
            title, finding = f"{title}: nonzero outputs", f"{percent(zeros, 1)} are 0"
        charts.append(draw_histogram(title, shown, finding=finding) if shown.size else None)
    return [chart for chart in charts if chart]


def confusion_cells(run_report: RunReport, sheet: SpriteSheet | None) -> list[list[Cell]]:
    """Return the confusion matrix: a row per true class, a column per predicted class.

    Parameters
    ----------
    run_report : RunReport
        The run.
    sheet : SpriteSheet, optional
        Sprite sheet to which example images are added; None if inputs are not images.
    """
    evaluation = run_report.evaluation
    if evaluation is None:
        return []
    predictions, classes, counts = evaluation.predictions, evaluation.classes, evaluation.confusion
    wrong = counts - np.diag(counts.diagonal())

    def cell(true: int, predicted: int) -> Cell:
        right = true == predicted
        count = int(counts[true, predicted])
        largest = counts[true].sum() if right else wrong.max()
        inside = np.flatnonzero((predictions.labels == true) & (predictions.predicted == predicted))
        worst = inside[np.argsort(-predictions.losses[inside], kind="stable")]
        most = IMAGES_PER_CELL // 2 if right else IMAGES_PER_CELL
        images = "image" if count == 1 else "images"
        answer = f"true {classes[true]}, predicted {classes[predicted]}"
        return Cell(
            title=f"{answer}: {count:,} {images}",
            count=count,
            right=right,
            heat=count / int(largest) if count else 0.0,
            examples=[
                replace(image, title=f"{answer}, {image.caption}")
                for image in (_example_images(predictions, worst[:most], sheet) if sheet else ())
            ],
        )

    numbers = range(len(classes))
    return [[cell(true, predicted) for predicted in numbers] for true in numbers]


def samples(run_report: RunReport, sheet: SpriteSheet | None) -> list[ExampleImage]:
    """Return the first test images, captioned with their true classes."""
    if run_report.evaluation is None or sheet is None:
        return []
    predictions, classes = run_report.evaluation.predictions, run_report.evaluation.classes
    first = np.arange(min(SAMPLES, len(predictions.labels)))
    images = _example_images(predictions, first, sheet)
    return [
        replace(image, caption=classes[label])
        for image, label in zip(images, predictions.labels, strict=False)
    ]


def first_of_each_class(images: Sequence[ExampleImage]) -> list[ExampleImage]:
    """Return the first image with each caption, in the order of the captions."""
    first = {image.caption: image for image in reversed(images)}
    return [first[caption] for caption in sorted(first)]


def worst_mistakes(run_report: RunReport, sheet: SpriteSheet | None) -> list[ExampleImage]:
    """Return the misclassified images with the highest loss, the worst first."""
    if run_report.evaluation is None or sheet is None:
        return []
    predictions, classes = run_report.evaluation.predictions, run_report.evaluation.classes
    worst = predictions.worst[:WORST]
    pairs = zip(predictions.labels[worst], predictions.predicted[worst], strict=True)
    examples = _example_images(predictions, worst, sheet)
    return [
        replace(
            example,
            title=f"true {classes[label]}, predicted {classes[predicted]}, {example.caption}",
            caption=f"{classes[label]} → {classes[predicted]}\n{example.caption}",
        )
        for (label, predicted), example in zip(pairs, examples, strict=True)
    ]


def _example_images(
    predictions: Predictions, indices: NDArray[np.integer], sheet: SpriteSheet
) -> list[ExampleImage]:
    """Add images to a sheet; the captions are the confidences of the network."""
    shape = (sheet.side, sheet.side)
    return [
        ExampleImage(
            sheet.add(predictions.images[index].reshape(shape)),
            percent(predictions.confidences[index], 0),
        )
        for index in indices
    ]


def draw_weights(run_report: RunReport) -> tuple[SpriteSheet | None, dict[int, Position]]:
    """Return images of incoming weights of the first layer, and the position of each unit's image.

    They are those of the units with the largest norms. None if inputs are not images.
    """
    if run_report.network is None or run_report.side is None:
        return None, {}
    weights, side = run_report.network.parameters.weights[0], run_report.side
    sheet = SpriteSheet(side)
    return sheet, {
        unit: sheet.add(diverging(weights[:, unit].reshape(side, side)))
        for unit in largest_norm(weights, UNITS)
    }
