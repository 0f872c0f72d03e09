"""``nnctl train``: train a network and record the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnctl.cli.options import (
    ACCURACY,
    FILE,
    FOLDER,
    config_options,
    data_dir_option,
    output_options,
    read_overrides,
)

if TYPE_CHECKING:
    from nnctl.config import Config
    from nnctl.errors import InterruptedRunError
    from nnctl.runs.run import Run
    from nnctl.runs.training_run import TrainingRun


@click.command(
    epilog="Example: nnctl train configs/sigmoid.yaml --set optimizer.learning_rate=0.1",
    help="""Train a network as configured in CONFIG, a YAML file.

    The last line on stdout is the run directory. Ctrl-C saves the state and exits with code 130;
    --resume continues from there, and reaches the same result as without the interruption.
    """,
)
@click.argument("config", type=FILE, required=False)
@config_options
@click.option("--run-dir", type=FOLDER, help="Run directory, new or empty.")
@click.option(
    "--runs-dir",
    type=FOLDER,
    default=Path("runs"),
    show_default=True,
    help="Parent of the new run directory.",
)
@click.option("--resume", type=FOLDER, metavar="RUN", help="Continue a run; CONFIG is optional.")
@click.option(
    "--fail-under",
    type=ACCURACY,
    metavar="ACC",
    help="Exit 5 if the best validation accuracy is below this.",
)
@click.option(
    "--dry-run", is_flag=True, help="Check and print the resolved configuration, without training."
)
@data_dir_option
@output_options
def train(
    config: Path | None,
    run_dir: Path | None,
    runs_dir: Path,
    resume: Path | None,
    fail_under: float | None,
    dry_run: bool,
    data_dir: Path | None,
    as_json: bool,
    quiet: bool,
    **overrides: Any,
) -> None:
    from nnctl.files import to_json_text
    from nnctl.runs.resolve import find_dataset, load_config, resolve_auto
    from nnctl.runs.run import Run
    from nnctl.runs.training_run import TrainingRun
    from nnctl.signals import interrupt, stop_on_signals
    from nnctl.views.download import DownloadView
    from nnctl.views.training import TrainingView, show_result

    run = Run.open(resume) if resume else None
    source = config or (run.config_path if run else None)
    if source is None:
        raise click.UsageError("expected a CONFIG or --resume RUN")
    if resume and run_dir:
        raise click.UsageError("--run-dir cannot be used with --resume, which continues in RUN")
    settings = read_overrides(**overrides)
    requested = load_config(source, settings)
    _check_threshold(requested, fail_under)
    if dry_run:
        _show_plan(requested, as_json)
        return

    try:
        with DownloadView(quiet=quiet) as notify:
            if run:
                changes_epochs = any(setting.key == "training.epochs" for setting in settings)
                configured = requested.training.epochs
                epochs = configured if changes_epochs and configured != "auto" else None
                training = TrainingRun.resume(
                    run, requested, epochs, data_dir=data_dir, notify=notify
                )
            else:
                dataset = find_dataset(requested.data, data_dir, notify)
                final = resolve_auto(requested, dataset, notify)
        with stop_on_signals(interrupt) as stop:
            if not run:
                run = Run.create_at(run_dir) if run_dir else Run.create(source.stem, runs_dir)
                training = TrainingRun.create(run, final, dataset)
            with TrainingView(training, quiet=quiet) as view:
                for event in training.events(stop):
                    view.show(event)
            if as_json:
                click.echo(to_json_text(training.summary.to_json()))
            else:
                show_result(training)
    except KeyboardInterrupt:
        raise _interrupted_at_once(run) from None
    training.raise_unless_finished()
    _check_accuracy(training, fail_under)


def _interrupted_at_once(run: Run | None) -> InterruptedRunError:
    from nnctl.errors import InterruptedRunError

    if run is None or not run.config_path.exists():
        return InterruptedRunError("interrupted before the training started")
    hint = f"Files saved earlier are intact. Resume with: {run.resume_command}"
    return InterruptedRunError("interrupted before the state was saved", hint=hint)


def _show_plan(config: Config, as_json: bool) -> None:
    from nnctl.config import to_mapping, to_yaml
    from nnctl.files import to_json_text

    mapping = to_mapping(config)
    click.echo(to_json_text(mapping) if as_json else to_yaml(mapping), nl=as_json)


def _check_threshold(config: Config, fail_under: float | None) -> None:
    from nnctl.errors import UsageError
    from nnctl.runs.resolve import info_of_config, validation_count

    if fail_under is not None and not validation_count(config, info_of_config(config)):
        raise UsageError(
            "--fail-under needs validation examples, but none are held out",
            hint="Set data.validation, or use: nnctl eval RUN --fail-under ACC",
        )


def _check_accuracy(training: TrainingRun, fail_under: float | None) -> None:
    from nnctl.errors import BelowThresholdError

    accuracy = training.summary.best_val_accuracy or 0.0  # None: no validation examples
    if fail_under is not None and accuracy < fail_under:
        raise BelowThresholdError(
            f"the best validation accuracy, {accuracy:.4f}, is below {fail_under:g}"
        )
