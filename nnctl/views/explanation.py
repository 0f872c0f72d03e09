"""Prints how a network comes to its answer for one example: ``nnctl explain``.

A small network gets the whole arithmetic, as one would write it on paper; a large one pictures and
its strongest units. The equations BP1 to BP4 are those of Nielsen, chapter 2.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Iterator

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from nnctl.analysis.explanation import Explanation, LayerPass
from nnctl.nn.activations import Softmax
from nnctl.nn.losses import CategoricalCrossEntropy
from nnctl.nn.types import Array
from nnctl.views.console import GREEN, heading, make_table, results, say
from nnctl.views.terminal_images import (
    draw,
    draw_signed,
    is_plain,
    print_drawings,
    shrink,
)

_UNITS = 5  # strongest units in a table
_ERRORS = 3  # largest errors of a layer
_CLASSES = 12  # rows of a table of outputs

_NO_LOSS = "The true class is not known. With --label, the loss and the errors are shown as well."
_NO_GRADIENT = """\
No gradients are shown: training changes other parameters, the weights before
batch normalization, and the scales and shifts of it."""
_LAYER_GRADIENTS = """\
The gradient of a weight is its input times the δ of its unit (BP4), that of a
bias is δ (BP3): a layer with a small |δ| learns slowly."""

Equation = tuple[str, str]
"""The left and the right side of an equation."""


def show_explanation(explanation: Explanation) -> None:
    """Print an explanation on stdout."""
    console, layers = results(), explanation.layers
    _show_answer(console, explanation)
    if not explanation.is_small:
        _show_pixels(console, explanation)
    heading(console, "Forward: z = x·w + b and a = f(z)")
    if explanation.has_batch_norm:
        say(console, "After training, batch normalization is an affine map: w and b include it.")
    for one in layers:
        units, function = len(one.outputs), one.function
        noun, formula = f"unit{'s' * (units > 1)}", function.describe(function.formula)
        say(console, f"Layer {one.layer}: {units} {function.name} {noun}, f(z) = {formula}")
        if explanation.is_small:
            _print_equations(console, _forward_equations(one))
        elif one is layers[-1]:
            _show_outputs(console, explanation)
        else:
            _show_units(console, explanation, one)
    name, [first, *others] = explanation.classes[explanation.predicted], layers[-1].outputs
    if others:
        say(console, f"The answer is {name}, the class with the largest output.")
    else:
        compared = "at least" if explanation.predicted else "below"
        say(console, f"The answer is {name}: the output {_number(first)} is {compared} 1/2.")
    if not explanation.is_small:
        _show_reason(console, explanation)
    if explanation.label is None:
        say(console, "")
        say(console, _NO_LOSS)
        return
    _show_loss(console, explanation)
    if explanation.is_small:
        _show_unit_errors(console, explanation)
    else:
        _show_layer_errors(console, explanation)
    if not layers[-1].deltas.any():
        _show_no_errors(console, explanation)
    elif explanation.has_batch_norm:
        say(console, _NO_GRADIENT)
    elif explanation.is_small:
        _show_gradient(console, explanation)
    else:
        say(console, _LAYER_GRADIENTS)


def _show_answer(console: Console, explanation: Explanation) -> None:
    """Print the example, the answer and the runner-up."""
    names, label, predicted = explanation.classes, explanation.label, explanation.predicted
    true = "" if label is None else f"; its true class is {names[label]}"
    say(console, f"{explanation.run_dir}, epoch {explanation.epoch}: {explanation.example}{true}")
    outputs, runner_up = explanation.layers[-1].outputs, explanation.runner_up
    is_single = len(outputs) == 1
    verdict: list[str | tuple[str, str]] = [": " if is_single else " "]
    if label is not None:
        right = predicted == label
        verdict = [": ", ("right", GREEN) if right else ("wrong", "bold red"), ", "]
    if is_single:
        shown = f"the output is {_number(outputs[0])}"
    else:
        shown = (
            f"with the output {_number(outputs[predicted])}; "
            f"runner-up {names[runner_up]}: {_number(outputs[runner_up])}"
        )
    say(console, Text.assemble("answer ", (names[predicted], "bold"), *verdict, shown))


def _number(number: float) -> str:
    """Return a number with four digits, or more if it is nearly 1, as of a probability."""
    digits = 7 if 0.9995 <= number < 1 else 4
    return f"{number + 0.0:.{digits}g}" if math.isfinite(number) else str(number)  # 0.0: no -0


def _factor(number: float) -> str:
    """Return a number as it is written in a product: a negative one in parentheses."""
    text = _number(number)
    return f"({text})" if text.startswith("-") else text


# Every number ------------------------------------------------------------------------------------


def _show_unit_errors(console: Console, explanation: Explanation) -> None:
    """Print the errors of every unit, from the last layer to the first; if they are 0, the last."""
    layers = explanation.layers
    heading(
        console, "Backward: the error δ = ∂L/∂z of every unit, from the last layer to the first"
    )
    for one, above in zip(reversed(layers), [None, *reversed(layers[1:])], strict=True):
        if above and not layers[-1].deltas.any():
            break
        if above is None:
            rule = f"δ = {_output_rule(explanation)} (Nielsen's BP1)"
        else:
            rule = f"δ = (Σ w·δ of layer {above.layer}) f'(z) (Nielsen's BP2)"
        say(console, f"Layer {one.layer}: {rule}")
        smooth = one.function.differentiable()
        if smooth is not one.function:
            say(console, f"  the step has the derivative 0; f' is that of a {smooth.name} instead")
        _print_equations(
            console, _hidden_errors(one, above) if above else _output_errors(one, explanation)
        )


def _show_gradient(console: Console, explanation: Explanation) -> None:
    """Print the gradient of every weight and bias."""
    heading(console, "Gradient: ∂L/∂b = δ (BP3), ∂L/∂w = x·δ for the input x of the weight (BP4)")
    for one in explanation.layers:
        say(console, f"Layer {one.layer}")
        _print_equations(console, _gradient_equations(one))
    say(console, "A training step subtracts the learning rate times the gradient (sgd), averaged")
    say(console, "over the examples of a batch. Numbers are rounded to four digits.")


def _print_equations(console: Console, equations: Iterable[Equation]) -> None:
    """Print equations below each other; a long right side continues below itself."""
    grid = Table.grid(Column(no_wrap=True), Column(no_wrap=True), "")
    for left, right in equations:
        grid.add_row(left, " = ", Text(right))
    console.print(Padding(grid, (0, 0, 0, 2)))


def _columns(one: LayerPass) -> list[str]:
    """Return the numbers of the columns of z: of the units, or as 2.1 of a maxout unit's pieces."""
    units = len(one.outputs)
    if one.function.pieces == 1:
        return [str(unit + 1) for unit in range(units)]
    return [f"{column % units + 1}.{column // units + 1}" for column in range(len(one.z))]


def _forward_equations(one: LayerPass) -> Iterator[Equation]:
    """Yield z and a of every unit."""
    for column, z in enumerate(one.z):
        products = [
            f"{_factor(x)}·{_factor(w)}"
            for x, w in zip(one.inputs, one.weights[:, column], strict=True)
        ]
        total = " + ".join([*products, _factor(one.biases[column])])
        yield f"z{_columns(one)[column]}", f"{total} = {_number(z)}"
    for unit, a in enumerate(one.outputs):
        yield f"a{unit + 1}", f"{_value_of_f(one, unit)} = {_number(a)}"


def _value_of_f(one: LayerPass, unit: int) -> str:
    """Return the formula of an activation with numbers in place of z."""
    function, units = one.function, len(one.outputs)
    if function.pieces > 1:
        return f"max({', '.join(map(_number, one.z[unit::units]))})"
    if isinstance(function, Softmax):
        powers = [f"exp({_number(z)})" for z in one.z]
        return f"{powers[unit]} / ({' + '.join(powers)})"
    formula = function.describe(function.formula)
    if _is_prose(formula):
        return f"f({_number(one.z[unit])})"
    return _filled(formula, z=one.z[unit])


def _is_prose(formula: str) -> bool:
    """Return whether a formula consists of cases or has an explanation, as that of relu's slope."""
    return bool(re.search(r"\b(if|where)\b|,(?! 0\)| 1\))", formula))


def _filled(formula: str, **values: float) -> str:
    """Return a formula with numbers in place of letters."""
    pattern = rf"(?<![\w'])({'|'.join(values)})(?![\w'])"
    return re.sub(pattern, lambda match: _factor(values[match[0]]), formula)


def _output_errors(one: LayerPass, explanation: Explanation) -> Iterator[Equation]:
    """Yield the derivatives and the errors of the output layer."""
    formula = _output_rule(explanation)
    mean = _number(float(one.outputs @ (one.outputs - explanation.targets)))  # for softmax
    if "f'" in formula:
        yield from _slope_equations(one)
    for unit, (a, y, delta) in enumerate(
        zip(one.outputs, explanation.targets, one.deltas, strict=True)
    ):
        filled = _filled(formula.replace("Σ a (a - y)", mean), a=a, y=y)
        if one.slopes is not None:
            filled = filled.replace("f'(z)", f"· {_factor(one.slopes[unit])}")
        yield f"δ{unit + 1}", f"{filled} = {_number(delta)}"


def _output_rule(explanation: Explanation) -> str:
    """Return the formula of the errors of the output layer."""
    function = explanation.layers[-1].function
    formula = function.describe(explanation.loss_function.delta)
    if isinstance(function, Softmax) and "f'" in formula:  # each output depends on every z
        return "a (a - y - (Σ a (a - y)))"
    return "a - y" if formula == "(a - y)" else formula


def _slope_equations(one: LayerPass) -> Iterator[Equation]:
    """Yield f'(z) of every unit; nothing if an output depends on several z."""
    smooth = one.function.differentiable()
    outputs = one.outputs
    if smooth is not one.function:
        outputs = np.empty_like(one.z)
        smooth.forward(one.z, outputs)
    formula = smooth.describe(smooth.derivative)
    for unit, slope in enumerate([] if one.slopes is None else one.slopes):
        filled = _filled(formula, z=one.z[unit], f=outputs[unit])
        shown = "" if _is_prose(formula) or filled == _number(slope) else f"{filled} = "
        yield f"f'(z{unit + 1})", f"{shown}{_number(slope)}"


def _hidden_errors(one: LayerPass, above: LayerPass) -> Iterator[Equation]:
    """Yield the derivatives and the errors of a layer, from the errors of the layer above."""
    yield from _slope_equations(one)
    units, names = len(one.outputs), _columns(one)
    for column, delta in enumerate(one.deltas):
        unit = column % units
        products = [
            f"{_factor(w)}·{_factor(error)}"
            for w, error in zip(above.weights[unit], above.deltas, strict=True)
        ]
        # The derivative of maxout is 1 for the largest piece, and 0 for the others.
        slope = float(delta != 0) if one.slopes is None else one.slopes[unit]
        yield (
            f"δ{names[column]}",
            f"({' + '.join(products)}) · {_factor(slope)} = {_number(delta)}",
        )


def _gradient_equations(one: LayerPass) -> Iterator[Equation]:
    """Yield the gradient of every weight and bias."""
    below = "x" if one.layer == 1 else "a"
    for name, delta in zip(_columns(one), one.deltas, strict=True):
        for i, x in enumerate(one.inputs, start=1):
            value = _number(x * delta)
            yield f"∂L/∂w({below}{i}→{name})", f"{_factor(x)}·{_factor(delta)} = {value}"
        yield f"∂L/∂b{name}", _number(delta)


# Pictures and strongest units --------------------------------------------------------------------


def _show_pixels(console: Console, explanation: Explanation) -> None:
    """Draw the image, and the pixels that speak for and against the answer and its rival."""
    image = explanation.image
    if image is None:
        return
    answer, rival = (explanation.classes[i] for i in (explanation.predicted, explanation.rival))
    plain = is_plain(console)
    pictures = {
        f"for and against {answer}": explanation.evidence,
        f"for {answer}, against {rival}": explanation.contrast,
    }
    if len(explanation.layers[-1].z) == 1:  # the two are the same
        pictures.popitem()
    say(console, "")
    print_drawings(
        console,
        [
            draw(shrink(image), plain=plain),
            *(draw_signed(one.reshape(image.shape), plain=plain) for one in pictures.values()),
        ],
        ["the image", *pictures],
    )
    if not explanation.evidence.any():
        say(console, "No pixel counts: a derivative on the way from the answer to the pixels is 0.")
        return
    say(console, "# + speak for, = - against" if plain else "blue speaks for, orange against")
    if len(explanation.layers) == 1:
        say(console, "A pixel counts by w·x, its weight times its ink: these are the terms of z.")
    else:
        say(console, "A pixel counts by its ink x times ∂z/∂x, the growth of z with this ink.")


def _show_units(console: Console, explanation: Explanation, one: LayerPass) -> None:
    """Print the strongest units of a hidden layer."""
    table = make_table("unit", "z", "a = f(z)", "f'(z)")
    chosen, units = _chosen_units(explanation, one), len(one.outputs)
    order = sorted({unit for some in chosen.values() for unit in some})
    for unit in order:
        slope = "-" if one.slopes is None else _number(one.slopes[unit])
        z = ", ".join(map(_number, one.z[unit::units]))
        table.add_row(str(unit + 1), z, _number(one.outputs[unit]), slope)
    console.print(table)
    if len(order) < units:
        say(console, f"  {len(order)} of {units} units: {' and '.join(chosen)}")


def _show_outputs(console: Console, explanation: Explanation) -> None:
    """Print the outputs of the last layer, with their errors if the true class is known."""
    last, names, predicted = explanation.layers[-1], explanation.classes, explanation.predicted
    columns = {"z": last.z, "a = f(z)": last.outputs}
    if explanation.label is not None:
        columns |= {"y": explanation.targets, "δ = ∂L/∂z": last.deltas}
    table = make_table("class", *columns)
    if len(last.outputs) == 1:  # of the second of two classes
        shown, names, predicted = [0], names[1:], -1
    else:
        shown = sorted({*_strongest(last.outputs, _CLASSES), explanation.rival, predicted})
    for unit in shown:
        numbers = [_number(column[unit]) for column in columns.values()]
        table.add_row(names[unit], *numbers, style="bold" if unit == predicted else "")
    console.print(table)


def _chosen_units(explanation: Explanation, one: LayerPass) -> dict[str, list[int]]:
    """Return the units of a hidden layer that the next parts name, by the reason for the choice."""
    units, chosen = len(one.outputs), {}
    if one is explanation.layers[-2]:
        decisive = _strongest(explanation.unit_contributions)
        chosen[f"the {len(decisive)} that decide most"] = decisive
    if explanation.label is not None and (errors := _largest_errors(one)):
        chosen[f"the {len(errors)} with the largest |δ|"] = [column % units for column in errors]
    if not chosen:
        strongest = _strongest(one.outputs)
        chosen[f"the {len(strongest)} with the largest |a|"] = strongest
    return chosen


def _largest_errors(one: LayerPass) -> list[int]:
    """Return the positions of the largest errors that are not 0."""
    return [i for i in _strongest(one.deltas, _ERRORS) if one.deltas[i]]


def _strongest(numbers: Array, count: int = _UNITS) -> list[int]:
    """Return the positions of the numbers with the largest absolute values, largest first."""
    order: list[int] = np.argsort(-np.abs(numbers), kind="stable")[:count].tolist()
    return order


def _show_reason(console: Console, explanation: Explanation) -> None:
    """Print which units decide between the answer and its rival."""
    last = explanation.layers[-1]
    predicted, rival = explanation.predicted, explanation.rival
    answer, other = explanation.classes[predicted], explanation.classes[rival]
    is_mistake = explanation.label is not None and explanation.label != predicted
    contributions = explanation.unit_contributions
    if len(last.z) == 1:
        heading(console, f"Why {answer}{f', though the true class is {other}' * is_mistake}")
        difference, bias = last.z[0], last.biases[0]
        total, weight, factor = "z", "w", "w"
        yes, no = explanation.classes[1], explanation.classes[0]
        say(
            console, f"The output grows with z: a term above 0 speaks for {yes}, one below for {no}"
        )
        contributions = contributions if predicted else -contributions
    else:
        named = "the true class" if is_mistake else "the runner-up"
        heading(console, f"Why {answer} and not {other}, {named}")
        difference = last.z[predicted] - last.z[rival]
        bias = last.biases[predicted] - last.biases[rival]
        total, weight = f"z({answer}) - z({other})", f"w({answer}) - w({other})"
        factor, yes, no = f"({weight})", answer, other
    biases = "the bias" if len(last.z) == 1 else "the biases"
    if last.layer == 1:
        for_it = contributions[contributions > 0].sum()
        against = contributions[contributions < 0].sum()
        say(
            console,
            f"{total} = {_number(for_it)} from pixels for {yes} + {_factor(against)} from "
            f"pixels for {no} + {_factor(bias)} from {biases} = {_number(difference)}",
        )
    else:
        say(console, f"{total} is the sum of a·{factor} over the units of layer {last.layer - 1}")
        table = make_table("unit", "a", weight, "product")
        order = _strongest(contributions)
        for unit in order:
            a, product = last.inputs[unit], contributions[unit]
            table.add_row(str(unit + 1), *map(_number, (a, product / a if a else 0, product)))
        if rest := len(contributions) - len(order):
            others = contributions.sum() - contributions[order].sum()
            table.add_row(f"{rest} others", "", "", _number(others))
        table.add_row(biases, "", "", _number(bias))
        table.add_row("sum", "", "", _number(difference), style="bold")
        console.print(table)
    if isinstance(last.function, Softmax) and math.isfinite(difference):
        say(
            console,
            f"softmax: the probability of {answer} is exp({_number(difference)}) = "
            f"{_number(np.exp(difference))} times that of {other}",
        )


# Loss and errors ---------------------------------------------------------------------------------


def _show_no_errors(console: Console, explanation: Explanation) -> None:
    """Print why the errors of the output layer, and so of every layer, are 0."""
    say(console, "All errors are 0: the network learns nothing from this example.")
    last = explanation.layers[-1]
    if "f'" in _output_rule(explanation) and last.slopes is not None and not last.slopes.any():
        say(console, "The reason is f'(z) = 0, a factor of the errors of the output layer.")
    elif (last.outputs == explanation.targets).all():
        other = shlex.quote(explanation.classes[explanation.rival])
        say(console, "The outputs are exactly the targets. For the errors if another class were")
        say(console, f"the true one, add --label {other}.")


def _show_loss(console: Console, explanation: Explanation) -> None:
    """Print the loss of the example, with all numbers if they are few."""
    loss, targets, outputs = explanation.loss_function, explanation.targets, explanation.layers[-1]
    units = [*range(len(targets))]
    plural = len(units) > 1
    heading(console, f"Loss: L = {f'Σ ({loss.term})' if plural else loss.term}, y is the target")
    if isinstance(loss, CategoricalCrossEntropy):  # the other terms are 0
        units = [int(targets.argmax())]
    if len(units) > 2:
        say(console, f"  L = {_number(explanation.loss)}")
        return
    terms = [_filled(loss.term, a=outputs.outputs[unit], y=targets[unit]) for unit in units]
    _print_equations(console, [("L", f"{' + '.join(terms)} = {_number(explanation.loss)}")])


def _show_layer_errors(console: Console, explanation: Explanation) -> None:
    """Print the size of the errors of each layer, from the last to the first."""
    last = explanation.layers[-1]
    heading(console, "Backward: the error δ = ∂L/∂z of every layer, from the last to the first")
    say(console, f"layer {last.layer}: δ = {_output_rule(explanation)} (Nielsen's BP1)")
    if last.layer > 1:
        say(console, "layers below: δ = (Σ w·δ of the layer above) f'(z) (BP2)")
    gradient = [] if explanation.has_batch_norm else ["|∂L/∂w|"]
    table = make_table(
        "layer", "|δ|", "compared with above", *gradient, left=["units with the largest δ"]
    )
    above = 0.0
    for one in reversed(explanation.layers):
        ratio = f"{one.error / above:.2g} times" if above else ""
        names = _columns(one)
        if one is last:  # a single unit speaks for the second of two classes
            names = explanation.classes[-len(one.deltas) :]
        largest = [f"{names[i]}: {_number(one.deltas[i])}" for i in _largest_errors(one)]
        norms = [_number(one.gradient_norm)] if gradient else []
        table.add_row(str(one.layer), _number(one.error), ratio, *norms, "\n".join(largest))
        above = one.error
    console.print(table)
