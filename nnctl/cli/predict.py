"""``nnctl predict``: classify your own images with a trained network."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.analysis import prediction as predictions
from nnctl.cli.options import FOLDER, checkpoint_option
from nnctl.errors import DataError
from nnctl.files import to_json_text
from nnctl.runs.run import Run, Which
from nnctl.views.prediction import PredictionView


@click.command(
    "predict",
    epilog="Example: nnctl predict runs/relu-20260921-101500 photo.jpg",
    help="""Classify each IMAGE with the network trained in RUN.

    RUN is a run directory. An IMAGE is a picture of a single digit, such as a PNG or JPEG photo of
    pen on paper; an IDX file; a folder of pictures; or - for standard input. Pictures are
    centered and scaled like MNIST's images, and a terminal shows them as the network sees them;
    IDX files are used unchanged. An IMAGE that cannot be read is reported and skipped; the exit
    code is then 3.
    """,
)
@click.argument("run", type=FOLDER)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@checkpoint_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image on stdout.")
def predict(run: Path, images: tuple[str, ...], checkpoint: Which, as_json: bool) -> None:
    view = PredictionView()
    failed = count = 0
    for prediction in predictions.predict(Run.open(run), images, checkpoint=checkpoint):
        count += 1
        failed += prediction.error is not None
        if as_json:
            click.echo(to_json_text(prediction.to_json()))
        else:
            view.show(prediction)
    if failed:
        images_failed = "the image" if count == 1 else f"{failed} of {count} images"
        raise DataError(f"{images_failed} could not be classified")
