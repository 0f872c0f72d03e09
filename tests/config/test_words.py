"""The words of books and other libraries are answered with those of nnctl."""

from __future__ import annotations

import re
from typing import Any

import pytest

from nnctl.config import Override, possible_settings, to_mapping
from nnctl.config.words import ANSWERS, Answer, find_answer, normalized, suggest_value
from tests.config.helpers import SMALL, load, mistake, mistakes, written
from tests.conftest import Nnctl

pytestmark = pytest.mark.usefixtures("scratch")

ALL = {
    words: Answer.parse(answer) for answers in ANSWERS.values() for words, answer in answers.items()
}
WORDS = " ".join(ALL).split()
SETTINGS = dict(possible_settings())
KEYS = {normalized(part) for key in SETTINGS for part in key.split(".")}


SCHEDULE = "optimizer.schedule"
INIT = "network.init"  # the only section that a word of another library has as a whole


@pytest.mark.parametrize("words", ALL, ids=lambda words: words.split()[0])
def test_each_word_is_answered_and_the_answer_is_accepted(words: str) -> None:
    """The advice is read from the message and applied as a reader would."""
    answer = ALL[words]
    for word in words.split():
        if normalized(word) not in KEYS:
            messages = mistakes(f"{SMALL}{word}: 1\n")
            assert f"c.yaml:7:1: {word}: unknown key '{word}'; {answer.text()}" in messages
    if not answer.settings:
        return
    overrides = []
    advice = answer.text().removeprefix("use ").removesuffix(f", {answer.note}")
    for setting in advice.split(" and "):
        key, _, value = setting.partition(": ")
        if value:
            overrides.append(Override.parse(f"{key}={value}"))
        else:
            if key.startswith(f"{SCHEDULE}."):  # one that has every parameter in the answers
                overrides.append(Override.parse(f"{SCHEDULE}={{name: step}}"))
            present: Any = load(written(SMALL), overrides)
            for step in Override(key, None, key).path:
                present = present[step] if isinstance(step, int) else getattr(present, step)
            overrides.append(Override(key, to_mapping(present) if key == INIT else present, key))
    load(written(SMALL), overrides)


def test_no_word_has_two_answers_or_is_a_valid_value() -> None:
    assert len({*map(normalized, WORDS)}) == len(WORDS)
    for words, answer in ALL.items():
        valid = {name for key in answer.settings for name in SETTINGS.get(key, [])}
        if not answer.settings:
            valid = KEYS | {name for names in SETTINGS.values() for name in names}
        valid -= {"shuffle"}  # the value of another key
        assert not valid & {*words.split()}, "this word needs no answer any more"


@pytest.mark.parametrize(
    ("advice", "setting"),
    [
        ("use quadratic, which is half the sum of squares: m / 2 times a mean over", "loss=MSE"),
        ("use cross_entropy, with the activation softmax in the last", "loss=SoftmaxWithLoss"),
        ("use cross_entropy, with the activation softmax in the", "loss=log-likelihood"),
        ("use lecun_normal, which is N(0, 1/n)", "network.layers.1.init=xavier"),
        ("use {name: normal, std: 0.01}, with your", "network.init.weights=gaussian"),
        ("use tanh", "network.layers.0.activation=hyperbolic_tangent"),
        ("use loss: cross_entropy, with", "network.layers.1.activation=softmax_with_loss"),
        ("use optimizer.name: sgd and optimizer.momentum: 0.9", "optimizer.name=Momentum"),
        ("use optimizer.name: sgd and optimizer.momentum: 0.9", "optimizer=momentum"),
        ("use optimizer.name: sgd", "optimizer=SGD"),
        ("nnctl does not have this optimizer", "optimizer.name=L-BFGS"),
        ("nnctl has no convolution", "network.layers.0.activation=conv2d"),
        ("use network.layers.1.units", "network.layers.1.nodes=3"),
        ("use network.layers.1.init: {name: normal, std: 0.01}", "network.layers.1.init_std=3"),
        ("use optimizer.weight_decay, which is lambda / n", "optimizer.lmbda=5"),
        ("use optimizer.learning_rate", "optimizer={name: sgd, lr: 0.1}"),
        ("did you mean 'momentum'?", "optimizer.Momentum=0.9"),
        ("did you mean 'batch_size'?", "training.BatchSize=3"),
        (" here; use optimizer.learning_rate", "training.learning_rate=3"),
        (" here; use optimizer.momentum", "momentum=0.9"),
        ("use [cost]", "training.monitor=cost"),
        ("use training.monitor: [test]", "training.monitor=test_loss"),
        ("use [cost, test]", "training.monitor='cost, test'"),
        ("use network.layers: [{units: 30, activation: sigmoid}", "network.layers=[784,30,10]"),
        ("use {name: normal, std: 0.01}", "network.init=0.01"),
        ("use {name: normal, std: 0.01}", "network.layers.0.init=0.01"),
        ("write a number of examples, not a fraction", "data.validation=0.1"),
        ("use test", "training.monitor=[cost, test_accuracy]"),
        ("use optimizer.weight_decay, or optimizer.schedule", "optimizer.decay=0.1"),
        ("use optimizer.schedule.every", "optimizer.schedule={name: step, step_size: 3}"),
        ("use optimizer.schedule.gamma", "optimizer.schedule={name: plateau, factor: 0.1}"),
        ("use optimizer.schedule.gamma", "optimizer.factor=0.1"),
        ("use optimizer.l1, which", "optimizer.regularization=L1"),
        ("use optimizer.weight_decay, which", "optimizer.regularization=l2"),
        ("nnctl does not have this optimizer", "optimizer.solver=lbfgs"),
        (" here; use network.layers.1.init.weights", "network.layers.1.weights=zeros"),
        (" here; use network.init.biases", "network.biases=zeros"),
        ("use cosine", "optimizer.schedule=CosineAnnealingLR"),
        ("use training.monitor: [cost]", "training.monitor_training_cost=true"),
    ],
)
def test_a_word_is_answered_where_it_is_written(advice: str, setting: str) -> None:
    assert f"; {advice}".replace(";  here", " here") in mistake(SMALL, setting)


def test_the_value_of_a_word_with_another_name_is_checked_too() -> None:
    text = SMALL.replace("0.1", "0.1\n  mu: 2")
    assert mistakes(text) == [
        "c.yaml:7:3: optimizer.mu: unknown key 'mu'; use optimizer.momentum",
        "c.yaml:7:7: optimizer.mu: expected a number below 1.0, got 2",
    ]


def test_a_word_is_answered_only_where_it_is_wrong() -> None:
    assert find_answer("units") is None
    assert suggest_value("Sigmoid", ["sigmoid"]) == "; did you mean 'sigmoid'?"
    assert suggest_value("xyz", ["sigmoid"]) == ""


@pytest.mark.parametrize(
    ("advice", "option"),
    [
        ("use --lr", "--eta"),
        ("use --lr", "--learning-rate"),
        ("use --batch-size", "--batch"),
        ("use --epochs", "--epoch"),
        ("use --set optimizer.name=VALUE", "--optimizer"),
        ("use --set optimizer.momentum=VALUE", "--momentum"),
        ("use --set optimizer.weight_decay=VALUE, which is lambda / n", "--lmbda"),
        ("use --set network.init=he_normal", "--he"),
        ("nnctl does not use GPUs", "--gpu"),
    ],
)
def test_an_unknown_option_is_answered_with_the_option_that_sets_its_key(
    nnctl: Nnctl, advice: str, option: str
) -> None:
    done = nnctl("train", "smoke", option, 1, code=2)
    assert f"No such option '{option}'; {advice}" in done.stderr


def test_commands_without_settings_and_misspelled_options_have_the_usual_message(
    nnctl: Nnctl,
) -> None:
    assert "--set" not in nnctl("runs", "--batch", 1, code=2).stderr
    assert re.search(r"mean .*--seed", nnctl("train", "smoke", "--seeed", 1, code=2).stderr)
