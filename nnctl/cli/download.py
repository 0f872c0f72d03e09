"""``nnctl download``: download a dataset into the cache."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nnctl.cli.options import EXISTING_PATH, data_dir_option, output_options
from nnctl.data import download as downloads
from nnctl.data.dataset import dataset_directory
from nnctl.data.registry import DATASETS
from nnctl.errors import DamagedFileError
from nnctl.views.download import DownloadView


@click.command(
    epilog="Example: nnctl download fashion-mnist",
    help=f"""Download MNIST or another dataset, and verify it.

    NAME is one of {", ".join(DATASETS)}. Default: mnist.
    """,
)
@click.argument("dataset", metavar="[NAME]", default="mnist", type=click.Choice(list(DATASETS)))
@click.option(
    "--mirror",
    "mirrors",
    metavar="URL",
    multiple=True,
    envvar="NNCTL_MIRROR",
    show_envvar=True,
    help="Try this URL first. Repeatable.",
)
@click.option(
    "--from",
    "source",
    type=EXISTING_PATH,
    help="Copy the dataset from this folder or file instead: IDX files, mnist.npz, mnist.pkl.gz, "
    "CSV files, or a folder of images per class.",
)
@data_dir_option
@click.option(
    "--verify",
    is_flag=True,
    help="Only verify the cached files; exit 3 if any is missing or damaged.",
)
@click.option("--force", is_flag=True, help="Download files again that are already correct.")
@output_options
def download(
    dataset: str,
    mirrors: tuple[str, ...],
    source: Path | None,
    verify: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    known = DATASETS[dataset]
    directory = dataset_directory(dataset)
    if source:
        downloads.import_files(directory, source, known)
    elif not verify:
        with DownloadView(quiet=quiet, list_cached=True) as view:
            downloads.fetch(directory, known, mirrors=mirrors, notify=view, force=force)

    states = {file.name: downloads.inspect(directory, file) for file in known.files}
    if as_json:
        result = {"dataset": dataset, "directory": str(directory), "files": states}
        click.echo(json.dumps(result))
    elif verify:
        for name, state in states.items():
            click.echo(f"{name}: {state}")
    else:
        click.echo(f"{known.title} is in {directory}")
    wrong = [f"{name} is {state}" for name, state in states.items() if state != "right"]
    if wrong:
        raise DamagedFileError(
            f"in {directory}, {', '.join(wrong)}",
            hint=f"Download it with: nnctl download {dataset}",
        )
