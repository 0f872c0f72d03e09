"""Export the network of a run to a file for another program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import nnctl
from nnctl.analysis.evaluation import class_names
from nnctl.errors import require_choice, storage_errors
from nnctl.export.metadata import ModelMetadata
from nnctl.export.onnx import to_onnx
from nnctl.export.safetensors import to_safetensors
from nnctl.files import OTHER_OUTPUT, require_replaceable, write_atomically
from nnctl.nn.network import Network
from nnctl.runs.run import Run, Which

Format = Literal["onnx", "safetensors"]

FORMATS: dict[Format, Callable[[Network, ModelMetadata, Path], tuple[bytes, str]]] = {
    "onnx": to_onnx,
    "safetensors": to_safetensors,
}
"""For each format, the function that returns the file's content and how to use it."""


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
        Output file; default: ``model.<format>`` in the run directory. An existing file is replaced
        if its name ends with ``.<format>``; otherwise it is an error.

    Raises
    ------
    UsageError
        The format or checkpoint is unknown, the format does not support this network, its library
        is not installed, or the file exists and its name does not end with ``.<format>``.
    DataError
        The checkpoint is missing or corrupt.
    StorageError
        The file cannot be written.
    """
    require_choice("format", file_format, get_args(Format))
    require_choice("checkpoint", checkpoint, get_args(Which))
    target = file or run.directory / f"model.{file_format}"
    require_replaceable(target, f".{file_format}")
    trained = run.load(checkpoint)
    metadata = ModelMetadata(
        nnctl_version=nnctl.__version__,
        dataset=trained.dataset.name,
        labels=class_names(trained.config, trained.network.sizes[-1], trained.dataset.classes),
        checkpoint=checkpoint,
        epoch=trained.epoch,
    )
    content, usage = FORMATS[file_format](trained.network, metadata, target)
    with storage_errors(target, OTHER_OUTPUT):
        write_atomically(target, content)
    return Export(target, file_format, len(content), checkpoint, run.directory, usage)
