"""Export the network of a run to a file for another program."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import nnctl
from nnctl.analysis.evaluation import class_names
from nnctl.errors import UsageError
from nnctl.export.metadata import ModelMetadata
from nnctl.export.onnx import to_onnx
from nnctl.export.safetensors import to_safetensors
from nnctl.files import write_atomically
from nnctl.nn.network import Network
from nnctl.runs.run import (
    Run,
    Which,
    cannot_write,
    config_of,
    network_of,
    require_replaceable,
)

Format = Literal["onnx", "safetensors"]

FORMATS: dict[Format, Callable[[Network, ModelMetadata, Path], tuple[bytes, str]]] = {
    "onnx": to_onnx,
    "safetensors": to_safetensors,
}
"""For each format, the function that returns the file's content and how to use it."""

_EXPORT = re.compile(
    rb"\A\x08.\x12\x05nnctl"  # ONNX: IR version, then producer name
    rb'|\A.{8}\{"__metadata__":\{.*"nnctl_version":',  # safetensors: a length, then JSON
    re.DOTALL,
)


@dataclass(frozen=True)
class Export:
    """The result of `export`.

    Parameters
    ----------
    file : Path
        The file that was written.
    format : str
        Its format: "onnx" or "safetensors".
    bytes : int
        Its size.
    checkpoint : str
        The checkpoint that was exported: "best" or "last".
    run_dir : Path
        Run directory.
    usage : str
        How to use the file: inputs and outputs (ONNX), or PyTorch code (safetensors).
    """

    file: Path
    format: Format
    bytes: int
    checkpoint: Which
    run_dir: Path
    usage: str

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-compatible values."""
        return {**asdict(self), "file": str(self.file), "run_dir": str(self.run_dir)}


def export(
    run: Run, file_format: Format, *, checkpoint: Which = "best", file: Path | None = None
) -> Export:
    """Export the network of a run to a file.

    Parameters
    ----------
    run : Run
        The run.
    file_format : str
        "onnx", or "safetensors" for PyTorch.
    checkpoint : str
        "best" for the best epoch, or "last".
    file : Path, optional
        Output file; default: ``model.<format>`` in the run directory. An earlier export is
        replaced; any other existing file is an error.

    Raises
    ------
    UsageError
        The format or checkpoint is unknown, the format does not support this network, its library
        is not installed, or the file exists and is not an export of nnctl.
    DataError
        The checkpoint is missing or corrupt.
    StorageError
        The file cannot be written.
    """
    for name, value, known in (
        ("format", file_format, get_args(Format)),
        ("checkpoint", checkpoint, get_args(Which)),
    ):
        if value not in known:
            raise UsageError(f"unknown {name} '{value}'; choose from {', '.join(known)}")
    target = file or run.directory / f"model.{file_format}"
    _require_safe_target(run, target)
    saved, path = run.checkpoint(checkpoint), run.checkpoint_path(checkpoint)
    network, config = network_of(saved, path), config_of(saved, path)
    origin = ModelMetadata(
        nnctl_version=nnctl.__version__,
        dataset=saved.dataset.name,
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


def _require_safe_target(run: Run, target: Path) -> None:
    """Raise an error if the target is a file of the run, or exists and is not an export."""
    own = (run.config_path, run.metrics_path, run.summary_path)
    checkpoints = (run.checkpoint_path("best"), run.checkpoint_path("last"))
    if _location(target) in map(_location, (*own, *checkpoints)):
        raise UsageError(
            f"{target} is a file of the run itself", hint="Choose another file with --output."
        )
    require_replaceable(target, _EXPORT, "export")


def _location(path: Path) -> Path:
    """Return the absolute path without following a final symlink: writing replaces the link."""
    return path.parent.resolve() / path.name
