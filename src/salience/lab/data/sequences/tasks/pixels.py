"""`smnist`, `psmnist`, `digits49` and `fashion`: a picture of 28 x 28 read as a sequence, and its class at the end.

smnist    pixel by pixel, row by row: 784 scalars                     psmnist   the same in one fixed random order
digits49  49 patches of 4 x 4 pixels, row by row, 16 numbers each     fashion   as smnist, articles of clothing
The digits are the 5,000 of `readers.mnist`, or with `folder=PATH` the four files of MNIST or of another set of its
format. Fashion-MNIST comes from `folder=PATH`, else from Debian's package `dataset-fashion-mnist`, else from the cache
or its authors' address. The last twelfth of a published training set is val; test is as published. Pixels are
(x / 255 - mean) / deviation with two constants of the training pixels.

Source: Le, Jaitly and Hinton, arXiv:1504.00941 (pixel by pixel, permuted); Xiao, Rasul and Vollgraf, arXiv:1708.07747.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from salience.lab.data.readers.mnist import CREDIT, FILES, LICENCE, DigitImages, fetch, read_pair, split_digits
from salience.lab.data.sequences.draws import order_of
from salience.lab.data.sequences.sequence_task import SequenceTask
from salience.lab.data.sequences.splits import Stored
from salience.lab.data.sequences.task_options import Options

#: folder: of the four IDX files   train, test: at most so many pictures; 0 for all
OPTIONS: Options = {"folder": "", "train": (0, 0, 1 << 30), "test": (0, 0, 1 << 30)}

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
#: MD5 of the gzipped files, as their authors publish them
CHECKSUMS = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
ARTICLES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_OFFLINE = (
    "without a network, install Debian's package dataset-fashion-mnist or ask for fashion:folder=PATH, "
    "a folder with the four .gz files"
)
_PERMUTATION = 784  # the number of the permutation, one for all seeds


def build(task: str, *, seed: int, folder: str, train: int, test: int) -> SequenceTask:
    """Make the task. task: one of the four names   seed: without effect, the data are fixed"""
    if task == "fashion":
        pictures, where = (
            _published(_folder(task, folder) if folder else _fashion()),
            "Fashion-MNIST, 55,000 / 5,000 / 10,000 articles",
        )
        licence, credit = "MIT", "Fashion-MNIST: Zalando SE (Xiao, Rasul and Vollgraf 2017)"
    elif folder:
        pictures, where = _published(_folder(task, folder)), f"pictures of 28 x 28 in {folder}, test as published"
        licence, credit = "as the files' owner says", "as the files' owner says"
    else:
        pictures, where = split_digits(), "5,000 MNIST digits, 3,600 / 400 / 1,000, as many of each class"
        licence, credit = LICENCE, CREDIT
    limits = {"train": train, "val": -(-train // 12), "test": test}
    pictures = {split: _first(found, limits[split]) for split, found in pictures.items()}
    mean, deviation = (float(f(pictures["train"].images) / 255) for f in (np.mean, np.std))
    splits = {split: _split(task, found, mean, deviation) for split, found in pictures.items()}
    return SequenceTask(
        kind="classify",
        n_classes=10,
        d_input=16 if task == "digits49" else 1,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
        metric="accuracy per picture",
        source=f"{where}; no picture is in two splits, a writer or an article may be",
        licence=licence,
        credit=credit,
        classes=ARTICLES if task == "fashion" else tuple("0123456789"),
    )


def _split(task: str, pictures: DigitImages, mean: float, deviation: float) -> Stored:
    """Store bytes; batches become float32. 60,000 pictures as float32 would take 188 MB."""
    pixels = pictures.images.reshape(-1, 784)
    if task == "psmnist":
        pixels = pixels[:, order_of(0, _PERMUTATION, 784)]
    if task == "digits49":
        tiles = pictures.images.reshape(-1, 7, 4, 7, 4).transpose(0, 1, 3, 2, 4)  # (n, row, column, 4, 4)
        stored = torch.from_numpy(tiles.reshape(-1, 49, 16).copy())
    else:
        stored = torch.from_numpy(pixels.reshape(-1, 784, 1).copy())

    def prepare(rows: Tensor) -> Tensor:
        return (rows.float() / 255 - mean) / deviation

    return Stored(inputs=stored, targets=torch.from_numpy(pictures.labels), prepare=prepare, length=stored.shape[1])


def _published(folder: Path) -> dict[str, DigitImages]:
    found = {split: read_pair(folder, split) for split in FILES}
    whole = found["train"]
    held = -(-len(whole.labels) // 12)
    if held >= len(whole.labels):
        raise ValueError(f"{folder} has {len(whole.labels)} training picture, but at least 2 are needed.")
    found["train"] = DigitImages(images=whole.images[:-held], labels=whole.labels[:-held])
    found["val"] = DigitImages(images=whole.images[-held:], labels=whole.labels[-held:])
    return found


def _first(pictures: DigitImages, limit: int) -> DigitImages:
    """Return `limit` pictures in a fixed random order, because the file is sorted by class."""
    if not 0 < limit < len(pictures.labels):
        return pictures
    chosen = np.sort(order_of(0, len(pictures.labels), len(pictures.labels))[:limit])
    return DigitImages(images=pictures.images[chosen], labels=pictures.labels[chosen])


def _folder(task: str, folder: str) -> Path:
    if not Path(folder).is_dir():
        raise ValueError(f"{task}: there is no folder {folder}; one with four files named as MNIST's is needed.")
    return Path(folder)


def _fashion() -> Path:
    """Return the folder of Fashion-MNIST's files, which are downloaded if they are not there."""
    if DEBIAN.is_dir():
        return DEBIAN
    for name, md5 in CHECKSUMS.items():
        path = fetch(f"{ADDRESS}/{name}.gz", md5=md5, folder="fashion-mnist", offline=_OFFLINE)
    return path.parent
