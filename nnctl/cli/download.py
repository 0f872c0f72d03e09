"""``nnctl download``: download MNIST into the cache."""

from __future__ import annotations

import json
from pathlib import Path

import click

from nnctl.cli.options import EXISTING_FOLDER, data_dir_option, output_options
from nnctl.data import download as downloads
from nnctl.data.dataset import mnist_directory
from nnctl.data.registry import MNIST
from nnctl.errors import DamagedFileError
from nnctl.views.download import DownloadView


@click.command(
    epilog="Example: nnctl download --mirror http://127.0.0.1:8765/",
    help="Download MNIST into the cache and verify its SHA-256 hashes.",
)
@click.argument("dataset", default="mnist", type=click.Choice(["mnist"]), metavar="[mnist]")
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
    "--from", "source", type=EXISTING_FOLDER, help="Copy the files from this folder instead."
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
    data_dir: Path | None,
    verify: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    files = tuple(MNIST.values())
    directory = mnist_directory(data_dir)
    if source:
        downloads.import_files(directory, source, files)
    elif not verify:
        with DownloadView(quiet=quiet, list_cached=True) as view:
            downloads.fetch(directory, files, mirrors=mirrors, notify=view, force=force)

    states = {file.name: downloads.inspect(directory, file) for file in files}
    if as_json:
        result = {"dataset": dataset, "directory": str(directory), "files": states}
        click.echo(json.dumps(result))
    elif verify:
        for name, state in states.items():
            click.echo(f"{name}: {state}")
    else:
        click.echo(f"MNIST is in {directory}")
    wrong = [f"{name} is {state}" for name, state in states.items() if state != "right"]
    if wrong:
        raise DamagedFileError(
            f"in {directory}, {', '.join(wrong)}", hint="Download it with: nnctl download"
        )
