"""``nnctl train``: train a network and record the run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nnctl.cli.options import (
    ACCURACY,
    CONFIG,
    FOLDER,
    RUN,
    RUN_TO_RESUME,
    TIME,
    data_dir_option,
    output_options,
    override_options,
    print_json,
)
from nnctl.config import Override, to_mapping, to_yaml
from nnctl.errors import BelowThresholdError, InterruptedRunError, UsageError
from nnctl.runs.initial import InitialNetwork
from nnctl.runs.resolve import (
    dataset_info_of,
    find_dataset,
    load_config,
    resolve_auto,
    validation_count,
)
from nnctl.runs.run import RUNS, Run, named_directory
from nnctl.runs.training_run import TrainingRun
from nnctl.signals import stop_on_signals
from nnctl.views.download import DownloadView
from nnctl.views.step_summary import summarize_training
from nnctl.views.training import TrainingView, show_result


@click.command(
    epilog="Example: nnctl train sigmoid --lr 0.1",
    help="""Train a network as configured in CONFIG.

    CONFIG is a YAML file, the name of a preset (see nnctl presets), or - for standard input.

    The last line on stdout is the run directory; with --quiet, it is the only line. Ctrl-C saves
    the state and exits with code 130; --resume continues from there, and reaches the same result
    as without the interruption.
    """,
)
@click.argument("config", type=CONFIG, required=False)
@override_options
@click.option("--run-dir", type=FOLDER, help="Run directory, new or empty.")
@click.option(
    "--runs-dir",
    type=FOLDER,
    default=RUNS,
    help="Parent of the new run directory.",
)
@click.option(
    "--name", help="Name of the new run directory in --runs-dir (default: CONFIG and the time)."
)
@click.option(
    "--resume", type=RUN_TO_RESUME, metavar="RUN", help="Continue a run; CONFIG is optional."
)
@click.option(
    "--init-from",
    type=RUN,
    metavar="RUN",
    help="Begin with the trained weights of RUN in each layer of the same shape.",
)
@click.option(
    "--max-time",
    type=TIME,
    help="Save the state and end after this time, such as 90s, 10m or 2h; --resume continues.",
)
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
    name: str | None,
    resume: Path | None,
    init_from: Path | None,
    max_time: float | None,
    fail_under: float | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    overrides: list[Override],
) -> None:
    run = Run.open(resume) if resume else None
    path = config or (run.config_path if run else None)
    if path is None:
        raise click.UsageError("expected a CONFIG, such as sigmoid, or --resume RUN")
    if resume and run_dir:
        raise click.UsageError("--run-dir cannot be used with --resume, which continues in RUN")
    if resume and init_from:
        raise click.UsageError(
            "--init-from cannot be used with --resume, which continues with its own weights"
        )
    if name is not None and (resume or run_dir):
        raise click.UsageError("--name cannot be used with --resume or --run-dir")
    if name is not None:
        run_dir = named_directory(name, runs_dir)
    requested = load_config(path, overrides)
    if fail_under is not None and not validation_count(requested, dataset_info_of(requested)):
        raise UsageError(
            "--fail-under needs validation examples, but none are held out",
            hint="Set data.validation, or use: nnctl eval RUN --fail-under ACC",
        )
    if dry_run:
        dataset_info_of(requested)  # the files of a folder must exist
        values = to_mapping(requested)
        click.echo(json.dumps(values) if as_json else to_yaml(values), nl=as_json)
        return

    initial = InitialNetwork.of(Run.open(init_from)) if init_from else None
    try:
        with DownloadView(quiet=quiet) as notify:
            dataset = find_dataset((run.config if run else requested).data, notify)
            if not run:
                resolved = resolve_auto(requested, dataset, notify)
        with stop_on_signals() as stop:
            if run:
                extends = any(override.key == "training.epochs" for override in overrides)
                epochs = requested.training.epochs if extends else "auto"
                training = TrainingRun.resume(run, dataset, requested, epochs)
            else:
                run = Run.create_at(run_dir) if run_dir else Run.create(path.stem, runs_dir)
                training = TrainingRun.create(run, resolved, dataset, initial)
            with TrainingView(training, quiet=quiet) as view:
                for event in training.events(stop, max_time):
                    view.show(event)
            summarize_training(training)
            if as_json:
                print_json(training.summary.to_json())
            else:
                show_result(training, quiet=quiet)
    except KeyboardInterrupt:
        raise _interrupted_at_once(run) from None
    training.raise_unless_finished()
    accuracy = training.summary.best_val_accuracy or 0.0  # None: no validation examples
    if fail_under is not None and accuracy < fail_under:
        raise BelowThresholdError(
            f"the best validation accuracy, {accuracy:.4f}, is below {fail_under:g}"
        )


def _interrupted_at_once(run: Run | None) -> InterruptedRunError:
    if run is None or not run.config_path.exists():
        return InterruptedRunError("interrupted before the training started")
    hint = f"Files saved earlier are intact. Resume with: {run.resume_command}"
    return InterruptedRunError("interrupted before the state was saved", hint=hint)
