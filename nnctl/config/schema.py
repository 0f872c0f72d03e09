"""Schema of a training configuration: the type, bounds, default and meaning of each key.

The models below check configurations; they also give the JSON Schema for editors, the reference in
the documentation and the ``config.yaml`` of a run.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema
from pydantic_core.core_schema import ModelSchema

from nnctl.config.tables import TableEntry
from nnctl.config.words import find_answer
from nnctl.nn.activations import ACTIVATIONS, Activation
from nnctl.nn.initializers import AUTO, INITIALIZERS, Initializer
from nnctl.nn.losses import LOSSES
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.schedules import SCHEDULES, ConstantSchedule, Schedule
from nnctl.text import TIME_PATTERN, seconds_in, short_value

MAX_UNITS = 1_000_000
MAX_WHOLE = 2**63 - 1
"""Largest integer in a configuration or in a saved file: that of NumPy's int64."""

Whole = Annotated[int, Field(ge=0, le=MAX_WHOLE)]
Count = Annotated[int, Field(ge=1, le=MAX_WHOLE)]
Positive = Annotated[float, Field(gt=0)]
DropoutRate = Annotated[float, Field(ge=0, le=0.99)]
Decay = Annotated[float, Field(ge=0, lt=1)]


def _require_interval(value: Any) -> Any:
    is_time = isinstance(value, str) and re.fullmatch(TIME_PATTERN, value)
    if is_time or (type(value) is int and 1 <= value <= MAX_WHOLE):
        return value
    raise ValueError("expected a whole number of epochs from 1, or a time such as 30s, 10m or 2h")


Interval = Annotated[
    Count | Annotated[str, Field(pattern=TIME_PATTERN)], BeforeValidator(_require_interval)
]


class Section(BaseModel):
    """Base of all models: rejects unknown keys, wrong types and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    written_if_set: ClassVar[frozenset[str]] = frozenset()
    """Keys that are left out with their defaults: runs of earlier versions do not have them."""

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the keys that are written only if they are set."""
        fields = type(self).model_fields
        unset = {key for key in self.written_if_set if getattr(self, key) == fields[key].default}
        return {key: value for key, value in handler(self).items() if key not in unset}


class ElasticConfig(Section):
    """Elastic deformation: a smooth random displacement of each pixel (Simard et al., 2003)."""

    alpha: float = Field(default=34.0, ge=0, le=1e6)
    """Factor for displacements, which are drawn from -1 to 1."""
    sigma: float = Field(default=4.0, gt=0.1, le=1e3)
    """Standard deviation of the Gaussian blur of displacements, in pixels."""


class AugmentConfig(Section):
    """Random deformations of training images, drawn again in each epoch from -limit to limit.

    Eight consecutive images share one deformation; noise is drawn for each image.
    """

    shift: float = Field(default=0.0, ge=0, le=1e3)
    """Shift along each axis, in pixels."""
    rotate: float = Field(default=0.0, ge=0, le=180)
    """Rotation about the center, in degrees."""
    scale: float = Field(default=0.0, ge=0, le=0.9)
    """Relative change of the length of each axis."""
    shear: float = Field(default=0.0, ge=0, le=80)
    """Angle by which vertical lines are tilted, in degrees."""
    elastic: ElasticConfig | None = None
    """Elastic deformation; {} stands for {alpha: 34, sigma: 4}."""
    noise: float = Field(default=0.0, ge=0, le=10)
    """Standard deviation of Gaussian noise; pixels range from 0 to 1."""


class FoldConfig(Section):
    """One of several equal parts of the training set, which is held out for validation."""

    number: Count
    """Number of the fold, from 1."""
    of: Annotated[int, Field(ge=2, le=MAX_WHOLE)]
    """Number of folds."""

    @model_validator(mode="after")
    def _check(self) -> FoldConfig:
        if self.number > self.of:
            raise ValueError(f"fold {self.number} of {self.of} does not exist; the first is 1")
        return self


class DataConfig(Section):
    """The dataset, and the part of it to train on."""

    written_if_set = frozenset({"fold"})

    dataset: str = Field(default="mnist", min_length=1)
    """mnist, fashion-mnist, kmnist, qmnist, emnist-digits, emnist-letters, mini (6,000 digits
    bundled with nnctl), a logic gate (and, or, nand, xor), or a directory or file of images."""
    fallback: Literal["mini"] | None = None
    """Dataset to use, with a warning, if the dataset is not available."""
    validation: Whole | Literal["auto"] = "auto"
    """Number of validation examples, held out from the training set; see split; auto: one sixth of
    it (MNIST: 10,000 of 60,000)."""
    subset: Count | None = None
    """Number of training examples to use (null: all); see selection."""
    split: Literal["last", "stratified"] = "last"
    """Examples that are held out for validation: last (the last ones of the file) or stratified
    (the last ones of each class, with the same share of each)."""
    fold: FoldConfig | None = None
    """Fold to hold out for validation, instead of the number in validation: {number: 1, of: 5} is
    the first of five; the folds are consecutive examples of the file, or of each class with split:
    stratified."""
    selection: Literal["balanced", "first"] = "balanced"
    """Examples of a subset: balanced (equally many per class, drawn with the seed) or first (the
    first ones of the file)."""
    positive_digit: Annotated[int, Field(ge=0, le=9)] | None = None
    """Binary labels: 1 for this digit, 0 for all others."""
    augment: AugmentConfig | None = None
    """Random deformations of training images only."""


class InitConfig(Section):
    """Initial parameters of a layer."""

    weights: Annotated[Initializer, TableEntry("initializer", INITIALIZERS)] = AUTO
    """auto: He for the relu family, LeCun for selu, Glorot for all others."""
    biases: Annotated[Initializer, TableEntry("initializer", INITIALIZERS)] = AUTO
    """auto: zeros."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Add the short form to the JSON Schema: an initializer alone is that of the weights."""
        long_form = handler(schema)
        weights = handler.resolve_ref_schema(long_form)["properties"]["weights"]
        return {"anyOf": [{"anyOf": weights["anyOf"]}, long_form]}

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        """Read a name, or a mapping with a name, as the initializer of the weights."""
        if isinstance(value, str) or (isinstance(value, dict) and "name" in value):
            return {"weights": value}
        if type(value) in (int, float) and value > 0:
            normal = short_value({"name": "normal", "std": value})
            raise ValueError(f"expected a name or a mapping, got {value}; use {normal}")
        return value


class BatchNormConfig(Section):
    """Batch normalization of a hidden layer, with a trained gain and shift for each unit."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Share of the running mean and variance that each step keeps; evaluation uses these instead of
    the mean and variance of a batch."""
    epsilon: float = Field(default=1e-5, ge=1e-12, le=1)
    """Added to the variance, so that no divisor is 0."""
    position: Literal["before", "after"] = "before"
    """Before the activation or after it."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Add the short form to the JSON Schema: true or false."""
        return {"anyOf": [{"type": "boolean"}, handler(schema)]}

    @model_validator(mode="before")
    @classmethod
    def _from_true(cls, value: Any) -> Any:
        """Read true as the defaults."""
        if not isinstance(value, bool | dict | BatchNormConfig):
            raise ValueError("expected true, false or a mapping such as {position: after}")
        return {} if value is True else value


class LayerConfig(Section):
    """A fully connected layer."""

    written_if_set = frozenset({"batch_norm"})

    units: int = Field(ge=1, le=MAX_UNITS)
    """Number of outputs."""
    activation: Annotated[Activation, TableEntry("activation", ACTIVATIONS)]
    """Name of the activation, or {name: ..., PARAMETER: ...}."""
    init: InitConfig | None = None
    """Initial parameters of this layer; null: as in network.init."""
    dropout: DropoutRate = 0.0
    """Fraction of outputs set to 0 in training, drawn again for each batch; hidden layers only."""
    batch_norm: BatchNormConfig | None = None
    """Batch normalization (Ioffe and Szegedy 2015): true, or a mapping; hidden layers only."""

    @property
    def function(self) -> str:
        """The activation in words, such as "relu with batch norm"."""
        return self.activation.name + " with batch norm" * bool(self.batch_norm)

    @field_validator("batch_norm", mode="before")
    @classmethod
    def _from_false(cls, value: Any) -> Any:
        """Read false as null."""
        return None if value is False else value


class NetworkConfig(Section):
    """The layers, from the first hidden layer to the output layer; the dataset sets the inputs."""

    layers: list[LayerConfig] = Field(min_length=1, max_length=1000)
    """Layers in order, the output layer last."""
    init: InitConfig = InitConfig()
    """Initial parameters of all layers."""
    input_dropout: DropoutRate = 0.0
    """Fraction of inputs set to 0 in training."""

    @field_validator("layers", mode="before")
    @classmethod
    def _check_items(cls, value: Any) -> Any:
        """Answer a list of sizes, as in Nielsen's code, once and not for each size."""
        if value and isinstance(value, list) and all(isinstance(item, int) for item in value):
            answer = find_answer("sizes")
            assert answer is not None
            raise ValueError(f"expected a list of mappings, got numbers; {answer.text()}")
        return value


class OptimizerConfig(Section):
    """The optimizer, which updates the parameters after each batch."""

    written_if_set = frozenset({"beta1", "beta2", "epsilon", "l1"})

    name: Literal[tuple(OPTIMIZERS)] = "sgd"  # type: ignore[valid-type]
    """sgd (stochastic gradient descent), adagrad, rmsprop, adam, or adamw, which is adam by its
    usual name with weight_decay."""
    learning_rate: float = Field(gt=0)
    """Factor for the mean gradient of a batch."""
    momentum: float = Field(default=0.0, ge=0, lt=1)
    """SGD only: fraction of the previous update that is added to this one."""
    nesterov: bool = False
    """SGD only: Nesterov momentum."""
    beta1: Decay | None = None
    """Adam only: decay of the average of gradients; null: 0.9."""
    beta2: Decay | None = None
    """Adam and RMSprop only: decay of the average of squared gradients; null: 0.999 for Adam, 0.99
    for RMSprop."""
    epsilon: Positive | None = None
    """Adam, RMSprop and AdaGrad only: added to the divisor of each step; null: 1e-8 for Adam and
    RMSprop, 1e-7 for AdaGrad."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Each step multiplies the weights, not the biases, by 1 - learning_rate * weight_decay; lambda
    / n in Nielsen's book."""
    l1: float = Field(default=0.0, ge=0)
    """L1 regularization: each step moves the weights, not the biases, by learning_rate * l1 toward
    0; lambda / n in Nielsen's book."""
    clip_norm: Positive | None = None
    """Maximum norm of the mean gradient; longer ones are scaled down."""
    max_norm: Positive | None = None
    """Maximum norm of the incoming weights of each unit."""
    schedule: Annotated[Schedule, TableEntry("schedule", SCHEDULES)] = ConstantSchedule()
    """Change of the learning rate over the epochs."""


class EarlyStoppingConfig(Section):
    """Stops training before the last epoch if the validation metric does not improve."""

    patience: Count
    """Number of consecutive epochs without improvement before stopping, also if only some of them
    are validated."""
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    """Metric that has to improve."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Add the short form to the JSON Schema: the patience alone."""
        return {"anyOf": [{"type": "integer", "minimum": 1, "maximum": MAX_WHOLE}, handler(schema)]}

    @model_validator(mode="before")
    @classmethod
    def _from_patience(cls, value: Any) -> Any:
        """Read a number as the patience."""
        return {"patience": value} if type(value) is int else value


class TrainingConfig(Section):
    """Length of training, batches, and how the network is trained and averaged."""

    written_if_set = frozenset({"validate_every", "monitor", "monitor_every"})

    epochs: Count | Literal["auto"] = "auto"
    """Passes over the training set; auto: enough for steps if set, else 30."""
    steps: Count | None = None
    """Maximum number of steps; training ends earlier if the epochs are over."""
    batch_size: Count = 32
    """Examples per step."""
    sampling: Literal["shuffle", "with_replacement"] = "shuffle"
    """shuffle: each example once per epoch; with_replacement: every batch is drawn from all
    examples, as in Deep Learning from Scratch."""
    seed: Whole = 0
    """Seed of all random numbers: initial weights, shuffling, subset, dropout and augmentation."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Fraction of each target that is spread evenly over all classes."""
    class_weights: Literal["balanced"] | None = None
    """balanced: the loss of each example is divided by the share of its class, so that rare classes
    count as much as others."""
    adversarial: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Adversarial training: distance (L2 norm) by which each image is moved in the direction of
    increasing loss. Black and white differ by 1; moved pixels may leave that range."""
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step, such as 0.999, of an exponential moving average (EMA) of the weights, which
    is validated, saved and evaluated. It is updated every eighth step; after n steps the decay is
    at most n / (n + 10)."""
    early_stopping: EarlyStoppingConfig | None = None
    """Early stopping; a number alone is the patience; null: train for all epochs."""
    validate_every: Interval = 1
    """Number of epochs, or a time such as 30s, from one validation to the next; the epochs between
    are neither measured nor recorded. The last epoch always is."""
    monitor: list[Literal["cost", "train_accuracy", "test"]] = []
    """Figures to measure after each validated epoch, and never used to decide: cost (loss on the
    training images without dropout, plus the L2 and L1 terms), train_accuracy (without dropout),
    test (loss and accuracy on the test images)."""
    monitor_every: Count | None = None
    """Number of steps from one recorded loss of a batch to the next; null: none."""
    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """Threads per training step, at most one per example of a batch; auto: chosen from the size of
    a step."""

    @property
    def validation_epochs(self) -> int:
        """Number of epochs from one validation to the next; 1 if there is a time instead."""
        return 1 if isinstance(self.validate_every, str) else self.validate_every

    @property
    def validation_seconds(self) -> float:
        """Minimum number of seconds from one validation to the next."""
        every = self.validate_every
        return seconds_in(every) if isinstance(every, str) else 0.0


class Config(Section):
    """A training configuration."""

    data: DataConfig = DataConfig()
    """Dataset."""
    network: NetworkConfig
    """Layers of the network."""
    loss: Literal[tuple(LOSSES)] = "cross_entropy"  # type: ignore[valid-type]
    """cross_entropy (with softmax or sigmoid outputs) or quadratic (half the squared distance)."""
    optimizer: OptimizerConfig
    """Optimizer."""
    training: TrainingConfig = TrainingConfig()
    """Length of training, batch size and seed."""


class _Generator(GenerateJsonSchema):
    """Generates JSON Schemas in which the docstring below a key is its description.

    Pydantic's own option for this, `use_attribute_docstrings`, would delay the start of all
    commands, which need no descriptions.
    """

    def model_schema(self, schema: ModelSchema) -> dict[str, Any]:
        """Return the JSON Schema of a model."""
        described = super().model_schema(schema)
        if issubclass(schema["cls"], Section):
            (definition,) = ast.parse(inspect.getsource(schema["cls"])).body
            for key, below in itertools.pairwise(cast("ast.ClassDef", definition).body):
                match key, below:
                    case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                        description = " ".join(text.split()).removesuffix(".")
                        described["properties"][name]["description"] = description
        return described


def json_schema(model: type[Section] = Config) -> dict[str, Any]:
    """Return the JSON Schema of a model, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model.model_json_schema(mode="validation", schema_generator=_Generator),
    }
