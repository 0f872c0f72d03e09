"""Train neural networks on MNIST, and see why they learn or do not learn.

>>> import nnctl
>>> run = nnctl.train("configs/sigmoid.yaml", epochs=3)  # doctest: +SKIP
>>> nnctl.evaluate(run).accuracy  # doctest: +SKIP
0.9598
>>> nnctl.load("runs/sigmoid-20260921-101500").predict(images)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnctl import errors
    from nnctl.api import (
        BatchesDone,
        EpochDone,
        Finished,
        Network,
        evaluate,
        load,
        save,
        train,
    )

__all__ = [
    "BatchesDone",
    "EpochDone",
    "Finished",
    "Network",
    "__version__",
    "errors",
    "evaluate",
    "load",
    "save",
    "train",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that the command line starts quickly."""
    if name == "errors":
        from importlib import import_module

        return import_module("nnctl.errors")
    if name in __all__:
        from nnctl import api

        return getattr(api, name)
    raise AttributeError(f"module 'nnctl' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return all public names, including names that are not imported yet."""
    return sorted({*globals(), *__all__})
