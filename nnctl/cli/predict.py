"""``nnctl predict``: classify your own images with a trained network."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.analysis import prediction as predictions
from nnctl.cli.options import ACCURACY, PATH_NAME, RUN, checkpoint_option, print_json
from nnctl.errors import DataError
from nnctl.runs.run import Which
from nnctl.sweeps.journal import is_sweep
from nnctl.sweeps.listing import LATEST
from nnctl.views.prediction import PredictionView


@click.command(
    "predict",
    epilog="Example: nnctl predict photo.jpg",
    help="""Classify each IMAGE, with the network trained in RUN if given.

    Without RUN, the network that ships with nnctl is used. An IMAGE is a picture of a digit or of
    a number, such as a PNG or JPEG photo of pen on paper; an IDX file; a folder of pictures; or -
    for standard input. Pictures are centered and scaled like MNIST's images, and a terminal shows
    them as the network sees them; IDX files are used unchanged. An IMAGE that cannot be read is
    reported and skipped; the exit code is then 3.

    RUN is a directory with a file config.yaml. If the first argument is not such a directory, all
    arguments are images. If a folder of pictures has folders named 0 to 9, the accuracy is printed
    at the end.
    """,
)
@click.argument("names", type=PATH_NAME, metavar="[RUN] IMAGE...", nargs=-1, required=True)
@checkpoint_option
@click.option(
    "--threshold",
    type=ACCURACY,
    default=0.0,
    show_default=False,
    metavar="P",
    help="Print 'no digit' if the probability is below P.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image on stdout.")
def predict(names: tuple[str, ...], checkpoint: Which, threshold: float, as_json: bool) -> None:
    if names[0] == LATEST or is_sweep(Path(names[0])):
        names = (str(RUN(names[0])), *names[1:])
    run, images = predictions.open_run(names)
    view = PredictionView()
    if run == predictions.BUNDLED_RUN:
        view.show_bundled()
    failed = count = 0
    score = predictions.Score()
    for prediction in predictions.predict(run, images, checkpoint, threshold):
        count += 1
        failed += prediction.error is not None
        score.add(prediction)
        if as_json:
            print_json(prediction.to_json())
        else:
            view.show(prediction)
    if score.labeled:
        if as_json:
            print_json(score.to_json())
        else:
            view.show_score(score)
    if failed:
        images_failed = "the image" if count == 1 else f"{failed} of {count} images"
        raise DataError(f"{images_failed} could not be classified")
