"""Prints the progress of a training: a table with a row per epoch, and a progress bar.

With very many epochs, there is a row for the first one in each interval, and for the last one.
"""

from __future__ import annotations

import math
import sys

import numpy as np
from rich import progress
from rich.text import Text

from nnctl.diagnosis.network import check_config, health_label
from nnctl.nn.events import BatchesDone, EpochDone, Event, Finished
from nnctl.runs.summary import InitRecord
from nnctl.runs.training_run import TrainingRun
from nnctl.text import enumeration, percent, shell_command
from nnctl.views.console import BLUE, GREEN, View, is_live, is_unicode, notices, results, say, warn
from nnctl.views.diagnosis import WHY, show_diagnoses
from nnctl.views.plots import draw_curve

_MIN_EPOCHS = 2  # a curve needs two points
_ROWS, _COLUMNS = 4, 36  # largest size of a curve in characters
_MIN_COLUMNS = 18  # for "90.52 % to 93.40 %"
_GAP = 4  # characters between two curves
_MAX_ROWS = 200  # of a table: a run with more epochs has a row for some of them
_LEGEND = "* the best validation accuracy so far"
_LAST_MARK = "; the last mark is the best epoch"
_HEADER = " epoch  train loss  accuracy  val. loss  accuracy"
_USUAL = "       rate  seconds"  # left out for monitored figures, so that rows fit more windows
_MONITORED = {"cost": "     cost", "train_accuracy": "on train", "test": " on test"}
"""Titles of the columns of ``training.monitor``, as wide as the columns."""


class TrainingView(View):
    """Prints the events of a training on stderr.

    Parameters
    ----------
    training : TrainingRun
        Training to show.
    quiet : bool
        Print only warnings.
    """

    def __init__(self, training: TrainingRun, *, quiet: bool) -> None:
        self._training = training
        self._warnings = check_config(training.config)
        self._marked = False
        self._skipped: EpochDone | None = None
        self._interval_shown = -1
        self._console = notices(quiet=quiet)
        options = training.config.training
        self._monitored = [name for name in _MONITORED if name in options.monitor]
        self._epochs, self._steps = int(options.epochs), options.steps or sys.maxsize
        self._steps_per_epoch = len(training.loop.batches)
        epochs = min(self._epochs, math.ceil(self._steps / self._steps_per_epoch))
        interval = _round_up(epochs / _MAX_ROWS)
        # Without the epochs that are not validated, there may be few rows anyway.
        self._interval = interval if interval > options.validation_epochs else 1
        self._progress = self._make_bar() if is_live(self._console) else None

    def _make_bar(self) -> progress.Progress:
        bar = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            console=self._console,
            transient=True,
        )
        done = self._training.loop.progress
        self._task = bar.add_task(
            self._epoch_of_all(min(done.epoch + 1, self._epochs)),
            completed=done.epoch * self._steps_per_epoch + done.batch,
            total=min(self._epochs * self._steps_per_epoch, self._steps),
        )
        return bar

    def _epoch_of_all(self, epoch: int) -> str:
        return f"epoch {epoch}/{self._epochs}"

    def start(self) -> None:
        """Print the network, the dataset and the run directory; start the progress bar."""
        if self._training.lock.warning:
            warn(self._training.lock.warning, self._console)
        self._print_introduction()
        if self._progress:
            self._progress.start()

    def stop(self) -> None:
        """Remove the progress bar."""
        if self._progress:
            self._progress.stop()

    def show(self, event: Event) -> None:
        """Print an event."""
        match event:
            case BatchesDone() if self._progress:
                self._progress.update(
                    self._task,
                    description=self._epoch_of_all(event.epoch),
                    completed=(event.epoch - 1) * self._steps_per_epoch + event.batch,
                )
            case EpochDone():
                self._skipped = event
                if event.epoch // self._interval > self._interval_shown:
                    self._interval_shown = event.epoch // self._interval
                    self._row(event)
                    self._skipped = None
            case Finished():
                if self._skipped:
                    self._row(self._skipped)
                if self._marked:
                    last_mark = _LAST_MARK if self._interval == 1 else ""
                    say(self._console, Text(_LEGEND + last_mark, "dim"))
                if self._progress:
                    self._draw_curves()
                if event.reason != "diverged":  # the command's error message explains it
                    show_diagnoses(self._console, WHY, self._training.summary.diagnoses)

    def _draw_curves(self) -> None:
        """Draw the curves of loss and accuracy, if there were enough epochs."""
        history = self._training.run.history
        if len(history) < _MIN_EPOCHS:
            return
        curves = [("train loss", {row.epoch: row.train_loss for row in history}, "{:.3g}")]
        accuracies = {
            row.epoch: 100 * row.val_accuracy for row in history if row.val_accuracy is not None
        }
        losses = {row.epoch: row.val_loss for row in history if row.val_loss is not None}
        if accuracies:
            curves.append(("val. loss", losses, "{:.3g}"))
            curves.append(("val. accuracy", accuracies, "{:.2f} %"))
        braille = is_unicode(self._console)
        columns = min(_COLUMNS, (self._console.width - 1) // len(curves) - _GAP)
        if columns < _MIN_COLUMNS:
            return
        names, ranges, drawn = "", "", []
        for name, by_epoch, form in curves:
            epochs, values = [*by_epoch], [*by_epoch.values()]
            names += name.ljust(columns + _GAP)
            ends = f"{form.format(values[0])} to {form.format(values[-1])}"
            ranges += ends.ljust(columns + _GAP)
            steps = np.linspace(epochs[0], epochs[-1], 2 * columns)
            curve = np.interp(steps, epochs, values)
            drawn.append(draw_curve(curve, _ROWS, columns, braille=braille))
        say(self._console, f"\n {names.rstrip()}\n {ranges.rstrip()}")
        for lines in zip(*drawn, strict=True):
            say(self._console, Text(f" {(' ' * _GAP).join(lines).rstrip()}", BLUE))
        say(self._console, "")

    def _print_introduction(self) -> None:
        dataset, config = self._training.dataset, self._training.config
        sizes = "-".join(map(str, self._training.network.sizes))
        activations = ", ".join(layer.function for layer in config.network.layers)
        fold = config.data.fold
        held_out = f", {dataset.validation:,} held out" if dataset.validation else ""
        held_out += f" (fold {fold.number} of {fold.of})" if fold else ""
        say(self._console, f"network   {sizes} ({activations})")
        say(
            self._console,
            f"data      {dataset.name}: {dataset.training:,} examples{held_out}",
        )
        say(self._console, f"run       {self._training.run.directory}")
        if record := self._training.run.initial:
            self._print_initial(record)
        done = self._training.loop.progress.epoch
        if done or self._training.loop.progress.batch:
            say(self._console, f"resumed   after {done} of {config.training.epochs} epochs")
        match self._training.loop.stop_reason():
            case "finished":
                say(self._console, "training is complete; --epochs N extends the run")
                return
            case "stopped_early":
                say(self._console, "training is complete: early stopping ended this run")
                return
        show_diagnoses(self._console, "Warnings before training:", self._warnings)
        if self._interval > 1:
            say(self._console, f"one row per {self._interval:,} epochs")
        monitored = "".join(f"  {_MONITORED[name]}" for name in self._monitored)
        say(self._console, Text(f"{_HEADER}{monitored or _USUAL}  health", style="bold"))

    def _print_initial(self, record: InitRecord) -> None:
        """Print which layers begin with the weights of another run, and which have new weights."""
        taken = enumeration([*map(str, record.layers)])
        noun = "layers" if len(record.layers) > 1 else "layer"
        say(self._console, f"weights   of {noun} {taken} from {record.run}, epoch {record.epoch}")
        for number, layer in enumerate(self._training.config.network.layers, start=1):
            if number not in record.layers:
                what = f"layer {number} ({layer.units} {layer.function})"
                say(self._console, f"          {what} has new weights")

    def _monitored_cells(self, done: EpochDone) -> str:
        """Return the cells of the figures of ``training.monitor``."""
        if done.monitor is None:
            return ""
        cost = done.monitor.cost
        cells = {
            "cost": "-" if cost is None else f"{cost:.4f}",
            "train_accuracy": percent(done.monitor.train_accuracy),
            "test": percent(done.monitor.test_accuracy),
        }
        return "".join(f"  {cells[name]:>{len(_MONITORED[name])}}" for name in self._monitored)

    def _row(self, done: EpochDone) -> None:
        val_loss = "-" if done.val_loss is None else f"{done.val_loss:.4f}"
        usual = f"  {done.learning_rate:>9.4g}  {done.seconds:>7.2f}"
        row = (
            f"{done.epoch:>5}  {done.train_loss:>10.4f}  {percent(done.train_accuracy):>8}"
            f"  {val_loss:>9}  {percent(done.val_accuracy):>8}"
            f"{self._monitored_cells(done) or usual}"
            f"  {health_label(self._training.config, done.health)}"
        )
        # Every row that was the best so far is marked, so the last mark is the best epoch.
        marked = done.is_best and done.val_accuracy is not None
        self._marked |= marked
        say(
            self._console,
            Text(f"{'*' if marked else ' '}{row}", f"bold {GREEN}" if marked else ""),
        )


def _round_up(number: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50, ... that is not below a number."""
    power: int = 10 ** max(0, math.floor(math.log10(number)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= number)


def show_result(training: TrainingRun, *, quiet: bool) -> None:
    """Print the result of a training on stdout; the last line is the run directory.

    Parameters
    ----------
    training : TrainingRun
        Training that has ended.
    quiet : bool
        Print the run directory only.
    """
    console, summary = results(), training.summary
    if quiet:
        say(console, str(training.run.directory))
        return
    best, accuracy, loss = summary.best_epoch, summary.best_val_accuracy, summary.best_val_loss
    directory = str(training.run.directory)
    if accuracy is not None and loss is not None:
        so_far = " so far" if summary.status == "interrupted" else ""
        say(
            console,
            f"best epoch   {best} of {summary.epochs}{so_far}: validation accuracy "
            f"{percent(accuracy)}, loss {loss:.4f}",
        )
    elif summary.final_train_accuracy is not None:
        final = percent(summary.final_train_accuracy)
        say(console, f"trained      {summary.epochs} epochs: training accuracy {final}")
    if summary.status == "stopped_early":
        say(console, f"stopped      early, after epoch {summary.epochs}: no further improvement")
    if summary.time_limit:
        say(
            console,
            f"stopped      at the time limit, after {summary.epochs} of {summary.planned_epochs} "
            "epochs; the state is saved",
        )
        say(console, f"continue it  {training.run.resume_command}")
    if best is not None:
        say(console, f"evaluate it  {shell_command('nnctl', 'eval', directory)}")
    say(console, directory)
