"""``nnctl export``: a trained network for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nnctl.cli.options import FILE, FOLDER, checkpoint_option, output_options


@click.command(
    "export",
    epilog="Example: nnctl export runs/sigmoid-20260921-101500 --format onnx",
    help="""Write the network of RUN, a run directory, for other programs.

    Both formats take images as float32 (N, 784), pixels from 0 to 1: divide bytes by 255. Of
    --format onnx the outputs are logits, the last layer's weighted inputs, and probabilities, its
    outputs: those of softmax, of sigmoid for each class by itself, or else whatever the last layer
    returns. With --format safetensors the lines to load it in PyTorch are printed. Both need:
    pip install 'nnctl[export]'. The last line on stdout is the file; with --quiet the only one.
    """,
)
@click.argument("run", type=FOLDER)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["onnx", "safetensors"]),
    required=True,
    help="A graph for ONNX Runtime and others, or weights for PyTorch.",
)
@click.option(
    "--output",
    "-o",
    "file",
    type=FILE,
    metavar="FILE",
    help="Where to; default: RUN/model.onnx or RUN/model.safetensors.",
)
@checkpoint_option
@output_options
def export(run: Path, as_json: bool, quiet: bool, **options: Any) -> None:
    from nnctl.export.export import export as export_run
    from nnctl.files import to_json_text
    from nnctl.runs.directory import Run

    exported = export_run(Run.open(run), **options)
    if as_json:
        click.echo(to_json_text(exported.to_json()))
        return
    if not quiet:
        click.echo(exported.usage)
    click.echo(exported.file)
