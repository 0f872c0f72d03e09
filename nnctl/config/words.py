"""The words of books and other libraries, each with what nnctl has for it.

Beginners copy the words of a book into a configuration; the error message leads them to the key or
value of nnctl, with the conversion if the scale differs, or says that nnctl does not have it. The
same table gives the page of words in the documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nnctl.config.reader import read_value
from nnctl.text import did_you_mean, short_value


@dataclass(frozen=True)
class Answer:
    """What nnctl has for words that mean the same.

    Parameters
    ----------
    settings : mapping of str to object
        Keys and values of nnctl; None stands for the value that the user wrote. Empty if nnctl
        has nothing for the words.
    note : str
        Conversion of the value, or advice that follows the settings; without settings the advice.
    """

    settings: Mapping[str, Any]
    note: str

    @classmethod
    def parse(cls, answer: str) -> Answer:
        """Return an answer in `ANSWERS`."""
        settings, _, note = answer.partition("|")
        return cls(read_value(f"{{{settings}}}", answer), note.strip())

    def text(self) -> str:
        """Return the advice: the settings and the note."""
        settings = " and ".join(
            key if value is None else f"{key}: {short_value(value)}"
            for key, value in self.settings.items()
        )
        return ", ".join(filter(None, [settings and f"use {settings}", self.note]))

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
                return Answer({short_value(value): None}, self.note).text()
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
        return Answer(settings, self.note)

    @property
    def key(self) -> str:
        """The key for the value that the user wrote, or "" if the value changes."""
        return next((key for key, value in self.settings.items() if value is None), "")


ANSWERS: dict[str, dict[str, str]] = {
    "Optimizer": {
        "eta lr step_size learning_rate_init": "optimizer.learning_rate",
        "lambda lmbda lambd": (
            "optimizer.weight_decay | which is lambda / n for n training examples"
        ),
        "l2 l2_regularization l2_reg regularization reg": (
            "optimizer.weight_decay | which is lambda / n for Nielsen's lambda, and twice the l2 "
            "of Keras"
        ),
        "weight_decay_lambda wd": "optimizer.weight_decay",
        "l1 l1_regularization l1_reg l1_lambda lasso": (
            "optimizer.l1 | which is lambda / n for Nielsen's lambda and n training examples"
        ),
        "stochastic_gradient_descent gradient_descent gd vanilla_sgd": "optimizer.name: sgd",
        "momentum momentum_sgd": "optimizer.name: sgd, optimizer.momentum: 0.9",
        "nesterov nesterov_momentum nag": (
            "optimizer.name: sgd, optimizer.momentum: 0.9, optimizer.nesterov: true"
        ),
        "solver optimizer optimizer_name": "optimizer.name",
        "mu momentum_coefficient": "optimizer.momentum",
        "eps": "optimizer.epsilon",
        "rho": "optimizer.beta2",
        "grad_clip gradient_clip gradient_clipping max_grad_norm": "optimizer.clip_norm",
        "lr_decay learning_rate_decay lr_schedule learning_rate_schedule lr_scheduler scheduler": (
            "optimizer.schedule"
        ),
        "schedule.step_size": "optimizer.schedule.every | in epochs",
        "factor schedule.decay schedule.decay_rate": "optimizer.schedule.gamma",
        "step_decay step_lr": "optimizer.schedule: step",
        "exponential_decay exponential_lr": "optimizer.schedule: exponential",
        "cosine_annealing cosine_annealing_lr cosine_decay": "optimizer.schedule: cosine",
        "reduce_lr_on_plateau reduce_on_plateau": "optimizer.schedule: plateau",
        "max_lr max_learning_rate": (
            "optimizer.learning_rate | which is the highest rate of the schedule one_cycle"
        ),
        "decay": (
            "optimizer.weight_decay | or optimizer.schedule for a learning rate that decreases"
        ),
        "adadelta lbfgs nadam adamax rprop": "| nnctl does not have this optimizer; try adam",
    },
    "Network": {
        "hidden n_hidden hidden_size hidden_sizes hidden_size_list hidden_layers "
        "hidden_layer_sizes sizes layer_sizes output_size n_outputs num_classes n_classes": (
            "network.layers: [{units: 30, activation: sigmoid}, {units: 10, activation: softmax}] "
            "| with an item for each layer but the inputs, the output layer last"
        ),
        "input_size n_inputs inputs input_dim input_shape in_features": (
            "| remove it: the dataset sets the number of inputs"
        ),
        "neurons nodes size width n_units num_units hidden_units out_features": (
            "network.layers.0.units"
        ),
        "act activation_function nonlinearity transfer_function": "network.layers.0.activation",
        "logistic sigmoid_function": "network.layers.0.activation: sigmoid",
        "hyperbolic_tangent tanh_function": "network.layers.0.activation: tanh",
        "rectifier rectified_linear rectified_linear_unit relu_function": (
            "network.layers.0.activation: relu"
        ),
        "lrelu": "network.layers.0.activation: leaky_relu",
        "step_function heaviside perceptron": "network.layers.0.activation: step",
        "identity_function": "network.layers.0.activation: linear",
        "softmax_function log_softmax": "network.layers.1.activation: softmax",
        "dropout_ratio dropout_ration dropout_rate p_dropout use_dropout": (
            "network.layers.0.dropout"
        ),
        "keep_prob": "network.layers.0.dropout | which is 1 - keep_prob",
        "batch_normalization use_batch_norm batch_norm_1d bn": "network.layers.0.batch_norm: true",
        "type layer_type": "| a layer needs no type: all are fully connected; elsewhere, use name",
        "dense affine fully_connected fc": "| remove it: all layers are fully connected",
        "bias use_bias": "| remove it: every layer has biases",
    },
    "Initial weights": {
        "weight_init weights_init weight_initializer kernel_initializer initializer "
        "initialization": "network.init",
        "bias_init bias_initializer": "network.init.biases",
        "weight_init_std init_std": (
            "network.init: {name: normal, std: 0.01} | with your number as std; 'relu' is "
            "he_normal, and 'sigmoid' is lecun_normal"
        ),
        "gaussian random_normal randn": (
            "network.init: {name: normal, std: 0.01} | with your standard deviation as std"
        ),
        "xavier": (
            "network.init: lecun_normal | which is N(0, 1/n) as in From Scratch; Glorot's own is "
            "glorot_normal"
        ),
        "xavier_normal": "network.init: glorot_normal",
        "xavier_uniform glorot": "network.init: glorot_uniform",
        "he kaiming kaiming_normal": "network.init: he_normal",
        "kaiming_uniform": "network.init: he_uniform",
        "lecun": "network.init: lecun_normal",
        "default_weight_initializer": "network.init: {weights: lecun_normal, biases: normal}",
        "large_weight_initializer": "network.init: {weights: normal, biases: normal}",
        "ones": "network.init: {name: constant, value: 1}",
    },
    "Loss": {
        "cost cost_function loss_function loss_fn criterion objective": "loss",
        "mse mean_squared_error sum_squared_error squared_error quadratic_cost l2_loss": (
            "loss: quadratic | which is half the sum of squares: m / 2 times a mean over m outputs"
        ),
        "cross_entropy_error cross_entropy_loss cross_entropy_cost ce bce nll nll_loss log_loss "
        "binary_cross_entropy categorical_cross_entropy "
        "sparse_categorical_cross_entropy": "loss: cross_entropy",
        "log_likelihood log_likelihood_cost negative_log_likelihood softmax_with_loss softmax_loss "
        "softmax_cross_entropy": (
            "loss: cross_entropy | with the activation softmax in the last layer"
        ),
        "sigmoid_with_loss sigmoid_loss sigmoid_cross_entropy bce_with_logits": (
            "loss: cross_entropy | with the activation sigmoid in the last layer"
        ),
        "hinge hinge_loss mae l1_loss huber focal_loss kl_divergence": (
            "| nnctl does not have this loss; it has cross_entropy and quadratic"
        ),
    },
    "Training and data": {
        "mini_batch_size mini_batch batch bs": "training.batch_size",
        "epoch n_epochs num_epochs nb_epoch max_epoch max_epochs": "training.epochs",
        "iters_num iterations n_iterations num_iterations n_steps max_steps": "training.steps",
        "random_seed random_state": "training.seed",
        "shuffle": "training.sampling: shuffle | which is the default, or with_replacement",
        "early_stopping_n n_iter_no_change": "training.early_stopping",
        "n_jobs num_workers num_threads": "training.threads",
        "ema moving_average": "training.average: 0.999",
        "train_size n_train training_size": "data.subset",
        "validation_split val_split validation_fraction validation_size": (
            "data.validation | which is a number of examples, not a fraction"
        ),
        "max_time time_limit": "| use the option --max-time of nnctl train, such as --max-time 10m",
        "monitor_training_cost training_cost training_loss train_loss": "training.monitor: [cost]",
        "monitor_training_accuracy training_accuracy": "training.monitor: [train_accuracy]",
        "test_loss test_accuracy": "training.monitor: [test]",
        "monitor_evaluation_cost monitor_evaluation_accuracy": (
            "| remove it: training always prints the loss and accuracy on validation examples"
        ),
        "normalize flatten one_hot one_hot_label": (
            "| remove it: nnctl scales pixels to the range from 0 to 1, flattens images and "
            "encodes labels itself"
        ),
    },
    "Not in nnctl": {
        "conv conv2d convolution convolutional cnn filters kernel_size stride": (
            "| nnctl has no convolution: its layers are fully connected"
        ),
        "pool pooling max_pool max_pooling": (
            "| nnctl has no pooling: its layers are fully connected"
        ),
        "rnn lstm gru recurrent": "| nnctl has no recurrent layers: its layers are fully connected",
        "attention self_attention transformer embedding": (
            "| nnctl has no attention: its layers are fully connected"
        ),
        "residual skip_connection resnet": (
            "| nnctl has no skip connections: a layer takes the outputs of the one below it"
        ),
        "layer_norm layer_normalization group_norm": "| nnctl has no layer normalization",
        "gpu cuda device": "| nnctl does not use GPUs: it trains on the CPU",
    },
}
"""Answers by their words, in the sections of the page in the documentation.

The words are separated by spaces; see `normalized` for other ways to write them. One may begin with
the section in which it has this meaning: ``schedule.step_size``. An answer is ``SETTINGS | NOTE``;
one of them may be missing. The settings are YAML; a key without a value gets that of the user.
"""


def normalized(word: str) -> str:
    """Return a word without capitals, underscores and hyphens: SoftmaxWithLoss, softmax-with-loss.

    >>> normalized("SoftmaxWithLoss") == normalized("softmax-with-loss")
    True
    """
    return re.sub(r"[\s_-]", "", word).lower()


_BY_WORD = {
    normalized(word): answer
    for answers in ANSWERS.values()
    for words, answer in answers.items()
    for word in words.split()
}


def find_answer(word: str) -> Answer | None:
    """Return the answer for a word of a book or another library, or None."""
    answer = _BY_WORD.get(normalized(word))
    return Answer.parse(answer) if answer else None


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
