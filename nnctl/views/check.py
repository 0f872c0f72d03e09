"""A configuration as people look at it before they train, and the activations there are."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from nnctl.nn.activations import ACTIVATIONS, Activation, Array
from nnctl.runs.inspection import (
    LARGEST_ERROR,
    GradientReport,
    Inspection,
    LayerPlan,
    Sample,
    list_activations,
)
from nnctl.views.console import results, say
from nnctl.views.diagnosis import WHY, show_diagnoses
from nnctl.views.pictures import print_side_by_side
from nnctl.views.plots import draw_curve

_REACH = 4.0  # activations are drawn from minus this to this
_COLUMNS, _ROWS = 16, 4  # of each little drawing
_ROUNDING = 1e-13  # what is smaller is no residual


def show_inspection(source: str, inspection: Inspection) -> None:
    """Print the layers, the size of the training, and what is wrong."""
    console = results()
    hidden = len(inspection.layers) - 1
    kind = "a deep network" if inspection.deep else "not a deep network, which has two or more"
    layers, weights = _count(hidden, "hidden layer"), _count(hidden + 1, "weight layer")
    say(console, f"{source}: {'-'.join(map(str, inspection.sizes))}")
    say(console, f"{weights}, {layers}: {kind}")
    console.print(_layers(inspection))
    memory = max(1, round(inspection.memory / 1e6))
    held_out = f", {inspection.held_out:,} held out" if inspection.held_out else ""
    say(console, f"{inspection.parameters:,} parameters; training needs about {memory:,} MB")
    say(console, f"{inspection.dataset}: {inspection.examples:,} examples{held_out}")
    epochs = _count(inspection.epochs, "epoch")
    steps = _count(inspection.steps, "step")
    say(console, f"{steps} in {epochs}: {inspection.steps_per_epoch:,} an epoch")
    if inspection.regularization:
        say(console, "regularization:")
        for key, value in inspection.regularization.items():
            say(console, f"  {key}: {_as_yaml(value)}")
    done = inspection.epochs_done
    if inspection.diagnoses:
        show_diagnoses(console, "Warnings:" if done is None else WHY, inspection.diagnoses)
    elif done is None:
        say(console, Text("No warnings: nothing wrong is seen before training.", "green"))
    else:
        text = f"Nothing is wrong with its layers after {_count(done, 'epoch')}."
        say(console, Text(text, "green"))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _as_yaml(value: Any) -> str:
    """Return a value as one would write it in a line of a configuration."""
    if not isinstance(value, dict):
        return f"{value:g}"
    return "{" + ", ".join(f"{key}: {_as_yaml(part)}" for key, part in value.items()) + "}"


def _layers(inspection: Inspection) -> Table:
    table = Table(box=box.SIMPLE)
    for name in ("layer", "shape", "parameters"):
        table.add_column(name, justify="right")
    for name in ("activation", "weights begin as"):
        table.add_column(name)
    told_biases = any(plan.biases != "zeros" for plan in inspection.layers)
    if told_biases:
        table.add_column("biases")
    for plan in inspection.layers:
        biases = Group(plan.biases, f"std {plan.biases_std:.3g}")
        table.add_row(
            str(plan.layer),
            f"{plan.inputs} x {plan.units}",
            f"{plan.parameters:,}",
            Group(Text(plan.activation, "bold"), plan.formula, *_dropout(plan)),
            Group(f"{'auto: ' if plan.auto else ''}{plan.weights}", f"std {plan.weights_std:.3g}"),
            *([biases] if told_biases else []),
        )
    return table


def _dropout(plan: LayerPlan) -> list[str]:
    return [f"dropout {plan.dropout:g}"] if plan.dropout else []


def show_samples(samples: Sequence[Sample], dataset: str, adversarial: float | None) -> None:
    """Draw images as the network will see them, with their labels, and say what that leaves out."""
    console = results()
    say(console, Text("\nTraining images as the network will see them", "bold"))
    if samples[0].dataset != dataset:
        say(console, f"of {samples[0].dataset}: {dataset} is not there yet")
    if adversarial:
        say(console, f"before each is moved by {adversarial:g}, to where its loss grows the most")
    print_side_by_side(
        console, [sample.image for sample in samples], [sample.label for sample in samples]
    )


def show_gradients(report: GradientReport) -> None:
    """Print the largest error of each layer, and how the linearisation gets better."""
    console = results()
    say(console, "")
    say(console, Text("Backpropagation against central differences, in float64", "bold"))
    table = Table(box=box.SIMPLE)
    for name in ("layer", "largest gradient", "largest relative error", "compared", "at a kink"):
        table.add_column(name, justify="right")
    for error in report.errors:
        right = error.largest <= LARGEST_ERROR
        told = f"{error.largest:.1e}" if error.checked else "-"
        table.add_row(
            str(error.layer),
            f"{error.steepest:.1e}",
            Text(told, "green" if right else "bold red"),
            f"{error.checked:,}",
            f"{error.skipped:,}",
        )
    console.print(table)
    for number in report.surrogates:
        say(console, f"layer {number} is checked as the function whose derivative it borrows")
    say(console, Text("Change of the outputs: Δf ≈ Σ ∂f/∂w Δw, and what that leaves out", "bold"))
    table = Table(box=box.SIMPLE)
    for name in ("length of Δw", "left out", "times smaller"):
        table.add_column(name, justify="right")
    before = None
    for length, residual in report.residuals:
        times = f"{before / residual:.2f}" if before and residual else ""
        table.add_row(f"{length:.1e}", f"{residual:.2e}", times)
        before = residual
    console.print(table)
    say(console, _verdict([residual for _, residual in report.residuals]))


def _verdict(residuals: list[float]) -> str:
    """Return what the residuals of a change that is halved again and again show."""
    if max(residuals) < _ROUNDING:
        return "Nothing is left out: here the outputs are linear in the weights, or flat."
    shrinks = [before / max(after, _ROUNDING) for before, after in itertools.pairwise(residuals)]
    if all(times > 3.5 for times in shrinks):
        return "Half of Δw leaves out a quarter or less, as it should: the derivative is right."
    return "Not always a quarter of it for half of Δw: a kink of an activation lies within Δw."


def show_activations() -> None:
    """Print every activation: formula, derivative, range, advice, and drawings of both."""
    console = results()
    reach = f"from z = -{_REACH:g} to {_REACH:g}"
    say(console, f"f and its derivative f', {reach}, each drawn to its own height")
    say(console, "")
    for known in list_activations():
        activation = ACTIVATIONS[known["name"]]()
        title = Text(known["name"], "bold")
        if known["aliases"]:
            title.append(f" (also {', '.join(known['aliases'])})", "dim")
        if known["parameters"]:
            title.append(f"  {json.dumps(known['parameters'])}", "dim")
        facts = Table.grid(padding=(0, 1))
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column()
        facts.add_row("f", known["formula"])
        facts.add_row("f'", known["derivative"])
        facts.add_row("in", known["outputs"])
        facts.add_row("", Text(known["advice"], "italic"))
        drawings = _drawings(console, activation)
        row = Table.grid(padding=(0, 2))
        row.add_column(no_wrap=True)
        row.add_column(no_wrap=True)
        row.add_column()
        row.add_row(*drawings, facts)
        say(console, title)
        console.print(Padding(row, (0, 0, 1, 1)))


def _drawings(console: Console, activation: Activation) -> list[Text]:
    """Return f and f' from -4 to 4, drawn."""
    x = np.linspace(-_REACH, _REACH, 2 * _COLUMNS)
    braille = console.encoding.lower().startswith("utf")
    drawings = []
    for values, style in zip(_curves(activation, x), ("cyan", "magenta"), strict=True):
        lines = draw_curve(values, _ROWS, _COLUMNS, braille=braille)
        drawings.append(Text("\n".join(lines), style))
    return drawings


def _curves(activation: Activation, x: Array) -> tuple[Array, Array]:
    """Return f and f' along a line through the layer's weighted inputs.

    Where a unit sees several, or a layer's units see each other, z goes along a line that shows it:
    (-x, ..., x) for maxout, and (x, 0) for softmax.
    """
    if activation.maps > 1:
        directions = np.linspace(-1, 1, activation.maps)
    else:
        directions = np.array([1.0, 0.0] if activation.place == "output" else [1.0])
    z = x[:, None] * directions
    outputs = np.empty((len(x), len(directions) // activation.maps))
    activation.forward(z, outputs)
    errors, slopes = np.zeros_like(outputs), np.empty_like(z)
    errors[:, 0] = 1
    activation.backward(z, outputs, errors, slopes)
    return outputs[:, 0], slopes @ directions
