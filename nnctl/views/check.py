"""Prints the results of ``nnctl check``, and the list of activations."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import numpy as np
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from nnctl.analysis.inspection import (
    LARGEST_ERROR,
    GradientReport,
    Inspection,
    LayerStatistics,
    Sample,
    activation_curves,
    list_activations,
    softmax_of_large_numbers,
)
from nnctl.config import Config
from nnctl.data.dataset import canonical_name
from nnctl.nn.activations import ACTIVATIONS, Activation, Softmax
from nnctl.text import percent, short_value
from nnctl.views.console import BLUE, GREEN, heading, is_unicode, make_table, results, say
from nnctl.views.diagnosis import WHY, show_diagnoses
from nnctl.views.plots import draw_curve
from nnctl.views.terminal_images import print_side_by_side

_REACH = 4.0  # activations are drawn for z from -4 to 4
_MAX_EPOCHS = 20  # rows in a table of statistics
_STATISTICS = {
    "initial": "weights as the seed draws them, measured on images that come with nnctl",
    "mean, std a": "mean and standard deviation of the activations",
    "dead": "units whose output is 0 for every image",
    "saturated": "outputs near a bound of the activation, where its derivative is nearly 0",
    "|δ|": "norm of the error ∂L/∂z",
    "ratio": "|δ| divided by that of the next layer: gradients vanish if it is small",
    "update": "norm of a step, divided by that of the weights",
}
"""Columns of a table of statistics, and what they mean."""
_COLUMNS, _ROWS = 16, 4  # size of each curve in characters
_ROUNDING = 1e-13  # smaller residuals are rounding errors


def show_inspection(source: str, inspection: Inspection) -> None:
    """Print the layers, the size of the training, and the problems found."""
    console = results()
    hidden = len(inspection.layers) - 1
    kind = "a deep network" if inspection.deep else "not a deep network (two or more hidden layers)"
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
    say(console, f"{steps} in {epochs}: {inspection.steps_per_epoch:,} per epoch")
    if inspection.regularization:
        say(console, "regularization:")
        for key, value in inspection.regularization.items():
            say(console, f"  {key}: {short_value(value, digits=6)}")
    done = inspection.epochs_done
    if inspection.diagnoses:
        show_diagnoses(console, "Warnings:" if done is None else WHY, inspection.diagnoses)
    elif done is None:
        say(console, Text("No problems found before training.", GREEN))
    else:
        text = f"No problems found after {_count(done, 'epoch')}."
        say(console, Text(text, GREEN))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _layers(inspection: Inspection) -> Table:
    show_biases = any(plan.biases != "zeros" for plan in inspection.layers)
    initial = ["initial weights", "initial biases"] if show_biases else ["initial weights"]
    table = make_table("layer", "shape", "parameters", left=["activation", *initial])
    for plan in inspection.layers:
        biases = Group(plan.biases, f"std {plan.biases_std:.3g}")
        table.add_row(
            str(plan.layer),
            f"{plan.inputs} x {plan.units}",
            f"{plan.parameters:,}",
            Group(
                Text(plan.activation, "bold"),
                plan.formula,
                *([f"batch norm {plan.batch_norm}"] if plan.batch_norm else []),
                *([f"dropout {plan.dropout:g}"] if plan.dropout else []),
            ),
            Group(f"{'auto: ' if plan.auto else ''}{plan.weights}", f"std {plan.weights_std:.3g}"),
            *([biases] if show_biases else []),
        )
    return table


def show_statistics(config: Config, statistics: Sequence[LayerStatistics]) -> None:
    """Print a table of statistics for each layer, with a row for the initial weights.

    Of many epochs, some are shown: the first, the last, and others at equal distances.
    """
    console = results()
    step = -(-len(statistics) // _MAX_EPOCHS)
    shown = [*statistics[:1], *statistics[1:-1:step], *statistics[1:][-1:]]
    for i, layer in enumerate(config.network.layers):
        heading(console, f"Layer {i + 1}: {layer.units} {layer.function}")
        table = make_table(
            "epoch", "mean a", "std a", "dead", "saturated", "|δ|", "ratio", "update"
        )
        for one in shown:
            health = one.layers[i]
            table.add_row(
                str(one.epoch) if one.epoch else "initial",
                f"{health.mean:.3g}",
                f"{health.std:.3g}",
                percent(health.dead, 0),
                percent(health.saturated, 0),
                f"{health.error:.2e}",
                "" if health.error_ratio is None else f"{health.error_ratio:.2g}",
                f"{health.update_ratio:.1e}" if one.epoch else "",
            )
        console.print(table)
    legend = Table.grid(Column(no_wrap=True), "", padding=(0, 2))
    for name, meaning in _STATISTICS.items():
        legend.add_row(name, meaning)
    console.print(legend)
    if step > 1:
        say(console, f"One of {step} recorded epochs is shown; --json has all of them.")


def show_samples(samples: Sequence[Sample], dataset: str, adversarial: float | None) -> None:
    """Draw images with their labels as the network sees them in training.

    A line reports that adversarial training, which is not drawn, changes them further.
    """
    console = results()
    heading(console, "Training images as the network will see them")
    if samples[0].dataset != canonical_name(dataset):
        say(console, f"from {samples[0].dataset}: {dataset} has not been downloaded yet")
    if adversarial:
        say(console, f"without the adversarial step of length {adversarial:g}")
    print_side_by_side(
        console, [sample.image for sample in samples], [sample.label for sample in samples]
    )


def show_gradients(report: GradientReport) -> None:
    """Print the largest gradient error of each layer, and the residuals of the linearization."""
    console = results()
    heading(console, "Backpropagation against central differences, in float64")
    table = make_table(
        "layer", "largest gradient", "largest relative error", "compared", "at a kink"
    )
    for error in report.errors:
        right = error.largest <= LARGEST_ERROR
        relative_error = f"{error.largest:.1e}" if error.checked else "-"
        table.add_row(
            str(error.layer),
            f"{error.steepest:.1e}",
            Text(relative_error, GREEN if right else "bold red"),
            f"{error.checked:,}",
            f"{error.skipped:,}",
        )
    console.print(table)
    for number in report.surrogates:
        say(console, f"layer {number} is checked with the surrogate of its activation")
    say(console, Text("Linear approximation of the outputs: Δf ≈ Σ ∂f/∂w Δw", "bold"))
    table = make_table("length of Δw", "residual", "times smaller")
    before = None
    for length, residual in report.residuals:
        times = f"{before / residual:.2f}" if before and residual else ""
        table.add_row(f"{length:.1e}", f"{residual:.2e}", times)
        before = residual
    console.print(table)
    say(console, _verdict([residual for _, residual in report.residuals]))


def _verdict(residuals: list[float]) -> str:
    """Return the conclusion from the residuals of a step Δw that is halved repeatedly."""
    if max(residuals) < _ROUNDING:
        return "The residuals are 0: here the outputs are linear in the weights, or constant."
    shrinks = [before / max(after, _ROUNDING) for before, after in itertools.pairwise(residuals)]
    if all(times > 3.5 for times in shrinks):
        return "Halving Δw divides the residual by 4 or more: the derivative is correct."
    return "Halving Δw does not divide the residual by 4: an activation has a kink within Δw."


def show_activations(*, one_scale: bool) -> None:
    """Print the formula, derivative, range, advice and curves of every activation.

    Parameters
    ----------
    one_scale : bool
        Draw a function and its derivative on the same vertical scale.
    """
    console = results()
    reach = f"from z = -{_REACH:g} to {_REACH:g}"
    scale = "both on one vertical scale" if one_scale else "each with its own vertical scale"
    say(console, f"f and its derivative f', {reach}, {scale}")
    say(console, "")
    for known in list_activations():
        activation = ACTIVATIONS[known["name"]]()
        title = Text(known["name"], "bold")
        if known["aliases"]:
            title.append(f" (also {', '.join(known['aliases'])})", "dim")
        if known["parameters"]:
            title.append(f"  {json.dumps(known['parameters'])}", "dim")
        info = Table.grid(Column(style="dim", no_wrap=True), "", padding=(0, 1))
        info.add_row("f", known["formula"])
        slope = known["largest_slope"]
        bound = "unbounded" if slope is None else f"at most {slope:.4g}"
        info.add_row("f'", f"{known['derivative']}; {bound}")
        info.add_row("in", known["outputs"])
        info.add_row("", Text(known["advice"], "italic"))
        row = Table.grid(Column(no_wrap=True), Column(no_wrap=True), "", padding=(0, 2))
        row.add_row(*_drawings(console, activation, one_scale=one_scale), info)
        say(console, title)
        console.print(Padding(row, (0, 0, 0, 1)))
        if isinstance(activation, Softmax):
            _show_softmax_overflow(console)
        say(console, "")


def _show_softmax_overflow(console: Console) -> None:
    """Print softmax of large numbers, with and without the maximum subtracted."""
    example = softmax_of_large_numbers()

    def listed(name: str) -> str:
        return ", ".join(f"{number:.4g}" for number in example[name])

    lines = [
        f"Why the maximum is subtracted first, for z = {listed('z')}:",
        f"exp(z) is {listed('powers')}; divided by the sum: {listed('naive')}",
        f"exp(z - max z) is {listed('shifted_powers')}; divided by the sum: {listed('shifted')}",
        "exp(z - c) / Σ exp(z - c) is the same for every c, as exp(-c) cancels.",
    ]
    console.print(Padding("\n".join(lines), (0, 0, 0, 2)))


def _drawings(console: Console, activation: Activation, *, one_scale: bool) -> list[Text]:
    """Return the curves of f and f' for z from -4 to 4."""
    x = np.linspace(-_REACH, _REACH, 2 * _COLUMNS)
    braille = is_unicode(console)
    functions = activation_curves(activation, x)
    limits = (float(np.min(functions)), float(np.max(functions))) if one_scale else None
    curves = (draw_curve(f, _ROWS, _COLUMNS, braille=braille, limits=limits) for f in functions)
    return [
        Text("\n".join(lines), style)
        for lines, style in zip(curves, (BLUE, "magenta"), strict=True)
    ]
