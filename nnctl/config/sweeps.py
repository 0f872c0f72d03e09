"""What may be written in a sweep file: which keys to vary, over which values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from nnctl.config.checks import Problem
from nnctl.config.loader import validate
from nnctl.config.reader import Document
from nnctl.config.schema import MAX_SEED, Section


class Range(Section):
    """Numbers between two bounds, for a random sweep; the names are those of W&B's sweep files."""

    distribution: Annotated[
        Literal["uniform", "log_uniform_values", "int_uniform"],
        Field(description="Evenly, evenly in the logarithm, or whole numbers evenly"),
    ]
    min: Annotated[float, Field(description="The lower bound")]
    max: Annotated[float, Field(description="The upper bound")]

    @model_validator(mode="after")
    def _check_bounds(self) -> Range:
        if self.min >= self.max:
            raise ValueError(f"min ({self.min:g}) must be below max ({self.max:g})")
        if self.distribution == "log_uniform_values" and self.min <= 0:
            raise ValueError("min must be above 0, as its logarithm is taken")
        if max(abs(self.min), abs(self.max)) > 2**53:
            raise ValueError("min and max must be between -2^53 and 2^53")
        whole = self.min.is_integer() and self.max.is_integer()
        if self.distribution == "int_uniform" and not whole:
            raise ValueError("min and max must be whole numbers")
        return self


class SweepConfig(Section):
    """A sweep: many trainings of one configuration, with some of its keys varied."""

    base: Annotated[
        str, Field(min_length=1, description="The training configuration, beside this file")
    ]
    method: Annotated[
        Literal["grid", "random"],
        Field(description="Every combination of the values, or points drawn at random"),
    ] = "grid"
    parameters: Annotated[
        dict[
            str,
            Annotated[
                Annotated[list[Any], Field(min_length=1), Tag("list")]
                | Annotated[Range, Tag("range")],
                Discriminator(lambda value: "range" if isinstance(value, dict | Range) else "list"),
            ],
        ],
        Field(min_length=1, description="By dotted key: a list of values, or a range (random)"),
    ]
    trials: Annotated[
        int | None, Field(ge=1, description="How many points to draw; for random only")
    ] = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED, description="Of the points drawn")] = 0
    metric: Annotated[
        Literal["val_accuracy", "val_loss"], Field(description="What the trials are ranked by")
    ] = "val_accuracy"


def load_sweep(document: Document) -> SweepConfig:
    """Check what a sweep file says.

    Raises
    ------
    ConfigError
        With every mistake, each at its place.
    """
    return validate(SweepConfig, document, (check_method,))


def check_method(sweep: SweepConfig) -> Iterator[Problem]:
    """Check that the method and what it draws from fit together."""
    if sweep.method == "random" and sweep.trials is None:
        yield Problem(
            ("method",),
            "a random sweep needs 'trials', the number of points to draw",
            about=(("trials",),),
        )
    if sweep.method == "grid":
        if sweep.trials is not None:
            yield Problem(("trials",), "a grid has as many trials as it has points; leave this out")
        for key, values in sweep.parameters.items():
            if isinstance(values, Range):
                yield Problem(
                    ("parameters", key), "a grid needs a list of values; for a range use random"
                )
