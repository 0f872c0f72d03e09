"""The words of books and other libraries, each with what nnctl has for it.

Beginners copy the words of a book into a configuration; the error message leads them to the key or
value of nnctl, with the conversion if the scale differs, or says that nnctl does not have it. The
same table gives the page of words in the documentation.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nnctl.text import did_you_mean, short_value

_LAYERS = [{"units": 30, "activation": "sigmoid"}, {"units": 10, "activation": "softmax"}]
_CONNECTED = "its layers are fully connected"


@dataclass(frozen=True)
class Answer:
    """What nnctl has for words that mean the same.

    Parameters
    ----------
    words : str
        The words, separated by spaces; see `normalized` for other ways to write them. One may
        begin with the section in which it has this meaning: ``schedule.step_size``.
    settings : mapping of str to object
        Keys and values of nnctl; None stands for the value that the user wrote. Empty if nnctl
        has nothing for the words.
    note : str
        Conversion of the value, or advice that follows the settings; without settings the advice.
    """

    words: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def text(self) -> str:
        """Return the advice: the settings and the note."""
        if not self.settings:
            return self.note
        settings = " and ".join(
            key if value is None else f"{key}: {short_value(value)}"
            for key, value in self.settings.items()
        )
        return f"use {settings}{self._suffix}"

    def text_for_value(self, known: Iterable[str]) -> str:
        """Return the advice for a value, without the key if the answer is one of the known values.

        Parameters
        ----------
        known : iterable of str
            Names that are valid in place of the user's word.
        """
        if len(self.settings) == 1:
            (value,) = self.settings.values()
            if isinstance(value, list) and len(value) == 1:
                (value,) = value
            if (value.get("name") if isinstance(value, dict) else value) in [*known]:
                return f"use {short_value(value)}{self._suffix}"
        return self.text()

    def below(self, parent: Iterable[str | int], siblings: Iterable[str]) -> Answer:
        """Return the answer with the keys of the section in which the user wrote the word.

        In ``network.layers.2``, for example, ``network.init`` is ``network.layers.2.init``.

        Parameters
        ----------
        parent : iterable of str or int
            Path of the section.
        siblings : iterable of str
            Keys of the section.
        """
        here = {name: ".".join(map(str, (*parent, name))) for name in siblings}
        settings = {
            here.get(key.rpartition(".")[2], key): value for key, value in self.settings.items()
        }
        return dataclasses.replace(self, settings=settings)

    @property
    def key(self) -> str:
        """The key for the value that the user wrote, or "" if the value changes."""
        return next((key for key, value in self.settings.items() if value is None), "")

    @property
    def _suffix(self) -> str:
        return f", {self.note}" if self.note else ""


ANSWERS: dict[str, list[Answer]] = {
    "Optimizer": [
        Answer("eta lr step_size learning_rate_init", {"optimizer.learning_rate": None}),
        Answer(
            "lambda lmbda lambd",
            {"optimizer.weight_decay": None},
            "which is lambda / n for n training examples",
        ),
        Answer(
            "l2 l2_regularization l2_reg regularization reg",
            {"optimizer.weight_decay": None},
            "which is lambda / n for Nielsen's lambda, and twice the l2 of Keras",
        ),
        Answer("weight_decay_lambda wd", {"optimizer.weight_decay": None}),
        Answer(
            "l1 l1_regularization l1_reg l1_lambda lasso",
            {"optimizer.l1": None},
            "which is lambda / n for Nielsen's lambda and n training examples",
        ),
        Answer(
            "stochastic_gradient_descent gradient_descent gd vanilla_sgd", {"optimizer.name": "sgd"}
        ),
        Answer("momentum momentum_sgd", {"optimizer.name": "sgd", "optimizer.momentum": 0.9}),
        Answer(
            "nesterov nesterov_momentum nag",
            {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.nesterov": True},
        ),
        Answer("solver optimizer optimizer_name", {"optimizer.name": None}),
        Answer("mu momentum_coefficient", {"optimizer.momentum": None}),
        Answer("eps", {"optimizer.epsilon": None}),
        Answer("rho", {"optimizer.beta2": None}),
        Answer(
            "grad_clip gradient_clip gradient_clipping max_grad_norm",
            {"optimizer.clip_norm": None},
        ),
        Answer(
            "lr_decay learning_rate_decay lr_schedule learning_rate_schedule lr_scheduler "
            "scheduler",
            {"optimizer.schedule": None},
        ),
        Answer("schedule.step_size", {"optimizer.schedule.every": None}, "in epochs"),
        Answer("factor schedule.decay schedule.decay_rate", {"optimizer.schedule.gamma": None}),
        Answer("step_decay step_lr", {"optimizer.schedule": "step"}),
        Answer("exponential_decay exponential_lr", {"optimizer.schedule": "exponential"}),
        Answer(
            "cosine_annealing cosine_annealing_lr cosine_decay", {"optimizer.schedule": "cosine"}
        ),
        Answer("reduce_lr_on_plateau reduce_on_plateau", {"optimizer.schedule": "plateau"}),
        Answer(
            "max_lr max_learning_rate",
            {"optimizer.learning_rate": None},
            "which is the highest rate of the schedule one_cycle",
        ),
        Answer(
            "decay",
            {"optimizer.weight_decay": None},
            "or optimizer.schedule for a learning rate that decreases",
        ),
        Answer(
            "adadelta lbfgs nadam adamax rprop",
            note="nnctl does not have this optimizer; try adam",
        ),
    ],
    "Network": [
        Answer(
            "hidden n_hidden hidden_size hidden_sizes hidden_size_list hidden_layers "
            "hidden_layer_sizes sizes layer_sizes output_size n_outputs num_classes n_classes",
            {"network.layers": _LAYERS},
            "with an item for each layer but the inputs, the output layer last",
        ),
        Answer(
            "input_size n_inputs inputs input_dim input_shape in_features",
            note="remove it: the dataset sets the number of inputs",
        ),
        Answer(
            "neurons nodes size width n_units num_units hidden_units out_features",
            {"network.layers.0.units": None},
        ),
        Answer(
            "act activation_function nonlinearity transfer_function",
            {"network.layers.0.activation": None},
        ),
        Answer("logistic sigmoid_function", {"network.layers.0.activation": "sigmoid"}),
        Answer("hyperbolic_tangent tanh_function", {"network.layers.0.activation": "tanh"}),
        Answer(
            "rectifier rectified_linear rectified_linear_unit relu_function",
            {"network.layers.0.activation": "relu"},
        ),
        Answer("lrelu", {"network.layers.0.activation": "leaky_relu"}),
        Answer(
            "step_function heaviside perceptron",
            {"network.layers.0.activation": "step"},
        ),
        Answer("identity_function", {"network.layers.0.activation": "linear"}),
        Answer("softmax_function log_softmax", {"network.layers.1.activation": "softmax"}),
        Answer(
            "dropout_ratio dropout_ration dropout_rate p_dropout use_dropout",
            {"network.layers.0.dropout": None},
        ),
        Answer("keep_prob", {"network.layers.0.dropout": None}, "which is 1 - keep_prob"),
        Answer(
            "batch_normalization use_batch_norm batch_norm_1d bn",
            {"network.layers.0.batch_norm": True},
        ),
        Answer(
            "type layer_type",
            note="a layer needs no type: all are fully connected; elsewhere, use name",
        ),
        Answer("dense affine fully_connected fc", note="remove it: all layers are fully connected"),
        Answer("bias use_bias", note="remove it: every layer has biases"),
    ],
    "Initial weights": [
        Answer(
            "weight_init weights_init weight_initializer kernel_initializer initializer "
            "initialization",
            {"network.init": None},
        ),
        Answer("bias_init bias_initializer", {"network.init.biases": None}),
        Answer(
            "weight_init_std init_std",
            {"network.init": {"name": "normal", "std": 0.01}},
            "with your number as std; 'relu' is he_normal, and 'sigmoid' is lecun_normal",
        ),
        Answer(
            "gaussian random_normal randn",
            {"network.init": {"name": "normal", "std": 0.01}},
            "with your standard deviation as std",
        ),
        Answer(
            "xavier",
            {"network.init": "lecun_normal"},
            "which is N(0, 1/n) as in From Scratch; Glorot's own is glorot_normal",
        ),
        Answer("xavier_normal", {"network.init": "glorot_normal"}),
        Answer("xavier_uniform glorot", {"network.init": "glorot_uniform"}),
        Answer("he kaiming kaiming_normal", {"network.init": "he_normal"}),
        Answer("kaiming_uniform", {"network.init": "he_uniform"}),
        Answer("lecun", {"network.init": "lecun_normal"}),
        Answer(
            "default_weight_initializer",
            {"network.init": {"weights": "lecun_normal", "biases": "normal"}},
        ),
        Answer(
            "large_weight_initializer",
            {"network.init": {"weights": "normal", "biases": "normal"}},
        ),
        Answer("ones", {"network.init": {"name": "constant", "value": 1}}),
    ],
    "Loss": [
        Answer("cost cost_function loss_function loss_fn criterion objective", {"loss": None}),
        Answer(
            "mse mean_squared_error sum_squared_error squared_error quadratic_cost l2_loss",
            {"loss": "quadratic"},
            "which is half the sum of squares: m / 2 times a mean over m outputs",
        ),
        Answer(
            "cross_entropy_error cross_entropy_loss cross_entropy_cost ce bce nll nll_loss "
            "log_loss binary_cross_entropy categorical_cross_entropy "
            "sparse_categorical_cross_entropy",
            {"loss": "cross_entropy"},
        ),
        Answer(
            "log_likelihood log_likelihood_cost negative_log_likelihood softmax_with_loss "
            "softmax_loss softmax_cross_entropy",
            {"loss": "cross_entropy"},
            "with the activation softmax in the last layer",
        ),
        Answer(
            "sigmoid_with_loss sigmoid_loss sigmoid_cross_entropy bce_with_logits",
            {"loss": "cross_entropy"},
            "with the activation sigmoid in the last layer",
        ),
        Answer(
            "hinge hinge_loss mae l1_loss huber focal_loss kl_divergence",
            note="nnctl does not have this loss; it has cross_entropy and quadratic",
        ),
    ],
    "Training and data": [
        Answer(
            "mini_batch_size mini_batch batch bs",
            {"training.batch_size": None},
        ),
        Answer(
            "epoch n_epochs num_epochs nb_epoch max_epoch max_epochs", {"training.epochs": None}
        ),
        Answer(
            "iters_num iterations n_iterations num_iterations n_steps max_steps",
            {"training.steps": None},
        ),
        Answer("random_seed random_state", {"training.seed": None}),
        Answer(
            "shuffle", {"training.sampling": "shuffle"}, "which is the default, or with_replacement"
        ),
        Answer("early_stopping_n n_iter_no_change", {"training.early_stopping": None}),
        Answer("n_jobs num_workers num_threads", {"training.threads": None}),
        Answer("ema moving_average", {"training.average": 0.999}),
        Answer("train_size n_train training_size", {"data.subset": None}),
        Answer(
            "validation_split val_split validation_fraction validation_size",
            {"data.validation": None},
            "which is a number of examples, not a fraction",
        ),
        Answer(
            "max_time time_limit",
            note="use the option --max-time of nnctl train, such as --max-time 10m",
        ),
        Answer(
            "monitor_training_cost training_cost training_loss train_loss",
            {"training.monitor": ["cost"]},
        ),
        Answer(
            "monitor_training_accuracy training_accuracy",
            {"training.monitor": ["train_accuracy"]},
        ),
        Answer("test_loss test_accuracy", {"training.monitor": ["test"]}),
        Answer(
            "monitor_evaluation_cost monitor_evaluation_accuracy",
            note="remove it: training always prints the loss and accuracy on validation examples",
        ),
        Answer(
            "normalize flatten one_hot one_hot_label",
            note="remove it: nnctl scales pixels to the range from 0 to 1, flattens images and "
            "encodes labels itself",
        ),
    ],
    "Not in nnctl": [
        Answer(
            "conv conv2d convolution convolutional cnn filters kernel_size stride",
            note=f"nnctl has no convolution: {_CONNECTED}",
        ),
        Answer("pool pooling max_pool max_pooling", note=f"nnctl has no pooling: {_CONNECTED}"),
        Answer("rnn lstm gru recurrent", note=f"nnctl has no recurrent layers: {_CONNECTED}"),
        Answer(
            "attention self_attention transformer embedding",
            note=f"nnctl has no attention: {_CONNECTED}",
        ),
        Answer(
            "residual skip_connection resnet",
            note="nnctl has no skip connections: a layer takes the outputs of the one below it",
        ),
        Answer(
            "layer_norm layer_normalization group_norm",
            note="nnctl has no layer normalization",
        ),
        Answer("gpu cuda device", note="nnctl does not use GPUs: it trains on the CPU"),
    ],
}
"""Answers by the section of the page in the documentation."""


def normalized(word: str) -> str:
    """Return a word without capitals, underscores and hyphens: SoftmaxWithLoss, softmax-with-loss.

    >>> normalized("SoftmaxWithLoss") == normalized("softmax-with-loss")
    True
    """
    return re.sub(r"[\s_-]", "", word).lower()


_BY_WORD = {
    normalized(word): answer
    for answers in ANSWERS.values()
    for answer in answers
    for word in answer.words.split()
}


def find_answer(word: str) -> Answer | None:
    """Return the answer for a word of a book or another library, or None."""
    return _BY_WORD.get(normalized(word))


def suggest_value(word: str, known: Iterable[str]) -> str:
    """Return ``"; ..."`` with the value to use in place of a wrong one, or ``""``.

    Parameters
    ----------
    word : str
        The value that the user wrote.
    known : iterable of str
        The valid values.
    """
    known = list(known)
    answer = None if word.lower() in known else find_answer(word)
    return f"; {answer.text_for_value(known)}" if answer else did_you_mean(word, known)
