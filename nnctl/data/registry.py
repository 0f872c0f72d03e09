"""Files with known SHA-256 hashes, and the mirrors that serve them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownFile:
    """Sizes and hashes of a dataset file, compressed as published and uncompressed.

    Parameters
    ----------
    name : str
        File name without ``.gz``.
    size, sha256 : int, str
        Size in bytes and hash of the gzip file.
    idx_size, idx_sha256 : int, str
        Size in bytes and hash of the uncompressed IDX file.
    """

    name: str
    size: int
    sha256: str
    idx_size: int
    idx_sha256: str

    @property
    def gzip_name(self) -> str:
        """File name on mirrors."""
        return f"{self.name}.gz"


TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"
TEST_IMAGES = "t10k-images-idx3-ubyte"
TEST_LABELS = "t10k-labels-idx1-ubyte"
NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)
"""The four files of every dataset."""

CLASSES = 10

MNIST = {
    file.name: file
    for file in (
        KnownFile(
            TRAIN_IMAGES,
            9912422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            47040016,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        KnownFile(
            TRAIN_LABELS,
            28881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            60008,
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        KnownFile(
            TEST_IMAGES,
            1648877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            7840016,
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        KnownFile(
            TEST_LABELS,
            4542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            10008,
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    )
}

MINI = {
    file.name: file
    for file in (
        KnownFile(
            TRAIN_IMAGES,
            804877,
            "8d1eae75b5aff396cd29c4ac1bf9940059221ef7e568d080f6699358bfad60c3",
            3920016,
            "1e3ffdb2f57e22d9e5363dde25c2d057542c2e72baa312f0f3b03948bb3802b7",
        ),
        KnownFile(
            TRAIN_LABELS,
            2534,
            "183f0d6e1c50136e698f8b78509f7a351c300f33cb73b17cf97a81d900371324",
            5008,
            "685aeb7baef68233efa643639a5e9c15bb48be09a628f96fb7f606ca2a1ea7bc",
        ),
        KnownFile(
            TEST_IMAGES,
            155853,
            "c38842f3fc122aeb56961328eacf41c4315fb33e95ce0e9d0c97f3bd3d5b62c6",
            784016,
            "de7c252b04f05e1f8309634180ccdf286dc6dbac8c579b74e76e02ae0331ca52",
        ),
        KnownFile(
            TEST_LABELS,
            526,
            "689b4d1da0ae1049125d2f91e157009a132a2a1e76b45a178dc0b359e1f74255",
            1008,
            "832c0d20f0dc42e575488c75a83a970787d4c8d4d05831b2ef03701b4a478a90",
        ),
    )
}

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://raw.githubusercontent.com/fgnt/mnist/master/",
)
"""Mirrors of MNIST in the order in which they are tried, after the user's own mirrors."""
