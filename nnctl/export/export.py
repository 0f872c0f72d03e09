"""From a run to one file that another program reads."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import nnctl
from nnctl.errors import UsageError
from nnctl.export.onnx import to_onnx
from nnctl.export.origin import Origin
from nnctl.export.safetensors import to_safetensors
from nnctl.files import write_atomically
from nnctl.nn.network import Network
from nnctl.runs.directory import (
    Run,
    Which,
    cannot_write,
    config_of,
    network_of,
    require_replaceable,
)
from nnctl.runs.evaluation import class_names

Format = Literal["onnx", "safetensors"]

FORMATS: dict[Format, Callable[[Network, Origin, Path], tuple[bytes, str]]] = {
    "onnx": to_onnx,
    "safetensors": to_safetensors,
}
"""What makes a file of each format: its content, and what to do with it."""

_EXPORT = re.compile(
    rb"\A\x08.\x12\x05nnctl"  # ONNX: its version and its producer
    rb'|\A.{8}\{"__metadata__":\{.*"nnctl_version":',  # safetensors: a length, then JSON
    re.DOTALL,
)


@dataclass(frozen=True)
class Export:
    """The result of `export`.

    Parameters
    ----------
    file : Path
        Where the network is.
    format : str
        In which format.
    bytes : int
        The size of the file.
    checkpoint : str
        Which network of the run it is.
    run_dir : Path
        The run.
    usage : str
        What to do with the file; of safetensors, the network in PyTorch's words.
    """

    file: Path
    format: Format
    bytes: int
    checkpoint: Which
    run_dir: Path
    usage: str

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return {**asdict(self), "file": str(self.file), "run_dir": str(self.run_dir)}


def export(
    run: Run, file_format: Format, *, checkpoint: Which = "best", file: Path | None = None
) -> Export:
    """Write the network of a run for another program.

    Parameters
    ----------
    run : Run
        With the checkpoint.
    file_format : str
        ONNX, or safetensors for PyTorch.
    checkpoint : str
        The best epoch's, or the last.
    file : Path, optional
        Where to; default: ``model.<format>`` in the run directory. An export that was there before
        is replaced, any other file is not.

    Raises
    ------
    UsageError
        The format cannot hold this network, its library is not installed, or the file is none of
        ours.
    DataError
        The checkpoint cannot be had.
    StorageError
        The file cannot be written.
    """
    for name, given, known in (
        ("format", file_format, get_args(Format)),
        ("checkpoint", checkpoint, get_args(Which)),
    ):
        if given not in known:
            raise UsageError(f"unknown {name} '{given}'; there are {', '.join(known)}")
    target = file or run.directory / f"model.{file_format}"
    _protect(run, target)
    saved, path = run.checkpoint(checkpoint), run.checkpoint_path(checkpoint)
    network, config = network_of(saved, path), config_of(saved, path)
    origin = Origin(
        nnctl_version=nnctl.__version__,
        dataset=str(saved.dataset["name"]),
        labels=class_names(config, network),
        checkpoint=checkpoint,
        epoch=saved.progress.epoch,
    )
    content, usage = FORMATS[file_format](network, origin, target)
    try:
        write_atomically(target, content)
    except OSError as error:
        raise cannot_write(target, error) from None
    return Export(target, file_format, len(content), checkpoint, run.directory, usage)


def _protect(run: Run, target: Path) -> None:
    """Refuse to write over what is no export, and to where a run keeps what it needs to go on."""
    own = (run.config_path, run.metrics_path, run.summary_path)
    checkpoints = (run.checkpoint_path("best"), run.checkpoint_path("last"))
    if _place(target) in map(_place, (*own, *checkpoints)):
        raise UsageError(f"{target} is the run's own file", hint="Name another one with --output.")
    require_replaceable(target, _EXPORT, "export")


def _place(path: Path) -> Path:
    """Return where a path stands, not where it leads: a file takes the place of a link."""
    return path.parent.resolve() / path.name
