"""Diagnoses why a dataset keeps a network from learning: its pixels, its labels, and its split.

The thresholds are far from the values of MNIST, which has no diagnosis.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nnctl.data.dataset import image_side
from nnctl.diagnosis.base import Diagnosis
from nnctl.nn.examples import Examples
from nnctl.nn.metrics import logits_of
from nnctl.nn.network import Network
from nnctl.text import enumeration, percent

Images = NDArray[np.uint8]

LIGHT = 0.9
"""Threshold for a light background: fraction of the images whose border is light."""
COPIES = 0.05
"""Threshold for constant and for repeated images: fraction of the images."""
LEAKED = 0.01
"""Threshold for test images that occur in training: fraction of the test images."""
RARE = 0.2
"""Threshold for a rare class: fraction of the number of images of the median class."""
ENOUGH = 20
"""Images per class below which the number of images of a class is a matter of luck."""
AGREEMENT = 0.1
"""Threshold for labels that do not belong to the images: agreement with the most similar image.

Agreement by chance counts as 0, perfect agreement as 1 (Cohen's kappa).
"""
CONTRADICTED = 0.15
"""Threshold for wrong labels: fraction of training images that a trained network contradicts."""
MOST_CONTRADICTED = 0.45
"""A network that contradicts more of its training images has not learned enough to judge them."""
UNLIKELY = 0.2
"""Threshold for wrong labels: mean fraction of the other classes that the network prefers.

An ordinary mistake has the label in second place, which counts as 0; a random label may be in any
place. On MNIST the mean is at most 0.13, and 0.22 or more if a fifth of the labels is random.
"""
TRANSPOSED = 0.15
"""Threshold for transposed images: how much better the transposed class means agree."""
SAMPLE = 1000
"""Images that are compared with each other; more take time."""


def diagnose_data(
    training: Examples,
    validation: Examples | None,
    test: Examples | None,
    class_names: Sequence[str] | None,
) -> list[Diagnosis]:
    """Return the problems of a dataset; none if its examples are not square images.

    Parameters
    ----------
    training, validation : Examples
        Images and labels that the configuration uses for training and validation.
    test : Examples, optional
        Test images. They are only compared with the training images.
    class_names : sequence of str, optional
        Name of each class; None for a binary task, whose classes are seldom balanced.
    """
    side = image_side(training.inputs.shape[1])
    if side is None:
        return []
    problems = [
        *_scaled_twice(training.inputs),
        *_light_background(training.inputs, side),
        *(_classes(training, validation, class_names) if class_names else ()),
        *_constant_images(training.inputs),
    ]
    labels: dict[bytes, int] = {}  # of each different image
    problems += _repeated_images(training, labels)
    if not problems:
        problems += _labels(training)
    if test is not None and len(test):
        problems += [*_transposed(training, test, side), *_leaked(labels, test)]
    return problems


def diagnose_labels(network: Network, training: Examples) -> list[Diagnosis]:
    """Return the problem of labels that a trained network contradicts, if there is one.

    Parameters
    ----------
    network : Network
        Network after training.
    training : Examples
        Training images and their labels.
    """
    units = network.sizes[-1]
    if units < 3:
        return []
    sample = slice(None, None, max(1, len(training) // (5 * SAMPLE)))
    labels = training.labels[sample].astype(np.intp)
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = network.outputs(logits_of(network, training.inputs[sample]))
    of_label = outputs[np.arange(len(labels)), labels]
    preferred = (outputs > of_label[:, None]).sum(axis=1)  # number of classes before the label
    contradicted = preferred > 0
    share = float(np.mean(contradicted))
    if not CONTRADICTED <= share <= MOST_CONTRADICTED:
        return []
    if float(np.mean(preferred[contradicted] - 1)) < UNLIKELY * (units - 2):
        return []
    return [
        Diagnosis(
            "wrong labels",
            f"the network contradicts {percent(share, 0)} of the training labels, and "
            "it finds these labels as unlikely as random ones",
            "many labels do not belong to their images; the network learned from the others",
            "correct the labels: a report shows the images with the largest loss first",
        )
    ]


def _scaled_twice(images: Images) -> Iterator[Diagnosis]:
    """Report pixels from 0 to 1 that are stored as bytes."""
    if images.max() == 1:
        yield Diagnosis(
            "pixels scaled twice",
            f"the largest pixel of {len(images):,} images is 1, of 255 possible",
            "pixels are divided by 255 when they are read, so the inputs are nearly 0",
            "save the images as integers from 0 to 255, before they are scaled to 0..1",
        )


def _light_background(images: Images, side: int) -> Iterator[Diagnosis]:
    """Report dark strokes on a light background."""
    border = np.ones((side, side), bool)
    border[1:-1, 1:-1] = False
    sample = images[:: max(1, len(images) // SAMPLE)]
    light = float(np.mean(np.median(sample[:, border.ravel()], axis=1) > 127))
    if light >= LIGHT:
        yield Diagnosis(
            "light background",
            f"{percent(light, 0)} of the images have a light border; the mean pixel is "
            f"{sample.mean():.0f} of 255",
            "MNIST's digits are light strokes on a dark background. If most inputs are near 1, a "
            "step changes all weights of a unit in the same direction, and images of the usual "
            "kind are classified wrongly",
            "invert the images: save 255 minus each pixel",
        )


def _classes(
    training: Examples, validation: Examples | None, class_names: Sequence[str]
) -> Iterator[Diagnosis]:
    """Report classes that are missing from the training images, or rare."""
    counts = np.bincount(training.labels, minlength=len(class_names))
    held_out = np.zeros_like(counts)
    if validation is not None:
        held_out = np.bincount(validation.labels, minlength=len(class_names))
    missing, lost = counts == 0, (counts == 0) & (held_out > 0)
    if lost.any():
        yield Diagnosis(
            "classes sorted",
            f"no training image is of class {_names(lost, class_names)}, but "
            f"{held_out[lost].sum():,} validation images are",
            "the last images are held out for validation, and the images are sorted by class, at "
            "least some of them: the network is measured with classes that it never sees",
            "set data.split: stratified, which holds out the same share of each class",
        )
    elif missing.any():
        yield Diagnosis(
            "missing classes",
            f"no training image is of class {_names(missing, class_names)}",
            "a network cannot learn a class without examples",
            "add images of these classes, or remove the classes and their units in the last layer",
        )
    typical = float(np.median(counts[~missing])) if not missing.all() else 0.0
    rare = ~missing & (counts < RARE * typical)
    if rare.any() and typical >= ENOUGH:
        listed = ", ".join(
            f"{class_names[i]}: {counts[i]:,}" for i in np.flatnonzero(rare).tolist()
        )
        yield Diagnosis(
            "rare classes",
            f"training images of rare classes: {listed}; of a typical class: {typical:,.0f}",
            "rare classes hardly change the mean loss, so the network learns to ignore them",
            "set training.class_weights: balanced, and data.split: stratified",
        )


def _names(chosen: NDArray[np.bool_], class_names: Sequence[str]) -> str:
    """Return the names of the chosen classes as a list."""
    return enumeration([class_names[i] for i in np.flatnonzero(chosen).tolist()], "or")


def _constant_images(images: Images) -> Iterator[Diagnosis]:
    """Report images whose pixels are all equal."""
    constant = int(np.count_nonzero((images == images[:, :1]).all(axis=1)))
    if constant >= COPIES * len(images):
        yield Diagnosis(
            "constant images",
            f"{constant:,} of {len(images):,} training images have the same value in all pixels",
            "such images say nothing about their class",
            "remove them, or export the images again",
        )


def _repeated_images(training: Examples, labels: dict[bytes, int]) -> Iterator[Diagnosis]:
    """Report images that occur several times, and fill in the labels of the different images."""
    relabeled = 0
    for image, label in zip(training.inputs, training.labels, strict=True):
        relabeled += labels.setdefault(image.tobytes(), int(label)) != label
    repeated = len(training) - len(labels)
    if repeated >= COPIES * len(training):
        other = f", {relabeled:,} of them with another label" if relabeled else ""
        yield Diagnosis(
            "repeated images",
            f"{repeated:,} of {len(training):,} training images are copies of others{other}",
            "copies add no information, and the validation accuracy is too high if some of them "
            "are held out",
            "remove the copies",
        )


def _labels(training: Examples) -> Iterator[Diagnosis]:
    """Report labels that agree with those of similar images no more often than by chance."""
    order = np.sort(np.random.default_rng(0).permutation(len(training))[: 3 * SAMPLE])
    images, labels = training.inputs[order].astype(np.float32), training.labels[order]
    classes = len(np.unique(labels))
    if classes < 2 or len(images) < ENOUGH * classes:
        return
    images -= images.mean(axis=0)
    queries = images[:SAMPLE]
    distances = np.einsum("ij,ij->i", images, images) - 2 * queries @ images.T
    distances[np.diag_indices(len(queries))] = np.inf  # of an image to itself
    agreement = float(np.mean(labels[distances.argmin(axis=1)] == labels[: len(queries)]))
    by_chance = float(np.sum((np.bincount(labels) / len(labels)) ** 2))
    if agreement - by_chance < AGREEMENT * (1 - by_chance):
        yield Diagnosis(
            "wrong labels",
            f"the most similar image has the same label for {percent(agreement, 0)} of the images; "
            f"random labels would give {percent(by_chance, 0)}",
            "the labels do not belong to the images: a network can only learn them by heart",
            "check that images and labels are in the same order, and from the same source",
        )


def _transposed(training: Examples, test: Examples, side: int) -> Iterator[Diagnosis]:
    """Report test images whose rows are the columns of the training images."""
    if len(test) < ENOUGH or set(np.unique(test.labels)) != set(np.unique(training.labels)):
        return
    expected, actual = _class_means(training), _class_means(test)
    turned = actual.reshape(-1, side, side).transpose(0, 2, 1).reshape(len(actual), -1)
    scale = np.linalg.norm(expected) * np.linalg.norm(actual)
    if scale == 0:
        return
    straight, transposed = (float((expected * means).sum() / scale) for means in (actual, turned))
    if transposed > straight + TRANSPOSED:
        yield Diagnosis(
            "transposed images",
            f"the correlation of the mean test and training images is {straight:.2f}, and "
            f"{transposed:.2f} if rows and columns of the test images are exchanged",
            "the rows of the test images are the columns of the training images",
            "transpose the images of one of the two files, as is necessary for EMNIST",
        )


def _class_means(examples: Examples) -> NDArray[np.float64]:
    """Return the mean image of each class, minus the mean of all of them, ``(classes, pixels)``."""
    classes = np.unique(examples.labels)
    means = [examples.inputs[examples.labels == label][:SAMPLE].mean(axis=0) for label in classes]
    centered: NDArray[np.float64] = np.array(means) - np.mean(means, axis=0)
    return centered


def _leaked(known: Container[bytes], test: Examples) -> Iterator[Diagnosis]:
    """Report test images that occur in training."""
    leaked = sum(image.tobytes() in known for image in test.inputs)
    if leaked >= max(1, LEAKED * len(test)):
        yield Diagnosis(
            "test images in training",
            f"{leaked:,} of {len(test):,} test images are also training images",
            "the test accuracy is too high: it counts images that the network was trained on",
            "remove these images from one of the two sets",
        )
