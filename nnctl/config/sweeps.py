"""Schema of a sweep file: the keys to vary, their values, and the search method.

The keys are those of Weights & Biases' sweep files, so that such files can be used. Settings that
nnctl does not support, or that would mean something else, are errors with an explanation.
"""

from __future__ import annotations

import math
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
from nnctl.config.reader import Document, KeyPath
from nnctl.config.schema import MAX_WHOLE, Section

_BOUNDED = {
    "uniform": "uniform from min to max",
    "int_uniform": "uniform whole numbers",
    "log_uniform_values": "uniform in the logarithm",
    "log_uniform": "the same, but min and max are the natural logarithms of the bounds",
}
_GAUSSIAN = {
    "normal": "Gaussian with mean mu and standard deviation sigma",
    "log_normal": "exponential of such a Gaussian",
}
_IGNORED = ("name", "description", "project", "entity", "program")
"""Keys of Weights & Biases that nnctl ignores."""
_HUGE = 2**53  # a float cannot represent all integers above this


class Range(Section):
    """A range or a distribution of numbers."""

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

    distribution: Literal[
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
    ] = Field(
        description="; ".join(f"{name}: {how}" for name, how in (_BOUNDED | _GAUSSIAN).items())
        + "; q_...: the same, rounded to multiples of q"
    )
    min: float | None = None
    """Lower bound."""
    max: float | None = None
    """Upper bound."""
    mu: float = Field(default=0.0, ge=-_HUGE, le=_HUGE)
    """normal and log_normal only: mean."""
    sigma: float = Field(default=1.0, gt=0, le=_HUGE)
    """normal and log_normal only: standard deviation."""
    q: float = Field(default=1.0, gt=0)
    """q_ distributions only: step between values."""

    @property
    def shape(self) -> str:
        """Name of the distribution without the prefix ``q_``."""
        return self.distribution.removeprefix("q_")

    @property
    def is_quantized(self) -> bool:
        """Whether values are rounded to multiples of q."""
        return self.distribution.startswith("q_")

    @property
    def is_bounded(self) -> bool:
        """Whether the range has bounds: it is not a Gaussian."""
        return self.shape in _BOUNDED

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound of a bounded range."""
        assert self.min is not None
        assert self.max is not None
        return self.min, self.max

    @model_validator(mode="before")
    @classmethod
    def _infer_distribution(cls, data: Any) -> Any:
        """Add the distribution if only bounds are given: int_uniform for integers, else uniform."""
        if isinstance(data, Mapping) and "distribution" not in data and {"min", "max"} & {*data}:
            whole = all(type(data.get(bound)) is int for bound in ("min", "max"))
            return {**data, "distribution": "int_uniform" if whole else "uniform"}
        return data

    @model_validator(mode="after")
    def _check(self) -> Range:
        configured = self.model_fields_set
        for name in ("mu", "sigma") if self.is_bounded else ("min", "max"):
            if name in configured:
                raise ValueError(f"{self.distribution} does not use {name}; remove it")
        if "q" in configured and not self.is_quantized:
            quantized = "uniform" if self.shape == "int_uniform" else self.shape
            raise ValueError(f"{self.distribution} does not use q; use q_{quantized}")
        if self.is_bounded:
            self._check_bounds()
        return self

    def _check_bounds(self) -> None:
        missing = [name for name in ("min", "max") if getattr(self, name) is None]
        if missing:
            names = " and ".join(f"'{name}'" for name in missing)
            raise ValueError(f"{names} {'is' if len(missing) == 1 else 'are'} missing")
        low, high = self.bounds
        largest = max(abs(low), abs(high))
        if low >= high:
            raise ValueError(f"min ({low:g}) must be below max ({high:g})")
        if self.shape == "log_uniform_values" and low <= 0:
            raise ValueError("min must be above 0 for a logarithm")
        if self.shape == "log_uniform" and largest > 700:
            raise ValueError(
                "min and max of log_uniform are natural logarithms, between -700 and 700; to give "
                "the values themselves, use log_uniform_values"
            )
        if largest > _HUGE:
            raise ValueError("min and max must be between -2^53 and 2^53")
        if self.shape == "int_uniform" and not (low.is_integer() and high.is_integer()):
            raise ValueError("min and max must be whole numbers")


def with_nested(value: Any) -> Any:
    """Return a value with each mapping that describes a choice or a range turned into that.

    Raises
    ------
    ValidationError
        A mapping is not a valid choice or range.
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
"""A value of a choice; it may contain more choices and ranges."""


class Choice(Section):
    """A list of values to choose from; a value may contain more choices and ranges."""

    distribution: Literal["categorical", "categorical_w_probabilities"] = "categorical"
    """Distribution of a choice."""
    values: list[Value] = Field(min_length=1)
    """Values to choose from."""
    probabilities: list[Annotated[float, Field(ge=0)]] | None = None
    """Probability of each value, for method random only; default: equal."""

    @model_validator(mode="after")
    def _check_probabilities(self) -> Choice:
        if self.probabilities is not None:
            if len(self.probabilities) != len(self.values):
                raise ValueError(
                    f"expected {len(self.values)} probabilities, one per value, got "
                    f"{len(self.probabilities)}"
                )
            if abs(sum(self.probabilities) - 1) > 1e-6:
                raise ValueError(f"probabilities must sum to 1, got {sum(self.probabilities):g}")
        return self


class Constant(Section):
    """A single value, which is not varied."""

    distribution: Literal["constant"] = "constant"
    """Distribution of a constant."""
    value: Any
    """Value of the key."""


class Group(Section):
    """Parameters of a section: their dotted keys begin with its key."""

    parameters: dict[str, Parameter] = Field(min_length=1)
    """Parameters by key."""


def _kind(value: Any) -> str:
    """Return the class name of a parameter given as plain values, or "a list"."""
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


MetricName = Literal["val_accuracy", "val_loss", "train_loss"]


class Metric(Section):
    """The metric to rank trials by, in the form of Weights & Biases."""

    name: MetricName
    """Name of the metric."""
    goal: Literal["maximize", "minimize"] = "minimize"
    """maximize for val_accuracy, minimize for a loss."""

    @model_validator(mode="after")
    def _check_goal(self) -> Metric:
        goal = "maximize" if self.name == "val_accuracy" else "minimize"
        if self.goal != goal:
            default = "" if "goal" in self.model_fields_set else " (the default)"
            raise ValueError(f"use goal: {goal} for {self.name}, not {self.goal}{default}")
        return self


def _no_strict(strict: bool) -> bool:
    if strict:
        raise ValueError("nnctl does not support strict hyperband; remove this key")
    return strict


class EarlyTermination(Section):
    """Ends a trial early if it is worse than other trials after the same number of epochs."""

    type: Literal["median", "successive_halving", "hyperband"]
    """median: end a trial that is worse than the median of the others; successive_halving (or
    hyperband): at the epochs min_iter, min_iter * eta, min_iter * eta^2, ... keep the best 1/eta of
    the trials."""
    min_iter: int | None = Field(default=None, ge=1)
    """First epoch after which a trial may end."""
    eta: int = Field(default=3, ge=2)
    """successive_halving only: one of eta trials continues."""
    max_iter: int | None = Field(default=None, ge=1)
    """hyperband only, instead of min_iter: last epoch."""
    s: int | None = Field(default=None, ge=1, le=100)
    """hyperband only, with max_iter: number of comparisons."""
    strict: Annotated[bool, AfterValidator(_no_strict)] = False
    """hyperband only: must be false."""

    @property
    def first_epoch(self) -> int:
        """First epoch after which a trial may end."""
        if self.max_iter is not None and self.s is not None:
            return int(max(self.max_iter // self.eta**self.s, 1))
        return self.min_iter or 1

    @model_validator(mode="after")
    def _check(self) -> EarlyTermination:
        configured = self.model_fields_set
        if self.type != "hyperband" and (unknown := configured & {"max_iter", "s", "strict"}):
            raise ValueError(f"{self.type} does not use {', '.join(sorted(unknown))}; remove it")
        if self.type == "median" and "eta" in configured:
            raise ValueError("median does not use eta; remove it")
        begin = {name for name in ("min_iter", "max_iter", "s") if getattr(self, name) is not None}
        if self.type == "hyperband" and begin not in ({"min_iter"}, {"max_iter", "s"}):
            raise ValueError("hyperband needs either min_iter, or max_iter and s")
        return self


def _no_bayes(method: Any) -> Any:
    if method == "bayes":
        raise ValueError(
            "nnctl does not support bayes (a Gaussian process); use tpe, which also learns from "
            "earlier trials"
        )
    return method


def _allow_ignored(schema: dict[str, Any]) -> None:
    schema["properties"] |= {key: {"description": "Ignored"} for key in _IGNORED}


class SweepConfig(Section):
    """A sweep: trains one configuration many times, with different values for some of its keys."""

    model_config = ConfigDict(json_schema_extra=_allow_ignored)

    base: str | None = Field(default=None, min_length=1)
    """Path of the training configuration, relative to this file."""
    method: Annotated[Literal["grid", "random", "tpe"], BeforeValidator(_no_bayes)] = "grid"
    """grid: every combination of the values; random: combinations drawn at random; tpe:
    combinations that earlier trials suggest are good (needs Optuna)."""
    parameters: dict[str, Parameter] = Field(
        min_length=1, description="Parameters by dotted key: a list of values, a range, ..."
    )
    trials: int | None = Field(default=None, ge=1)
    """Number of combinations to try; of a grid, the first ones."""
    run_cap: int | None = Field(default=None, ge=1)
    """Same as trials."""
    seed: int = Field(default=0, ge=0, le=MAX_WHOLE)
    """Seed of the combinations drawn."""
    seeds: int = Field(default=1, ge=1, le=1000)
    """Number of seeds to train each combination with: training.seed, training.seed + 1, ...;
    combinations are ranked by their mean."""
    folds: int | None = Field(default=None, ge=2, le=1000)
    """Number of folds to train each combination with: each fold of the training set is held out for
    validation once; combinations are ranked by their mean."""
    metric: Annotated[
        Annotated[MetricName, Tag("a name")] | Annotated[Metric, Tag("Metric")],
        Discriminator(lambda value: "Metric" if isinstance(value, dict | Metric) else "a name"),
    ] = "val_accuracy"
    """Metric to rank trials by: val_accuracy, the highest of all epochs; val_loss, the lowest; or
    train_loss, that of the last epoch, which is the default without validation examples."""
    early_terminate: EarlyTermination | None = None
    """Rule to end bad trials early (needs Optuna)."""

    @property
    def ranked_by(self) -> str:
        """Name of the metric."""
        return self.metric.name if isinstance(self.metric, Metric) else self.metric

    @property
    def repeats(self) -> int:
        """Number of trials of each combination."""
        return self.seeds * (self.folds or 1)

    @property
    def most(self) -> int | None:
        """Maximum number of combinations to try."""
        return self.run_cap if self.trials is None else self.trials

    @property
    def space(self) -> dict[str, Choice | Range]:
        """Choice or range of each dotted key."""
        return {".".join(names): drawn_from for names, drawn_from in _leaves(self.parameters)}

    @model_validator(mode="before")
    @classmethod
    def _drop_ignored(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if key not in _IGNORED}


def _leaves(
    parameters: Mapping[str, Any], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Choice | Range]]:
    """Yield each key, as a tuple with the keys of its groups, and its choice or range."""
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
    """Yield all choices and ranges in a value, including nested ones."""
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
    """Return the checked sweep of a document.

    Raises
    ------
    ConfigError
        The sweep file is invalid. Lists every mistake with its position.
    """
    return validate(SweepConfig, document, (check_method, check_exponents))


def check_exponents(sweep: SweepConfig) -> Iterator[Problem]:
    """Check that the bounds of log_uniform are not the values themselves, such as 1e-4 and 0.1.

    Plans in the journals of older sweeps are not checked.
    """
    for names, parameter in _leaves(sweep.parameters):
        for limits in choices_within(parameter):
            if isinstance(limits, Range) and limits.shape == "log_uniform":
                low, high = limits.bounds
                if 0 < low < 0.1:  # an exponent this small would be written as 0
                    yield Problem(
                        tuple(step for name in names for step in ("parameters", name)),
                        f"min and max of {limits.distribution} are natural logarithms, so values "
                        f"would be from {math.exp(low):.4g} to {math.exp(high):.4g}; for values "
                        f"from {low:g} to {high:g}, use {limits.distribution}_values",
                    )


def check_method(sweep: SweepConfig) -> Iterator[Problem]:
    """Check that the method, the parameters and the other settings fit together."""
    if sweep.trials is not None and sweep.run_cap is not None:
        yield Problem(("run_cap",), "run_cap and trials mean the same; remove one of them")
    if sweep.method != "grid" and sweep.most is None:
        yield Problem(
            ("method",),
            f"{sweep.method} needs 'trials', the number of combinations, or --trials N",
            related=(("trials",), ("run_cap",)),
        )
    if sweep.early_terminate and sweep.repeats > 1:
        name = "seeds" if sweep.seeds > 1 else "folds"
        yield Problem(
            ("early_terminate",),
            f"early_terminate cannot be used with {name}: the mean over the {name} is known only "
            "at the end; remove one of them",
            related=((name,),),
        )
    yield from _check_parameters(sweep)


def _check_parameters(sweep: SweepConfig) -> Iterator[Problem]:
    """Check each parameter against the method, the seeds and the other parameters."""
    known: set[str] = set()
    for names, drawn_from in _leaves(sweep.parameters):
        path: KeyPath = tuple(step for name in names for step in ("parameters", name))
        key = ".".join(names)
        if key in known:
            yield Problem(path, f"duplicate parameter {key}; list all its values in one place")
        known.add(key)
        if key == "training.seed" and sweep.seeds > 1 and varies(drawn_from):
            yield Problem(
                path, "seeds also varies training.seed; remove one of them", related=(("seeds",),)
            )
        if sweep.folds and key.startswith(("data.validation", "data.fold")):
            yield Problem(
                path,
                "folds sets the validation examples; remove one of them",
                related=(("folds",),),
            )
        within = list(choices_within(drawn_from))
        if sweep.method == "grid" and any(
            isinstance(choice, Range) and choice.distribution != "int_uniform" for choice in within
        ):
            yield Problem(
                path,
                "method grid needs a list of values or a range of whole numbers; for other ranges "
                "use random or tpe",
                related=(("method",),),
            )
        weighted = any(isinstance(choice, Choice) and choice.probabilities for choice in within)
        if sweep.method != "random" and weighted:
            yield Problem(path, "probabilities need method random", related=(("method",),))


def varies(drawn_from: Choice | Range) -> bool:
    """Check whether a choice or a range has more than one value."""
    return (
        isinstance(drawn_from, Range)
        or len(drawn_from.values) > 1
        or any(varies(choice) for value in drawn_from.values for choice in choices_within(value))
    )
