"""``nnctl presets``: list, print and copy the configurations that come with nnctl."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.cli.options import PATH, PRESET, json_option, print_json
from nnctl.config.presets import copy_preset, find_preset
from nnctl.config.presets import presets as all_presets
from nnctl.text import shell_command
from nnctl.views.presets import show_presets


@click.group(
    invoke_without_command=True,
    epilog="Example: nnctl presets copy sigmoid mine.yaml",
    help="""List the configurations that come with nnctl.

    The name of a preset can be used instead of a file wherever a CONFIG is expected. Accuracies
    are those of the test images, times those of two cores of one machine.
    """,
)
@json_option
@click.pass_context
def presets(context: click.Context, as_json: bool) -> None:
    if context.invoked_subcommand:
        return
    listed = all_presets()
    if as_json:
        print_json({"presets": [preset.to_json() for preset in listed]})
    else:
        show_presets(listed)


@presets.command(epilog="Example: nnctl presets show sigmoid", help="Print the preset NAME.")
@click.argument("name", type=PRESET)
def show(name: str) -> None:
    click.echo(find_preset(name).text, nl=False)


@presets.command(
    epilog="Example: nnctl presets copy sigmoid mine.yaml",
    help="""Copy the preset NAME to FILE, to change it.

    FILE is NAME.yaml by default. The base of a sweep is copied to the same folder, and so is
    the schema with which editors complete keys. Files that exist are not overwritten.
    """,
)
@click.argument("name", type=PRESET)
@click.argument("file", type=PATH, required=False)
def copy(name: str, file: Path | None) -> None:
    written = copy_preset(name, file)
    for path in written:
        click.echo(path)
    command = "sweep" if find_preset(name).is_sweep else "train"
    click.echo(f"Use it with: {shell_command('nnctl', command, written[-1])}", err=True)
