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
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    model_validator,
)

from nnctl.config.checks import Problem
from nnctl.config.loader import validate
from nnctl.config.reader import Document, Path_
from nnctl.config.schema import MAX_WHOLE, Section

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
_ABSENT = ("beta", "q_beta", "inv_log_uniform", "inv_log_uniform_values")
_READ_OVER = ("name", "description", "project", "entity", "program")
"""What Weights & Biases needs to know, and nnctl does not."""
_HUGE = 2**53  # whole numbers above it are no floats


def _no_absent(distribution: Any) -> Any:
    if distribution in _ABSENT:
        raise ValueError(f"nnctl has no distribution {distribution}")
    return distribution


class Range(Section):
    """Numbers to draw from."""

    model_config = ConfigDict(
        json_schema_extra={
            "required": [],
            "anyOf": [
                {"required": ["min", "max"]},
                {
                    "required": ["distribution"],
                    "properties": {"distribution": {"pattern": "normal$"}},
                },
            ],
        }
    )

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
        BeforeValidator(_no_absent),
        Field(
            description="; ".join(f"{name}: {how}" for name, how in (_BOUNDED | _GAUSSIAN).items())
            + "; q_: rounded to multiples of q"
        ),
    ]
    min: Annotated[float | None, Field(description="The lower bound")] = None
    max: Annotated[float | None, Field(description="The upper bound")] = None
    mu: Annotated[
        float, Field(ge=-_HUGE, le=_HUGE, description="The mean, of normal and log_normal")
    ] = 0.0
    sigma: Annotated[
        float,
        Field(gt=0, le=_HUGE, description="The standard deviation, of normal and log_normal"),
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
        if isinstance(data, Mapping) and "distribution" not in data and {"min", "max"} & {*data}:
            whole = all(type(data.get(bound)) is int for bound in ("min", "max"))
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
            quantised = "uniform" if self.shape == "int_uniform" else self.shape
            raise ValueError(f"{self.distribution} takes no q; q_{quantised} does")
        if bounded:
            self._check_bounds()
        return self

    def _check_bounds(self) -> None:
        missing = [name for name in ("min", "max") if getattr(self, name) is None]
        if missing:
            names = " and ".join(f"'{name}'" for name in missing)
            raise ValueError(f"{names} {'is' if len(missing) == 1 else 'are'} missing")
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
        if max(abs(low), abs(high)) > _HUGE:
            raise ValueError("min and max must be between -2^53 and 2^53")
        if self.shape == "int_uniform" and not (low.is_integer() and high.is_integer()):
            raise ValueError("min and max must be whole numbers")


def with_nested(value: Any) -> Any:
    """Return a value in which mappings that describe a choice or a range have become one.

    Raises
    ------
    ValidationError
        Some of them are not right.
    """
    match value:
        case {"distribution": _} | {"values": [*_]} | {"min": _, "max": _}:
            return _PARAMETER.validate_python(value)
        case dict():
            return _MAPPING.validate_python(value)
        case list():
            return _LIST.validate_python(value)
    return value


Value = Annotated[Any, AfterValidator(with_nested)]
"""One of the values to choose from, with whatever else is to be chosen within it."""


class Choice(Section):
    """Values to choose from; a value may hold choices and ranges of its own."""

    distribution: Annotated[
        Literal["categorical", "categorical_w_probabilities"], Field(description="A choice")
    ] = "categorical"
    values: Annotated[list[Value], Field(min_length=1, description="The values")]
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
    """Tell which of the ways to write a parameter is meant: the name of its class, or a list."""
    match value:
        case Range() | Choice() | Constant() | Group():
            return type(value).__name__
        case {"values": _} | {"distribution": "categorical" | "categorical_w_probabilities"}:
            return "Choice"
        case {"value": _} | {"distribution": "constant"}:
            return "Constant"
        case {"parameters": _}:
            return "Group"
        case dict():
            return "Range"
    return "a list"


Parameter = Annotated[
    Annotated[list[Value], Field(min_length=1), Tag("a list")]
    | Annotated[Range, Tag("Range")]
    | Annotated[Choice, Tag("Choice")]
    | Annotated[Constant, Tag("Constant")]
    | Annotated[Group, Tag("Group")],
    Discriminator(_kind),
]

_PARAMETER = TypeAdapter[Any](Parameter)
_MAPPING = TypeAdapter[Any](dict[str, Value])
_LIST = TypeAdapter[Any](list[Value])


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


def _no_strict(strict: bool) -> bool:
    if strict:
        raise ValueError("nnctl has no strict variant of hyperband; leave this out")
    return strict


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
        int | None,
        Field(ge=1, le=100, description="Of hyperband, with max_iter: how often to look"),
    ] = None
    strict: Annotated[
        bool, AfterValidator(_no_strict), Field(description="Of hyperband: false")
    ] = False

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
        begin = {name for name in ("min_iter", "max_iter", "s") if getattr(self, name) is not None}
        if self.type == "hyperband" and begin not in ({"min_iter"}, {"max_iter", "s"}):
            raise ValueError("hyperband needs either min_iter, or max_iter and s")
        return self


def _no_bayes(method: Any) -> Any:
    if method == "bayes":
        raise ValueError(
            "bayes is a search by a Gaussian process, which nnctl does not have; tpe also learns "
            "from the trials before"
        )
    return method


def _allow_read_over(schema: dict[str, Any]) -> None:
    schema["properties"] |= {key: {"description": "Read over"} for key in _READ_OVER}


class SweepConfig(Section):
    """A sweep: many trainings of one configuration, with some of its keys varied."""

    model_config = ConfigDict(json_schema_extra=_allow_read_over)

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
    seed: Annotated[int, Field(ge=0, le=MAX_WHOLE, description="Of the points drawn")] = 0
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
        Annotated[Literal["val_accuracy", "val_loss"], Tag("a name")]
        | Annotated[Metric, Tag("Metric")],
        Discriminator(lambda given: "Metric" if isinstance(given, dict | Metric) else "a name"),
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
        return {".".join(names): drawn_from for names, drawn_from in _leaves(self.parameters)}

    @model_validator(mode="before")
    @classmethod
    def _read_over(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if key not in _READ_OVER}


def _leaves(
    parameters: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Choice | Range]]:
    """Yield what each key is drawn from, with the names of the groups that it is in before it."""
    for key, parameter in parameters.items():
        names = (*above, key)
        match parameter:
            case Group():
                yield from _leaves(parameter.parameters, names)
            case list():
                yield names, Choice.model_construct(values=parameter)
            case Constant():
                yield names, Choice.model_construct(values=[parameter.value])
            case _:
                yield names, parameter


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
            f"{sweep.method} needs 'trials', the number of points to draw, or --trials N",
            about=(("trials",), ("run_cap",)),
        )
    if sweep.early_terminate and sweep.seeds > 1:
        yield Problem(
            ("early_terminate",),
            "with several seeds a point is judged by their mean, which is known at the end only; "
            "leave this or seeds out",
            about=(("seeds",),),
        )
    yield from _check_parameters(sweep)


def _check_parameters(sweep: SweepConfig) -> Iterator[Problem]:
    """Check each parameter against the method, the seeds and the other parameters."""
    known: set[str] = set()
    for names, drawn_from in _leaves(sweep.parameters):
        path: Path_ = tuple(step for name in names for step in ("parameters", name))
        key = ".".join(names)
        if key in known:
            yield Problem(path, f"{key} is there twice; give all its values at once")
        known.add(key)
        if key == "training.seed" and sweep.seeds > 1 and varies(drawn_from):
            yield Problem(
                path, "seeds varies this as well; leave one of them out", about=(("seeds",),)
            )
        within = list(choices_within(drawn_from))
        if sweep.method == "grid" and any(
            isinstance(choice, Range) and choice.distribution != "int_uniform" for choice in within
        ):
            yield Problem(
                path,
                "a grid needs values, or a range of whole numbers; for other ranges use random "
                "or tpe",
                about=(("method",),),
            )
        weighted = any(isinstance(choice, Choice) and choice.probabilities for choice in within)
        if sweep.method != "random" and weighted:
            yield Problem(path, "probabilities are for random alone", about=(("method",),))


def varies(drawn_from: Choice | Range) -> bool:
    """Tell whether there is more than one value."""
    return (
        isinstance(drawn_from, Range)
        or len(drawn_from.values) > 1
        or any(varies(choice) for value in drawn_from.values for choice in choices_within(value))
    )
