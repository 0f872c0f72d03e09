"""``nnctl export``: export a trained network for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.cli.options import FILE, RUN, checkpoint_option, output_options, print_json
from nnctl.export import formats
from nnctl.export.formats import Format
from nnctl.runs.run import Run, Which


@click.command(
    "export",
    epilog="Example: nnctl export runs/sigmoid-20260921-101500 --format onnx",
    help="""Export the network trained in RUN to ONNX or safetensors.

    RUN is a run directory. Both formats take images as float32 (N, 784), pixels from 0 to 1:
    divide bytes by 255. An ONNX file has two outputs: logits, the weighted inputs of the last
    layer, and probabilities, its activations: softmax over all classes, an independent sigmoid
    for each class, or the values of another activation function. With --format safetensors,
    prints the code that loads the file in PyTorch. Both require the extra export. The
    last line on stdout is the file; with --quiet, it is the only line.
    """,
)
@click.argument("run", type=RUN)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["onnx", "safetensors"]),
    required=True,
    help="Graph for ONNX Runtime and others, or weights for PyTorch.",
)
@click.option(
    "--output",
    "-o",
    "file",
    type=FILE,
    help="Output file (default: RUN/model.onnx or RUN/model.safetensors).",
)
@checkpoint_option
@output_options
def export(
    run: Path, file_format: Format, file: Path | None, checkpoint: Which, as_json: bool, quiet: bool
) -> None:
    exported = formats.export(Run.open(run), file_format, checkpoint=checkpoint, file=file)
    if as_json:
        print_json(exported.to_json())
        return
    if not quiet:
        click.echo(exported.usage)
    click.echo(exported.file)
