"""What may be written in a training configuration: each key, its type, bounds, default, meaning.

The checks, the JSON Schema for editors and the resolved ``config.yaml`` of a run all come from the
models below.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from nnctl.config.choices import OneOf
from nnctl.nn.activations import ACTIVATIONS, Activation
from nnctl.nn.initializers import AUTO, INITIALIZERS, Initializer
from nnctl.nn.losses import LOSSES
from nnctl.nn.optimizer import OPTIMIZERS
from nnctl.nn.schedules import SCHEDULES, ConstantSchedule, Schedule

MAX_UNITS = 1_000_000
MAX_WHOLE = 2**63 - 1
"""The largest whole number of a configuration, and of what is read again: NumPy's as well."""


class Section(BaseModel):
    """A mapping in which unknown keys, other types and numbers that are not finite are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class ElasticConfig(Section):
    """A smooth random field of displacements (Simard et al., 2003)."""

    alpha: Annotated[
        float, Field(ge=0, le=1e6, description="The factor on displacements drawn from -1 to 1")
    ] = 34.0
    sigma: Annotated[
        float,
        Field(gt=0.1, le=1e3, description="Standard deviation in pixels of what makes them smooth"),
    ] = 4.0


class AugmentConfig(Section):
    """How training images are deformed, each time anew; amounts are drawn from -limit to limit.

    Eight images that follow each other share what is drawn, but for the noise.
    """

    shift: Annotated[float, Field(ge=0, le=1e3, description="Pixels, along either axis")] = 0.0
    rotate: Annotated[float, Field(ge=0, le=180, description="Degrees, about the middle")] = 0.0
    scale: Annotated[
        float,
        Field(ge=0, le=0.9, description="The share by which an axis is longer or shorter"),
    ] = 0.0
    shear: Annotated[
        float, Field(ge=0, le=80, description="Degrees by which upright lines lean")
    ] = 0.0
    elastic: Annotated[
        ElasticConfig | None, Field(description="Wavy lines: {} is {alpha: 34, sigma: 4}")
    ] = None
    noise: Annotated[
        float,
        Field(ge=0, le=10, description="Standard deviation of noise on pixels, which are 0 to 1"),
    ] = 0.0


class DataConfig(Section):
    """Where the digits come from."""

    dataset: Annotated[
        str,
        Field(
            min_length=1,
            description="mnist, mini (the digits that ship with nnctl), a logic gate (and, or, "
            "nand, xor) or a folder of IDX files",
        ),
    ] = "mnist"
    fallback: Annotated[
        Literal["mini"] | None,
        Field(description="What to train on, with a warning, when the dataset cannot be had"),
    ] = None
    validation: Annotated[
        Annotated[int, Field(ge=0, le=MAX_WHOLE)] | Literal["auto"],
        Field(
            description="Examples held out from the end of the training set; "
            "auto is a sixth of it (MNIST: 10,000 of 60,000)"
        ),
    ] = "auto"
    subset: Annotated[
        Annotated[int, Field(ge=1, le=MAX_WHOLE)] | None,
        Field(description="Train on so many examples; see selection"),
    ] = None
    selection: Annotated[
        Literal["balanced", "first"],
        Field(
            description="Of a subset: balanced has as many of each class, chosen by the seed; "
            "first are those at the beginning of the file"
        ),
    ] = "balanced"
    positive_digit: Annotated[
        Annotated[int, Field(ge=0, le=9)] | None,
        Field(description="Ask of each image only whether it is this digit: 1 is yes, 0 is no"),
    ] = None
    augment: Annotated[
        AugmentConfig | None,
        Field(description="Deform the images that are trained on; never those that are measured"),
    ] = None


class InitConfig(Section):
    """How the parameters of a layer begin."""

    weights: Annotated[
        Initializer,
        OneOf("initializer", INITIALIZERS),
        Field(description="auto: He for the relu family, LeCun for selu, Glorot for the rest"),
    ] = AUTO
    biases: Annotated[
        Initializer, OneOf("initializer", INITIALIZERS), Field(description="auto is zeros")
    ] = AUTO

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Tell editors of the short form as well: an initializer is one of the weights."""
        long_form = handler(schema)
        weights = handler.resolve_ref_schema(long_form)["properties"]["weights"]
        return {"anyOf": [{"anyOf": weights["anyOf"]}, long_form]}

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        """Take a name, or a mapping with a name, for the initializer of the weights."""
        if isinstance(value, str) or (isinstance(value, dict) and "name" in value):
            return {"weights": value}
        return value


class LayerConfig(Section):
    """A fully connected layer."""

    units: Annotated[int, Field(ge=1, le=MAX_UNITS, description="The number of its outputs")]
    activation: Annotated[
        Activation,
        OneOf("activation", ACTIVATIONS),
        Field(description="A name, or {name: ..., PARAMETER: ...}"),
    ]
    init: Annotated[
        InitConfig | None, Field(description="How its parameters begin, if unlike the network's")
    ] = None
    dropout: Annotated[
        float,
        Field(
            ge=0,
            le=0.99,
            description="The share of its outputs that is left out in training, others each time; "
            "hidden layers only",
        ),
    ] = 0.0


class NetworkConfig(Section):
    """The layers, from the first hidden one to the output; the dataset gives the inputs."""

    layers: Annotated[
        list[LayerConfig], Field(min_length=1, max_length=1000, description="First to last")
    ]
    init: Annotated[InitConfig, Field(description="How the parameters of every layer begin")] = (
        InitConfig()
    )
    input_dropout: Annotated[
        float,
        Field(ge=0, le=0.99, description="The share of the inputs that is left out in training"),
    ] = 0.0


class OptimizerConfig(Section):
    """The rule of a step."""

    name: Annotated[
        Literal[tuple(OPTIMIZERS)],  # type: ignore[valid-type]
        Field(description="sgd: stochastic gradient descent; adagrad; adam"),
    ] = "sgd"
    learning_rate: Annotated[float, Field(gt=0, description="The step along the mean gradient")]
    momentum: Annotated[
        float,
        Field(ge=0, lt=1, description="Of sgd: the share of the last step that is taken again"),
    ] = 0.0
    nesterov: Annotated[bool, Field(description="Of sgd: look ahead along the momentum")] = False
    weight_decay: Annotated[
        float,
        Field(
            ge=0,
            description="Each step shrinks the weights, not the biases, by "
            "1 - learning_rate * weight_decay; Nielsen's lambda / n",
        ),
    ] = 0.0
    clip_norm: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Field(description="The length that a step's mean gradient has at most"),
    ] = None
    max_norm: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Field(description="The length that the incoming weights of a unit have at most"),
    ] = None
    schedule: Annotated[
        Schedule,
        OneOf("schedule", SCHEDULES),
        Field(description="How the learning rate changes over the epochs"),
    ] = ConstantSchedule()


class EarlyStoppingConfig(Section):
    """When to stop before the last epoch."""

    patience: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_WHOLE,
            description="Stop after so many epochs in a row without an improvement",
        ),
    ]
    metric: Annotated[
        Literal["val_accuracy", "val_loss"], Field(description="What has to improve")
    ] = "val_accuracy"


class TrainingConfig(Section):
    """How long to train, and on how much at a time."""

    epochs: Annotated[
        Annotated[int, Field(ge=1, le=MAX_WHOLE)] | Literal["auto"],
        Field(description="Passes over the training set; auto: as many as the steps need, or 30"),
    ] = "auto"
    steps: Annotated[
        Annotated[int, Field(ge=1, le=MAX_WHOLE)] | None,
        Field(description="End after so many steps, if that is before the last epoch"),
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=MAX_WHOLE, description="Examples a step")] = 32
    sampling: Annotated[
        Literal["shuffle", "with_replacement"],
        Field(
            description="shuffle takes each example once an epoch; with_replacement draws from all "
            "each time, as Deep Learning from Scratch does"
        ),
    ] = "shuffle"
    seed: Annotated[
        int,
        Field(
            ge=0,
            le=MAX_WHOLE,
            description="Of all random numbers: the first weights, shuffling, the subset, dropout "
            "and deformed images",
        ),
    ] = 0
    label_smoothing: Annotated[
        float,
        Field(ge=0, lt=1, description="The share of each target that is spread over all classes"),
    ] = 0.0
    adversarial: Annotated[
        Annotated[float, Field(gt=0, le=1000)] | None,
        Field(
            description="How far each image is moved before a step, to where its loss grows the "
            "most: adversarial training. 1 is as far as a pixel is from black to white, and "
            "pixels may go beyond both"
        ),
    ] = None
    average: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | None,
        Field(
            description="Decay a step, such as 0.999, of an exponential moving average (EMA) of "
            "the weights, brought up to date every eighth step; it is then what is validated, and "
            "what is evaluated. The first n steps count with n / (n + 10)"
        ),
    ] = None
    early_stopping: Annotated[
        EarlyStoppingConfig | None, Field(description="null trains all the epochs")
    ] = None
    threads: Annotated[
        Annotated[int, Field(ge=1, le=1024)] | Literal["auto"],
        Field(
            description="That share a step, no more than a batch has examples; auto is as many as "
            "its size is worth"
        ),
    ] = "auto"


class Config(Section):
    """A training configuration of nnctl."""

    data: Annotated[DataConfig, Field(description="Where the digits come from")] = DataConfig()
    network: Annotated[NetworkConfig, Field(description="The layers")]
    loss: Annotated[
        Literal[tuple(LOSSES)],  # type: ignore[valid-type]
        Field(
            description="cross_entropy (over softmax, or over sigmoids) or quadratic, "
            "half the squared distance"
        ),
    ] = "cross_entropy"
    optimizer: Annotated[OptimizerConfig, Field(description="The rule of a step")]
    training: Annotated[TrainingConfig, Field(description="How long, on how much at a time")] = (
        TrainingConfig()
    )


def json_schema(model: type[Section] = Config) -> dict[str, Any]:
    """Return the JSON Schema of what may be written in a file, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="validation"),
    }
