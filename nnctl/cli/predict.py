"""``nnctl predict``: what a trained network says of your own handwriting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nnctl.cli.options import FOLDER, checkpoint_option


@click.command(
    "predict",
    epilog="Example: nnctl predict runs/relu-20260921-101500 photo.jpg",
    help="""Tell the digit on each IMAGE by the network of RUN, a run directory.

    An IMAGE is a picture of a single digit, such as a photograph of pen on paper in PNG or JPEG; an
    IDX file; a folder of pictures; or - for standard input. A picture is made as MNIST's are, and
    shown as the network sees it; IDX files are taken as they are. What cannot be read is told, the
    others go on, and the exit code is then 3.
    """,
)
@click.argument("run", type=FOLDER)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@checkpoint_option
@click.option("--json", "as_json", is_flag=True, help="A JSON object a picture on stdout.")
def predict(run: Path, images: tuple[str, ...], as_json: bool, **options: Any) -> None:
    from nnctl.errors import DataError
    from nnctl.files import to_json_text
    from nnctl.runs.directory import Run
    from nnctl.runs.prediction import predict as predict_files
    from nnctl.views.prediction import PredictionView

    view = PredictionView()
    failed = count = 0
    for prediction in predict_files(Run.open(run), images, **options):
        count += 1
        failed += prediction.error is not None
        if as_json:
            click.echo(to_json_text(prediction.to_json()))
        else:
            view.show(prediction)
    if failed:
        what = "the picture" if count == 1 else f"{failed} of {count} pictures"
        raise DataError(f"no digit was told on {what}")
