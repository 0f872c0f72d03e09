"""What may be written in a sweep file: which keys to vary, over which values, in which way.

The names are those of Weights & Biases' sweep files, so that these can be read where they mean the
same; what means something else there is a mistake that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from nnctl.config.checks import Problem
from nnctl.config.loader import validate
from nnctl.config.reader import Document
from nnctl.config.schema import MAX_SEED, Section

_BOUNDED = {
    "uniform": "evenly",
    "int_uniform": "whole numbers, evenly",
    "log_uniform_values": "evenly in the logarithm",
    "log_uniform": "evenly in the logarithm, whose bounds min and max are",
}
_GAUSSIAN = {
    "normal": "by a Gaussian of mean mu and standard deviation sigma",
    "log_normal": "by the exponential of such a Gaussian",
}
_READ_OVER = ("name", "description", "project", "entity", "program")
"""What Weights & Biases needs to know, and nnctl does not."""


class Range(Section):
    """Numbers to draw from."""

    distribution: Annotated[
        Literal[
            "uniform",
            "int_uniform",
            "log_uniform_values",
            "log_uniform",
            "normal",
            "log_normal",
            "q_uniform",
            "q_log_uniform_values",
            "q_log_uniform",
            "q_normal",
            "q_log_normal",
        ],
        Field(
            description="; ".join(f"{name}: {how}" for name, how in (_BOUNDED | _GAUSSIAN).items())
            + "; q_: rounded to multiples of q"
        ),
    ]
    min: Annotated[float | None, Field(description="The lower bound")] = None
    max: Annotated[float | None, Field(description="The upper bound")] = None
    mu: Annotated[float, Field(description="The mean, of normal and log_normal")] = 0.0
    sigma: Annotated[
        float, Field(gt=0, description="The standard deviation, of normal and log_normal")
    ] = 1.0
    q: Annotated[float, Field(gt=0, description="The quantum, of the distributions q_")] = 1.0

    @property
    def shape(self) -> str:
        """The distribution before it is quantised."""
        return self.distribution.removeprefix("q_")

    @property
    def is_quantised(self) -> bool:
        """Whether it is rounded to multiples of q."""
        return self.distribution.startswith("q_")

    @property
    def bounds(self) -> tuple[float, float]:
        """The lower and the upper bound, of a range that has them."""
        assert self.min is not None
        assert self.max is not None
        return self.min, self.max

    @model_validator(mode="before")
    @classmethod
    def _infer_distribution(cls, data: Any) -> Any:
        """Take bounds without a distribution for an even one, of whole numbers if they are."""
        if isinstance(data, Mapping) and "distribution" not in data and {"min", "max"} <= {*data}:
            whole = all(type(data[bound]) is int for bound in ("min", "max"))
            return {**data, "distribution": "int_uniform" if whole else "uniform"}
        return data

    @model_validator(mode="after")
    def _check(self) -> Range:
        given = self.model_fields_set
        bounded = self.shape in _BOUNDED
        for name in ("mu", "sigma") if bounded else ("min", "max"):
            if name in given:
                raise ValueError(f"{self.distribution} takes no {name}")
        if "q" in given and not self.is_quantised:
            raise ValueError(f"{self.distribution} takes no q; q_{self.distribution} does")
        if bounded:
            self._check_bounds()
        return self

    def _check_bounds(self) -> None:
        missing = [name for name in ("min", "max") if getattr(self, name) is None]
        if missing:
            raise ValueError(" and ".join(f"'{name}'" for name in missing) + " is missing")
        low, high = self.bounds
        if low >= high:
            raise ValueError(f"min ({low:g}) must be below max ({high:g})")
        if self.shape == "log_uniform_values" and low <= 0:
            raise ValueError("min must be above 0, as its logarithm is taken")
        if self.shape == "log_uniform" and max(abs(low), abs(high)) > 700:
            raise ValueError(
                "min and max are exponents of e here, between -700 and 700; for the values "
                "themselves use log_uniform_values"
            )
        if max(abs(low), abs(high)) > 2**53:
            raise ValueError("min and max must be between -2^53 and 2^53")
        if self.shape == "int_uniform" and not (low.is_integer() and high.is_integer()):
            raise ValueError("min and max must be whole numbers")


class Choice(Section):
    """Values to choose from; a value may hold choices and ranges of its own."""

    distribution: Annotated[
        Literal["categorical", "categorical_w_probabilities"], Field(description="A choice")
    ] = "categorical"
    values: Annotated[
        list[Annotated[Any, AfterValidator(lambda value: with_nested(value))]],
        Field(min_length=1, description="The values"),
    ]
    probabilities: Annotated[
        list[Annotated[float, Field(ge=0)]] | None,
        Field(description="One for each value, for a random sweep; equal if not given"),
    ] = None

    @model_validator(mode="after")
    def _check_probabilities(self) -> Choice:
        if self.probabilities is not None:
            if len(self.probabilities) != len(self.values):
                raise ValueError(
                    f"there are {len(self.values)} values, but {len(self.probabilities)} "
                    "probabilities"
                )
            if abs(sum(self.probabilities) - 1) > 1e-6:
                raise ValueError(f"the probabilities add up to {sum(self.probabilities):g}, not 1")
        return self


class Constant(Section):
    """One value, which is not varied."""

    distribution: Annotated[Literal["constant"], Field(description="A constant")] = "constant"
    value: Annotated[Any, Field(description="The value")]


class Group(Section):
    """Parameters below a key: their dotted keys go on from it."""

    parameters: Annotated[dict[str, Parameter], Field(min_length=1, description="By key")]


def _kind(value: Any) -> str:
    """Tell which of the ways to write a parameter is meant."""
    match value:
        case Range():
            return "a range"
        case Choice() | {"values": _}:
            return "a choice"
        case Constant() | {"value": _}:
            return "a constant"
        case Group() | {"parameters": _}:
            return "a group"
        case dict():
            return "a range"
    return "a list"


Parameter = Annotated[
    Annotated[
        list[Annotated[Any, AfterValidator(lambda value: with_nested(value))]],
        Field(min_length=1),
        Tag("a list"),
    ]
    | Annotated[Range, Tag("a range")]
    | Annotated[Choice, Tag("a choice")]
    | Annotated[Constant, Tag("a constant")]
    | Annotated[Group, Tag("a group")],
    Discriminator(_kind),
]


def with_nested(value: Any) -> Any:
    """Return a value in which mappings that describe a choice or a range have become one.

    Raises
    ------
    ValueError
        One of them is not right.
    """
    match value:
        case {"distribution": _} | {"values": [*_]}:
            model = Choice if "values" in value else Range
            try:
                return model.model_validate(value)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise ValueError(f"{where}{': ' * bool(where)}{first['msg']}") from None
        case dict():
            return {key: with_nested(below) for key, below in value.items()}
        case list():
            return [with_nested(item) for item in value]
    return value


class Metric(Section):
    """What the trials are ranked by, as Weights & Biases writes it."""

    name: Annotated[Literal["val_accuracy", "val_loss"], Field(description="Its name")]
    goal: Annotated[
        Literal["maximize", "minimize"],
        Field(description="Maximize val_accuracy, minimize val_loss"),
    ] = "minimize"

    @model_validator(mode="after")
    def _check_goal(self) -> Metric:
        goal = "maximize" if self.name == "val_accuracy" else "minimize"
        if self.goal != goal:
            given = "" if "goal" in self.model_fields_set else " (where no goal is given: minimize)"
            raise ValueError(f"the goal for {self.name} is to {goal} it, not to {self.goal}{given}")
        return self


class EarlyTermination(Section):
    """When to end a trial that does worse than others did after as many epochs."""

    type: Annotated[
        Literal["median", "successive_halving", "hyperband"],
        Field(
            description="median: it is below the median of the others; successive_halving "
            "(hyperband is another name): it is not among the best 1/eta of those that came "
            "to epoch min_iter, min_iter * eta, min_iter * eta^2, ..."
        ),
    ]
    min_iter: Annotated[
        int | None, Field(ge=1, description="The first epoch after which a trial may be ended")
    ] = None
    eta: Annotated[
        int, Field(ge=2, description="Of successive_halving: one of so many goes on")
    ] = 3
    max_iter: Annotated[
        int | None, Field(ge=1, description="Of hyperband, instead of min_iter: the last epoch")
    ] = None
    s: Annotated[
        int | None, Field(ge=1, description="Of hyperband, with max_iter: how often to look")
    ] = None
    strict: Annotated[Literal[False], Field(description="Of hyperband")] = False

    @property
    def first_epoch(self) -> int:
        """The first epoch after which a trial may be ended."""
        if self.max_iter is not None and self.s is not None:
            return int(max(self.max_iter // self.eta**self.s, 1))
        return self.min_iter or 1

    @model_validator(mode="after")
    def _check(self) -> EarlyTermination:
        given = self.model_fields_set
        if self.type != "hyperband" and (unknown := given & {"max_iter", "s", "strict"}):
            raise ValueError(f"{self.type} takes no {', '.join(sorted(unknown))}")
        if self.type == "median" and "eta" in given:
            raise ValueError("median takes no eta")
        both = self.max_iter is not None and self.s is not None
        if self.type == "hyperband" and (self.min_iter is not None) == both:
            raise ValueError("hyperband needs either min_iter, or max_iter and s")
        return self


def _no_bayes(method: Any) -> Any:
    if method == "bayes":
        raise ValueError(
            "bayes is a search by a Gaussian process, which nnctl does not have; tpe also learns "
            "from the trials before"
        )
    return method


class SweepConfig(Section):
    """A sweep: many trainings of one configuration, with some of its keys varied."""

    base: Annotated[
        str | None,
        Field(min_length=1, description="The training configuration, beside this file"),
    ] = None
    method: Annotated[
        Literal["grid", "random", "tpe"],
        BeforeValidator(_no_bayes),
        Field(
            description="grid: every combination of the values; random: points drawn at random; "
            "tpe: points that were likely to be good, judged by the trials before (needs Optuna)"
        ),
    ] = "grid"
    parameters: Annotated[
        dict[str, Parameter],
        Field(min_length=1, description="By dotted key: a list of values, a range, ..."),
    ]
    trials: Annotated[
        int | None, Field(ge=1, description="How many points to try; of a grid, the first")
    ] = None
    run_cap: Annotated[int | None, Field(ge=1, description="The same as trials")] = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED, description="Of the points drawn")] = 0
    seeds: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            description="Train each point so many times, with training.seed, training.seed + 1, "
            "...; points are then ranked by their mean",
        ),
    ] = 1
    metric: Annotated[
        Literal["val_accuracy", "val_loss"] | Metric,
        Field(description="What the trials are ranked by"),
    ] = "val_accuracy"
    early_terminate: Annotated[
        EarlyTermination | None,
        Field(description="When to end a trial early that does badly (needs Optuna)"),
    ] = None

    @property
    def ranked_by(self) -> str:
        """The name of the metric."""
        return self.metric.name if isinstance(self.metric, Metric) else self.metric

    @property
    def most(self) -> int | None:
        """How many points to try."""
        return self.run_cap if self.trials is None else self.trials

    @property
    def space(self) -> dict[str, Choice | Range]:
        """What each dotted key is drawn from."""
        return dict(_flat(self.parameters))

    @model_validator(mode="before")
    @classmethod
    def _read_over(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if key not in _READ_OVER}


def _flat(parameters: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Choice | Range]]:
    """Yield what each dotted key is drawn from."""
    for key, parameter in parameters.items():
        dotted = f"{above}{key}"
        match parameter:
            case Group():
                yield from _flat(parameter.parameters, f"{dotted}.")
            case list():
                yield dotted, Choice.model_construct(values=parameter)
            case Constant():
                yield dotted, Choice.model_construct(values=[parameter.value])
            case _:
                yield dotted, parameter


def choices_within(value: Any) -> Iterator[Choice | Range]:
    """Yield a choice or a range, and those within its values."""
    match value:
        case Range():
            yield value
        case Choice():
            yield value
            for below in value.values:
                yield from choices_within(below)
        case dict():
            for below in value.values():
                yield from choices_within(below)
        case list():
            for item in value:
                yield from choices_within(item)


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
    if sweep.trials is not None and sweep.run_cap is not None:
        yield Problem(("run_cap",), "this is the same as trials; leave one of them out")
    if sweep.method != "grid" and sweep.most is None:
        yield Problem(
            ("method",),
            f"{sweep.method} needs 'trials', the number of points to draw",
            about=(("trials",), ("run_cap",)),
        )
    if sweep.early_terminate and sweep.seeds > 1:
        yield Problem(
            ("early_terminate",),
            "with several seeds a point is judged by their mean, which is known at the end only; "
            "leave this or seeds out",
            about=(("seeds",),),
        )
    for key, parameter in sweep.parameters.items():
        within = [choice for _, top in _flat({key: parameter}) for choice in choices_within(top)]
        if sweep.method == "grid" and any(isinstance(choice, Range) for choice in within):
            yield Problem(
                ("parameters", key),
                "a grid needs a list of values; for a range use random or tpe",
                about=(("method",),),
            )
        weighted = any(isinstance(choice, Choice) and choice.probabilities for choice in within)
        if sweep.method != "random" and weighted:
            yield Problem(
                ("parameters", key), "probabilities are for random alone", about=(("method",),)
            )
