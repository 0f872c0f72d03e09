"""Mistakes in a configuration are reported all at once, each with its position and advice."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest

from nnctl.config import Override
from nnctl.errors import ConfigError, DataError
from nnctl.nn.activations import ACTIVATIONS
from nnctl.runs.resolve import find_dataset, load_config, resolve_auto
from tests.config.helpers import SMALL, load, mistake, mistakes, positions, written

pytestmark = pytest.mark.usefixtures("scratch")


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = """\
training: {epochs: 3.0, batch_size: '3', seed: -1, threads: two}
network:
  layers:
    - {units: true, activation: relou}
    - {unit: 10, activation: softmax}
optimizer:
  learning_rate: yes
  momentum: 1
  nesterov: no
loss: crossentropy
data: {validation: 0.5, subset: 0, dataset: ''}
"""
    assert mistakes(text) == [
        "c.yaml:1:20: training.epochs: expected a whole number or 'auto', got 3.0",
        "c.yaml:1:37: training.batch_size: expected a whole number, got the text '3'",
        "c.yaml:1:48: training.seed: expected a number of at least 0, got -1",
        "c.yaml:1:61: training.threads: expected a whole number or 'auto', got the text 'two'",
        "c.yaml:4:15: network.layers.0.units: expected a whole number, got true",
        "c.yaml:4:33: network.layers.0.activation: unknown activation 'relou'; "
        "did you mean 'relu'?",
        "c.yaml:5:8: network.layers.1.unit: unknown key 'unit'; did you mean 'units'?",
        "c.yaml:7:18: optimizer.learning_rate: expected a number, got the text 'yes'",
        "c.yaml:8:13: optimizer.momentum: expected a number below 1.0, got 1",
        "c.yaml:9:13: optimizer.nesterov: expected true or false, got the text 'no'",
        "c.yaml:10:7: loss: expected 'cross_entropy' or 'quadratic', got the text 'crossentropy'; "
        "did you mean 'cross_entropy'?",
        "c.yaml:11:20: data.validation: expected a whole number or 'auto', got 0.5; "
        "write a number of examples, not a fraction",
        "c.yaml:11:33: data.subset: expected a number of at least 1, got 0",
        "c.yaml:11:45: data.dataset: expected text that is not empty, got the text ''",
    ]


def test_the_error_names_the_file_and_the_number_of_mistakes() -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(""))
    assert caught.value.message == (
        "c.yaml has 2 mistakes:\n"
        "  c.yaml: network: 'network' is missing\n"
        "  c.yaml: optimizer: 'optimizer' is missing"
    )
    assert caught.value.exit_code == 2


KNOWN = "; valid keys:"
SCHEDULE = "  schedule: {name: step, "


@pytest.mark.parametrize(
    ("position", "key", "advice", "added"),
    [
        ("7:1", "traning", "; did you mean 'training'?", "traning: {}"),
        ("7:1", "epochs", " here; use training.epochs", "epochs: 3"),
        ("7:3", "optimizer.epochs", " here; use training.epochs", "  epochs: 3"),
        ("7:1", "dropout", " here; use network.layers.0.dropout", "dropout: 0.5"),
        ("7:3", "optimizer.batch_norm", " here; use network.layers.0.batch_norm", "  batch_norm: true"),  # noqa: E501 - a table
        ("7:12", "training.batch_norm", " here; use network.layers.0.batch_norm", "training: {batch_norm: true}"),  # noqa: E501 - a table
        ("7:3", "optimizer.Nesterov", "; did you mean 'nesterov'?", "  Nesterov: false"),
        ("7:26", "optimizer.schedule.gama", "; did you mean 'gamma'?", SCHEDULE + "gama: 3}"),
        ("7:3", "optimizer.x", f"{KNOWN} name, learning_rate, momentum, nesterov, beta1, beta2, epsilon, weight_decay, l1, clip_norm, max_norm, schedule", "  x: 3"),  # noqa: E501 - the whole message
        ("7:3", "optimizer.lr", "; use optimizer.learning_rate", "  lr: 3"),
        ("7:1", "lr", "; use optimizer.learning_rate", "lr: 3"),
        ("7:1", "neurons", "; use network.layers.0.units", "neurons: 3"),
        ("7:12", "training.bs", "; use training.batch_size", "training: {bs: 3}"),
        ("7:12", "training.batch", "; use training.batch_size", "training: {batch: 3}"),
        ("7:30", "optimizer.schedule.value", f"{KNOWN} warmup", SCHEDULE.replace("step", "constant") + "value: 1}"),  # noqa: E501 - a table
        ("7:1", "name", " here; use optimizer.name", "name: mine"),
        ("7:3", "optimizer.<<", " (a merge key), which YAML 1.2 does not have; write the merged keys out", "  <<: {}"),  # noqa: E501 - a table
    ],
)  # fmt: skip
def test_the_error_for_an_unknown_key_suggests_a_valid_one(
    position: str, key: str, advice: str, added: str
) -> None:
    name = key.rpartition(".")[2]
    expected = f"c.yaml:{position}: {key}: unknown key '{name}'{advice}"
    assert expected == mistake(f"{SMALL}{added}\n")


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("loss: crossentropy", "cross_entropy"),
        ("  name: AdamW", "adamw"),
        ("data: {dataset: MNIST}", "mnist"),
        ("  name: nonsense", None),
    ],
)
def test_a_misspelled_name_is_answered_with_the_most_similar_one(
    line: str, meant: str | None
) -> None:
    message = mistake(f"{SMALL}{line}\n", read=load_config)
    assert ("did you mean" in message) == bool(meant)
    assert f"did you mean '{meant}'?" in message or not meant


def test_the_keys_below_a_misspelled_key_are_checked_as_well() -> None:
    text = """\
netwrk:
  layrs:
    - {unit: x, activation: relu}
    - {units: 10, activation: softmx}
optimizer: {learning_rate: 0.1}
traning: {epochs: x, erly_stopping: {patience: 0}}
"""
    assert mistakes(text) == [
        "c.yaml:1:1: netwrk: unknown key 'netwrk'; did you mean 'network'?",
        "c.yaml:2:3: netwrk.layrs: unknown key 'layrs'; did you mean 'layers'?",
        "c.yaml:3:8: netwrk.layrs.0.unit: unknown key 'unit'; did you mean 'units'?",
        "c.yaml:3:14: netwrk.layrs.0.unit: expected a whole number, got the text 'x'",
        "c.yaml:4:31: netwrk.layrs.1.activation: unknown activation 'softmx'; "
        "did you mean 'softmax'?",
        "c.yaml:6:1: traning: unknown key 'traning'; did you mean 'training'?",
        "c.yaml:6:19: traning.epochs: expected a whole number or 'auto', got the text 'x'",
        "c.yaml:6:22: traning.erly_stopping: unknown key 'erly_stopping'; "
        "did you mean 'early_stopping'?",
        "c.yaml:6:48: traning.erly_stopping.patience: expected a number of at least 1, got 0",
    ]


def test_a_misspelled_key_beside_the_right_one_is_only_unknown() -> None:
    message = mistake(f"{SMALL}training: {{seed: 3}}\ntraning: {{seed: x}}\n")
    assert message == "c.yaml:8:1: traning: unknown key 'traning'; did you mean 'training'?"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("optimizer.learning_rate", SMALL.replace("0.1", "${LR}")),
        ("network.layers.0.activation", SMALL.replace("relu", "$ACTIVATION")),
        ("data.dataset", f"{SMALL}data: {{dataset: $HOME/digits}}\n"),
    ],
)
def test_a_shell_variable_in_yaml_is_answered_with_an_option(key: str, text: str) -> None:
    message = mistake(text, read=load_config)
    assert f" {key}: " in message
    assert "YAML has no variables: write the value, or set it with an option" in message


def test_an_unknown_key_is_never_suggested_itself() -> None:
    message = mistake(f"{SMALL}  schedule: {{name: constant, value: 1}}")
    assert "did you mean 'value'?" not in message


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        ("unknown key 'unіts' (with U+0456 CYRILLIC", "units", "unіts"),
        ("unknown key 'ｕnits' (with U+FF55 FULLWIDTH", "units", "ｕnits"),
        ("unknown activation 'rеlu' (with U+0435 CYRILLIC", "relu", "rеlu"),
        ("expected a whole number, got the text '５' (with U+FF15 FULLWIDTH", "5", "５"),
        ("unknown key 'un\u200bits' (with U+200B ZERO WIDTH SPACE)", "units", "un\u200bits"),
    ],
)
def test_letters_that_look_like_ascii_letters_are_named(
    expected: str, right: str, wrong: str
) -> None:
    assert any(expected in line for line in mistakes(SMALL.replace(right, wrong, 1)))


def test_text_that_utf_8_cannot_encode_is_a_mistake() -> None:
    text = SMALL.replace("relu", r'"\ud800"') + r'data: {"\udfff": 1}'
    assert mistakes(text) == [
        f"c.yaml:{position}: text cannot be encoded as UTF-8" for position in ("3:30", "7:8")
    ]
    assert "expected text that can be encoded as UTF-8" in mistake(SMALL, "\udcff=1")


def test_at_most_a_hundred_mistakes_are_listed() -> None:
    keys = "".join(f"k{number}: 1\n" for number in range(1234))
    with pytest.raises(ConfigError) as caught:
        load(written(SMALL + keys))
    first, *listed, last = caught.value.message.splitlines()
    assert (first, len(listed)) == ("c.yaml has 1234 mistakes:", 100)
    assert last == "  ... and 1,134 more"


def test_a_very_long_key_is_shown_without_its_middle() -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(f"{SMALL}? {'k' * 100_000}\n: 1\n"))
    assert len(caught.value.message) < 3000
    assert "kkk ... kkk" in caught.value.message


@pytest.mark.parametrize(
    ("start", "words", "layer"),
    [
        ("15: network.layers.0.units", "at least 1, got 0", "units: 0"),
        ("20: network.layers.0.batch_norm", "true, false or a mapping", "batch_norm: 1"),
        ("20: network.layers.0.batch_norm", "true, false or a mapping", "batch_norm: [x]"),
        (
            "31: network.layers.0.batch_norm.momentum",
            "below 1.0, got 1",
            "batch_norm: {momentum: 1}",
        ),
        ("30: network.layers.0.batch_norm.epsilon", "at least", "batch_norm: {epsilon: 0}"),
        ("31: network.layers.0.batch_norm.position", "'after'", "batch_norm: {position: aft}"),
        ("15: network.layers.0.units", "at most 1000000, got 1000001", "units: 1000001"),
        ("14: network.layers.0.init", "a mapping, got 3; use {name: normal, std: 3}", "init: 3"),
        ("14: network.layers.0.init", "did you mean 'he_normal'?", "init: he_norml"),
        ("14: network.layers.0.init", "negative, got -1", "init: {name: normal, std: -1}"),
        ("15: network.layers.0.init.wieghts", "mean 'weights'?", "init: {wieghts: zeros}"),
        ("43: network.layers.0.init.biases.std", "'x'", "init: {biases: {name: normal, std: x}}"),
        (
            "24: network.layers.0.init.weights",
            "low (2) must not be above high (1)",
            "init: {weights: {name: uniform, low: 2, high: 1}}",
        ),
    ],
)
def test_a_mistake_in_a_layer_is_reported_at_its_position(
    start: str, words: str, layer: str
) -> None:
    units = "" if layer.startswith("units") else ", units: 5"
    message = mistake(SMALL.replace("units: 5", layer + units))
    assert message.startswith(f"c.yaml:3:{start}: ")
    assert words in message


@pytest.mark.parametrize(
    ("expected", "added"),
    [
        ("data.augment.elastic: expected a mapping", "data: {augment: {elastic: 3}}"),
        ("rotation: unknown key 'rotation'; did you mean", "data: {augment: {rotation: 20}}"),
        ("expected a number of at most 180.0, got 200", "data: {augment: {rotate: 200}}"),
        ("expected a number of at least 0.0, got -1", "data: {augment: {noise: -1}}"),
        ("training.average: expected a number below 1.0, got 1", "training: {average: 1}"),
        (
            "training.monitor.1: expected 'cost', 'train_accuracy' or 'test', got the text "
            "'tests'; did you mean 'test'?",
            "training: {monitor: [cost, tests]}",
        ),
        ("training.monitor: expected a list, got the text 'cost'", "training: {monitor: cost}"),
        ("training.monitor_every: expected a number of at", "training: {monitor_every: 0}"),
        *(
            (
                "training.validate_every: expected a whole number of epochs from 1, or a time such "
                "as 30s, 10m or 2h",
                f"training: {{validate_every: {value}}}",
            )
            for value in ("0", "1.5", "true", "30 s", "0s", "1e3s", "null")
        ),
        ("optimizer.clip_norm: expected a number above 0.0, got 0", "  clip_norm: 0"),
        ("got the text 'quadratik'; did you mean 'quadratic'?", "loss: quadratik"),
        ("optimizer.max_norm: expected a number, got the text 'x'", "  max_norm: x"),
    ],
)
def test_a_value_out_of_its_bounds_is_reported(expected: str, added: str) -> None:
    assert expected in mistake(f"{SMALL}{added}\n")


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (f"'xyz'; choose from: {', '.join(ACTIVATIONS)}", "xyz"),
        ("unknown key 'xyz'; no other keys are allowed", "{name: relu, xyz: 1}"),
    ],
)
def test_the_error_for_an_unknown_name_or_parameter_lists_the_valid_ones(
    expected: str, value: str
) -> None:
    assert mistake(SMALL.replace("relu", value)).endswith(expected)


@pytest.mark.parametrize("value", ["3", "null", "{nme: relu}", "[relu]", "{name: 3}", "{}", "true"])
def test_an_activation_that_is_not_a_name_is_refused(value: str) -> None:
    expected = "c.yaml:3:30: network.layers.0.activation: expected the name of a known activation"
    assert expected == mistake(SMALL.replace("relu", value))


@pytest.mark.parametrize(
    ("expected", "section"),
    [
        ("10: network: expected a mapping (key: value), got 3", "network: 3"),
        ("9: network: expected a mapping (key: value), got nothing", "network:"),
        ("10: network.layers: 'layers' is missing", "network: {}"),
        ("19: network.layers: expected a list, got a mapping", "network: {layers: {}}"),
        (
            "19: network.layers: expected 1 or more items, got a list of length 0",
            "network: {layers: []}",
        ),
        (
            "20: network.layers.0: expected a mapping (key: value), got the text 'relu'",
            "network: {layers: [relu]}",
        ),
    ],
)
def test_a_section_of_the_wrong_type_is_reported_at_its_position(
    expected: str, section: str
) -> None:
    assert f"c.yaml:1:{expected}" == mistake(f"{section}\noptimizer: {{learning_rate: 1}}\n")


@pytest.mark.parametrize("key", ["network.layers.0.units", "data.validation", "data.subset"])
def test_a_hexadecimal_number_of_5000_digits_is_rejected(key: str) -> None:
    assert key in mistake(SMALL, f"{key}=0x{'f' * 5000}", read=load_config)


# Contradictions ----------------------------------------------------------------------------------

OVER_RELU = (
    "loss: cross_entropy is defined over softmax or sigmoid outputs, not over relu; "
    "use quadratic, or another activation in the last layer"
)
NESTEROV = "optimizer.nesterov: nesterov needs momentum, which is 0; set optimizer.momentum"


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (
            "3:30: network.layers.0.activation: softmax is for the last layer only; use relu, tanh "
            "or sigmoid in a hidden layer",
            SMALL.replace("relu", "softmax"),
        ),
        (
            "4:15: network.layers.1.units: softmax over one unit is always 1; use one unit per "
            "class, or sigmoid",
            SMALL.replace("units: 10", "units: 1"),
        ),
        (f"7:7: {OVER_RELU}", f"{SMALL.replace('softmax', 'relu')}loss: cross_entropy"),
        (f"1:1: {OVER_RELU}", SMALL.replace("softmax", "relu")),
        (f"7:13: {NESTEROV}", f"{SMALL}  nesterov: true"),
        (
            "7:13: optimizer.momentum: momentum is for sgd only, not for adam; remove it, set it "
            "to 0.0, or use sgd",
            f"{SMALL}  momentum: 0.9\n  name: adam",
        ),
        (
            "7:10: optimizer.beta1: beta1 is for adam and adamw only, not for sgd; remove it, set "
            "it to null, or use adam or adamw",
            f"{SMALL}  beta1: 0.8",
        ),
        (
            "7:17: optimizer.weight_decay: learning_rate * weight_decay must be below 1: each "
            "step multiplies the weights by 1 - 0.1 * 10",
            f"{SMALL}  weight_decay: 10",
        ),
        (
            "4:49: network.layers.1.dropout: dropout is for hidden layers only; set it in an "
            "earlier layer",
            SMALL.replace("softmax}", "softmax, dropout: 0.5}"),
        ),
        (
            "4:52: network.layers.1.batch_norm: batch_norm is for hidden layers only; set it in an "
            "earlier layer",
            SMALL.replace("softmax}", "softmax, batch_norm: true}"),
        ),
        (
            "7:24: training.batch_size: batch_norm needs 2 or more examples in a batch: the "
            "variance of one is 0, so nothing would be learned",
            f"{SMALL.replace('relu}', 'relu, batch_norm: true}')}training: {{batch_size: 1}}",
        ),
        (
            "7:16: data.subset: batch_norm needs 2 or more examples in a batch: the variance of "
            "one is 0, so nothing would be learned",
            f"{SMALL.replace('relu}', 'relu, batch_norm: {}}')}data: {{subset: 1}}",
        ),
        (
            "7:28: training.early_stopping: early stopping needs validation examples, but "
            "data.validation is 0",
            f"{SMALL}training: {{early_stopping: {{patience: 3}}}}\ndata: {{validation: 0}}",
        ),
        (
            "7:59: training.validate_every: early stopping needs a number of epochs here: with a "
            "time, the trained weights would depend on the speed of the machine",
            f"{SMALL}training: {{early_stopping: {{patience: 3}}, validate_every: 30s}}",
        ),
        (
            "7:13: optimizer.schedule: the schedule plateau needs validation examples, but "
            "data.validation is 0",
            f"{SMALL}  schedule: plateau\ndata: {{validation: 0}}",
        ),
    ],
)
def test_contradictory_values_are_reported(expected: str, text: str) -> None:
    assert f"c.yaml:{expected}" == mistake(text)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        # Independent mistakes are reported together.
        ("7:9 8:3", f"{SMALL}  name: [sgd]\n  foo: 1"),
        ("3:30 7:13 8:3", f"{SMALL.replace('relu', 'softmax')}  nesterov: true\n  foo: 1"),
        ("3:7 7:13", f"{SMALL.replace('{units: 5, activation: relu}', 'relu')}  nesterov: true"),
        # Possible consequences of another mistake are not reported.
        ("7:13", f"{SMALL}  momentum: 2\n  nesterov: true"),
        ("7:3", f"{SMALL}  momentun: 0.9\n  nesterov: true"),
        ("6:18", f"{SMALL.replace('0.1', '-1')}  weight_decay: 10"),
        ("4:31", SMALL.replace("softmax", "sofmax")),
        ("4:15", SMALL.replace("10", "'10'")),
        ("7:7", f"{SMALL.replace('softmax', 'relu')}loss: mse"),
        ("8:20", f"{SMALL}training: {{early_stopping: {{patience: 1}}}}\ndata: {{validation: x}}"),
    ],
)
def test_independent_mistakes_are_reported_and_consequences_are_not(
    expected: str, text: str
) -> None:
    assert expected.split() == positions(mistakes(text))


# Checks against the dataset and the machine ------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "setting"),
    [
        ("the last layer has 9 units, but 10 classes need 10", "network.layers.1.units=9"),
        (
            "cannot hold out 60,000 of the 60,000 examples of mnist; auto holds out 10,000",
            "data.validation=60000",
        ),
        (
            "50,001 examples are more than the 50,000 left for training: 10,000 of 60,000 are held "
            "out for validation",
            "data.subset=50001",
        ),
        ("fold 6 of 5 does not exist; the first is 1", "data.fold={number: 6, of: 5}"),
        (
            "the 60,000 examples of mnist are too few for 60,001 folds",
            "data.fold={number: 1, of: 60001}",
        ),
        (
            "unknown dataset 'mnits'; did you mean 'mnist'? A dataset is mnist, fashion-mnist, "
            "kmnist, qmnist, emnist-digits, emnist-letters, mini, a logic gate (and, or, nand, "
            "xor), or a folder or file with images.",
            "data.dataset=mnits",
        ),
    ],
)
def test_a_configuration_is_checked_against_its_dataset(expected: str, setting: str) -> None:
    key = setting.partition("=")[0]
    assert f"--set {setting}: {key}: {expected}" == mistake(SMALL, setting, read=load_config)


def test_a_fold_and_another_number_of_validation_examples_contradict_each_other() -> None:
    settings = ("data.fold={number: 2, of: 7}", "data.validation=100")
    message = mistake(SMALL, *settings, read=load_config)
    assert "100 examples cannot be held out together with data.fold, which holds out 8,572" in (
        message
    )


@pytest.mark.parametrize(
    ("dataset", "validation", "subset"),
    [("mnist", "auto", 50_000), ("mnist", 59_999, 1), ("mini", "auto", 4167), ("mini", 0, 5000)],
)
def test_a_subset_may_contain_all_training_examples(
    dataset: str, validation: object, subset: int
) -> None:
    data = f"data: {{dataset: {dataset}, validation: {validation}, subset: %d}}\n"
    assert subset == load_config(written(SMALL + data % subset)).data.subset
    assert "data.subset" in mistake(SMALL + data % (subset + 1), read=load_config)


def test_an_unknown_dataset_does_not_hide_other_mistakes() -> None:
    text = f"{SMALL}  nesterov: true\ndata: {{dataset: mnits}}\n"
    assert positions(mistakes(text, read=load_config)) == ["7:13", "8:17"]


def test_a_directory_that_is_not_a_dataset_is_a_data_error_without_a_fallback() -> None:
    Path("digits").mkdir()
    config = load_config(written(f"{SMALL}data: {{dataset: digits}}\n"))
    with pytest.raises(DataError, match="digits contains no dataset: it is empty"):
        find_dataset(config.data, lambda _: None)
    with_fallback = load_config(written(f"{SMALL}data: {{dataset: digits, fallback: mini}}\n"))
    dataset = find_dataset(with_fallback.data, lambda _: None)
    assert resolve_auto(with_fallback, dataset).data.dataset == "mini"


def test_a_relative_path_of_a_dataset_is_searched_beside_the_file_and_then_here(
    mini_folder: Path, scratch: Path
) -> None:
    Path("there").mkdir()
    config = written(f"{SMALL}data: {{dataset: digits}}\n").rename("there/c.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config(config)
    not_found = f"Not found: {scratch / 'there' / 'digits'}, {scratch / 'digits'}"
    (message,) = caught.value.mistakes
    assert message.startswith("there/c.yaml:7:17: data.dataset: unknown dataset 'digits'")
    assert message.endswith(not_found)

    mini_folder.rename("digits")
    assert load_config(config).data.dataset == "digits"
    shutil.copytree("digits", "there/digits")
    assert load_config(config).data.dataset == str(Path("there/digits"))
    dataset = Override("data.dataset", "digits", "--dataset digits")
    assert load_config(config, [dataset]).data.dataset == "digits"


@pytest.mark.parametrize("name", ["mini", "xor"])
def test_a_folder_does_not_hide_a_dataset_with_its_name(name: str) -> None:
    Path(name).mkdir()
    units = {"mini": 10, "xor": 2}[name]
    text = SMALL.replace("units: 10", f"units: {units}")
    assert load_config(written(f"{text}data: {{dataset: {name}}}\n")).data.dataset == name


def test_a_dataset_name_that_is_too_long_for_a_directory_is_unknown() -> None:
    assert "unknown dataset" in mistake(SMALL, f"data.dataset={'x' * 300}", read=load_config)


def test_a_network_that_needs_more_memory_than_the_machine_has_is_rejected() -> None:
    large = "    - {units: 1000000, activation: relu}\n"
    text = SMALL.replace("    - {units: 5, activation: relu}\n", 2 * large)
    message = mistake(text, read=load_config)
    available = psutil.virtual_memory().total / 1e9
    assert message.startswith("c.yaml:3:5: network.layers: training this network needs about 16,0")
    assert f"GB of memory, and this machine has {available:,.1f} GB; use fewer units" in message


# Overrides ---------------------------------------------------------------------------------------


def test_a_mistake_in_an_override_is_reported_at_the_option() -> None:
    assert mistakes(f"{SMALL}foo: 1\n", "network.layers.0.units=x", "optimizer={momentum: 2}") == [
        f"c.yaml:7:1: foo: unknown key 'foo'{KNOWN} data, network, loss, optimizer, training",
        "--set network.layers.0.units=x: network.layers.0.units: expected a whole number, got the "
        "text 'x'",
        "--set optimizer={momentum: 2}: optimizer.learning_rate: 'learning_rate' is missing",
        "--set optimizer={momentum: 2}: optimizer.momentum: expected a number below 1.0, got 2",
    ]


def test_an_override_may_contradict_the_file() -> None:
    assert f"--set optimizer.nesterov=true: {NESTEROV}" == mistake(SMALL, "optimizer.nesterov=true")


@pytest.mark.parametrize("key", ["trainig.epochs", "data.foo.bar", "training.early_stoping.metric"])
def test_a_section_misspelled_in_an_override_is_reported_at_the_option(key: str) -> None:
    assert {f"--set {key}=3"} == {*positions(mistakes(SMALL, f"{key}=3"))}
