"""Datasets that are known by name: their files with hashes, mirrors and names of classes.

TensorFlow Datasets publishes the sizes and hashes of Fashion-MNIST, KMNIST and EMNIST, and
torchvision the MD5 hashes of QMNIST. EMNIST's archive has a hash; no hashes of the files in it are
published, so these are verified by their structure and by the CRC-32 of gzip only.
"""

from __future__ import annotations

import functools
import hashlib
import io
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnctl.errors import DataError

TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
"""The four files of every dataset."""

DIGITS = tuple(string.digits)

SCHEMES = ("http", "https")
"""Schemes of the URL of a mirror."""


def hash_of(file: Path | bytes, known_hash: str = "") -> str:
    """Return the hash of a file or content in the form of a known one, by default its SHA-256.

    Raises
    ------
    DataError
        The file cannot be read.
    """
    algorithm, colon, _ = known_hash.rpartition(":")
    # Some systems refuse MD5 for security.
    new = functools.partial(hashlib.new, algorithm or "sha256", usedforsecurity=False)
    try:
        with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as opened:
            digest = hashlib.file_digest(opened, new)
    except OSError as error:
        raise DataError(f"{file!s} cannot be read: {error.strerror}") from None
    return algorithm + colon + digest.hexdigest()


@dataclass(frozen=True)
class KnownFile:
    """Size and hashes of a dataset file, compressed as published and uncompressed.

    Parameters
    ----------
    name : str
        File name in the cache, without ``.gz``.
    size : int, optional
        Size of the gzip file in bytes.
    hash : str, optional
        SHA-256 of the gzip file, or ``md5:`` and its MD5, as in a registry of pooch. None: the file
        is verified by its structure only.
    idx_sha256 : str, optional
        SHA-256 of the uncompressed IDX file.
    remote_name : str, optional
        Name on mirrors, or in an archive, if it is not ``<name>.gz``.
    """

    name: str
    size: int | None = None
    hash: str | None = None
    idx_sha256: str | None = None
    remote_name: str | None = None

    @property
    def gzip_name(self) -> str:
        """Name of the compressed file in the cache."""
        return f"{self.name}.gz"

    @property
    def published_name(self) -> str:
        """Name on mirrors, or in an archive."""
        return self.remote_name or self.gzip_name


@dataclass(frozen=True)
class KnownDataset:
    """A dataset that has a name.

    Parameters
    ----------
    name : str
        Name in a configuration, and of its folder in the cache.
    title : str
        Name for people.
    files : tuple of KnownFile
        The files, in the order of `NAMES`.
    mirrors : tuple of str
        Base URLs, in the order in which they are tried after the user's own mirrors.
    n_training : int
        Number of training examples.
    class_names : tuple of str
        Names of the classes.
    archive : KnownFile, optional
        Zip archive that contains the files.
    transposed : bool
        Whether rows and columns of the images in the files are swapped.
    first_label : int
        Label of the first class.
    """

    name: str
    title: str
    files: tuple[KnownFile, ...]
    mirrors: tuple[str, ...] = ()
    n_training: int = 60_000
    class_names: tuple[str, ...] = DIGITS
    archive: KnownFile | None = None
    transposed: bool = False
    first_label: int = 0


def _files(
    *published: tuple[int, str], plain: Sequence[str | None] = (None,) * 4
) -> tuple[KnownFile, ...]:
    """Return the four files, in the order of `NAMES`.

    Parameters
    ----------
    *published : (int, str)
        Size in bytes and SHA-256 of each gzip file.
    plain : sequence of str, optional
        SHA-256 of each file without compression.
    """
    return tuple(
        KnownFile(name, size, sha256, idx_sha256)
        for name, (size, sha256), idx_sha256 in zip(NAMES, published, plain, strict=True)
    )


MNIST = KnownDataset(
    "mnist",
    "MNIST",
    _files(
        (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        plain=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
)

MINI = KnownDataset(
    "mini",
    "mini",
    _files(
        (804877, "8d1eae75b5aff396cd29c4ac1bf9940059221ef7e568d080f6699358bfad60c3"),
        (2534, "183f0d6e1c50136e698f8b78509f7a351c300f33cb73b17cf97a81d900371324"),
        (155853, "c38842f3fc122aeb56961328eacf41c4315fb33e95ce0e9d0c97f3bd3d5b62c6"),
        (526, "689b4d1da0ae1049125d2f91e157009a132a2a1e76b45a178dc0b359e1f74255"),
        plain=(
            "1e3ffdb2f57e22d9e5363dde25c2d057542c2e72baa312f0f3b03948bb3802b7",
            "685aeb7baef68233efa643639a5e9c15bb48be09a628f96fb7f606ca2a1ea7bc",
            "de7c252b04f05e1f8309634180ccdf286dc6dbac8c579b74e76e02ae0331ca52",
            "832c0d20f0dc42e575488c75a83a970787d4c8d4d05831b2ef03701b4a478a90",
        ),
    ),
    n_training=5_000,
)
"""The first examples of MNIST; they are part of the package."""

FASHION_MNIST = KnownDataset(
    "fashion-mnist",
    "Fashion-MNIST",
    _files(
        (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker"),
        *("Bag", "Ankle boot"),
    ),
)

KMNIST = KnownDataset(
    "kmnist",
    "KMNIST",
    _files(
        (18165135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
        (29497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
        (3041136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
        (5120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
    ),
    ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
)

QMNIST = KnownDataset(
    "qmnist",
    "QMNIST",
    tuple(
        KnownFile(name, hash=f"md5:{md5}", remote_name=f"qmnist-{remote_name}.gz")
        for name, remote_name, md5 in (
            (TRAIN_IMAGES, "train-images-idx3-ubyte", "ed72d4157d28c017586c42bc6afe6370"),
            (TRAIN_LABELS, "train-labels-idx2-int", "0058f8dd561b90ffdd0f734c6a30e5e4"),
            (TEST_IMAGES, "test-images-idx3-ubyte", "1394631089c404de565df7b7aeaf9412"),
            (TEST_LABELS, "test-labels-idx2-int", "5b5b05890a5e13444e108efe57b788aa"),
        )
    ),
    ("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
)


def _emnist(part: str, n_training: int, class_names: tuple[str, ...], first: int) -> KnownDataset:
    """Return a part of EMNIST; all parts are in one archive."""
    return KnownDataset(
        f"emnist-{part}",
        f"EMNIST {part}",
        tuple(
            KnownFile(name, remote_name=f"emnist-{part}-{name.replace('t10k', 'test')}.gz")
            for name in NAMES
        ),
        (
            "https://biometrics.nist.gov/cs_links/EMNIST/",
            "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
        ),
        n_training,
        class_names,
        archive=KnownFile(
            "gzip.zip",
            561753746,
            "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
            remote_name="gzip.zip",
        ),
        transposed=True,
        first_label=first,
    )


DATASETS = {
    dataset.name: dataset
    for dataset in (
        MNIST,
        FASHION_MNIST,
        KMNIST,
        QMNIST,
        _emnist("digits", 240_000, DIGITS, 0),
        _emnist("letters", 124_800, tuple(string.ascii_lowercase), 1),
    )
}
"""The datasets that can be downloaded."""
