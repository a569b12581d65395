"""Pictures as sequences: from the package, from files of MNIST's format, from a cache that was filled once."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from salience.lab.data.readers.mnist import FILES, read_idx, split_digits
from salience.lab.data.sequences import load
from salience.lab.data.sequences.tasks import pixels

RNG = np.random.default_rng(0)
IMAGES = {split: RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8) for split, n in (("train", 48), ("test", 20))}
LABELS = {split: (np.arange(len(images)) % 10).astype(np.uint8) for split, images in IMAGES.items()}


def write_idx(path: Path, values: np.ndarray) -> None:  # type: ignore[type-arg]
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    raw = head + values.tobytes()
    path.write_bytes(gzip.compress(raw, mtime=0) if path.suffix == ".gz" else raw)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, (images, labels) in FILES.items():
        write_idx(tmp_path / f"{images}.gz", IMAGES[split])
        write_idx(tmp_path / labels, LABELS[split])  # not gzipped: both are read
    return tmp_path


def test_pixels_come_row_by_row_and_patches_tile_the_picture() -> None:
    images = split_digits()["test"].images
    plain, permuted, patches = (
        load(name).test.batch(torch.arange(3)).inputs for name in ("smnist", "psmnist", "digits49")
    )
    low, high = float(plain.min()), float(plain.max())

    def back(values: torch.Tensor) -> np.ndarray:  # type: ignore[type-arg]
        return ((values - low) / (high - low) * 255).round().numpy().astype(np.uint8)

    assert np.array_equal(back(plain)[:, :, 0].reshape(3, 28, 28), images[:3])
    assert not torch.equal(plain, permuted) and torch.equal(plain.sort(1).values, permuted.sort(1).values)
    assert np.array_equal(back(patches)[:, 8].reshape(3, 4, 4), images[:3, 4:8, 4:8])  # second row, second column


def test_splits_hold_as_many_of_each_digit_and_no_picture_twice() -> None:
    task = load("smnist")
    assert (len(task.train), len(task.val), len(task.test)) == (3600, 400, 1000)
    assert len(task.with_val_in_train().train) == 4000
    for split, count in {"train": 360, "val": 40, "test": 100}.items():
        assert np.bincount(split_digits()[split].labels).tolist() == [count] * 10


def test_inputs_are_normalised_by_training_alone() -> None:
    values = torch.cat([b.inputs for b in load("smnist").train.batches(512)])
    assert abs(float(values.mean())) < 1e-3 and abs(float(values.std()) - 1) < 1e-3  # float32 sums over 3e6 pixels


@pytest.mark.parametrize("name", ["smnist", "fashion"])
def test_a_folder_of_four_files(folder: Path, name: str) -> None:
    task = load(f"{name}:folder={folder}")
    assert (len(task.train), len(task.val), len(task.test)) == (44, 4, 20)
    found = task.test.batch(torch.arange(20)).inputs[:, :, 0]
    order = torch.from_numpy(IMAGES["test"].reshape(20, 784).astype(np.float32))
    assert torch.equal(
        found.argsort(stable=True), order.argsort(stable=True)
    )  # the same pictures up to scale and shift
    assert task.val.batch(torch.arange(4)).targets.tolist() == LABELS["train"][-4:].tolist()


def test_fewer_pictures_on_request(folder: Path) -> None:
    task = load("smnist:train=1200,test=100")
    assert (len(task.train), len(task.val), len(task.test)) == (1200, 100, 100)
    assert (
        np.bincount(task.train.batch(torch.arange(1200)).targets).min() > 80
    )  # of 120 each; deviation 10 without ties


def _addressed(folder: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    for images, labels in FILES.values():
        (folder / f"{labels}.gz").write_bytes(gzip.compress((folder / labels).read_bytes(), mtime=0))
        for name in (images, labels):
            checksum = hashlib.md5((folder / f"{name}.gz").read_bytes()).hexdigest()
            monkeypatch.setitem(pixels.CHECKSUMS, name, checksum)
    monkeypatch.setattr(pixels, "ADDRESS", folder.as_uri())
    monkeypatch.setattr(pixels, "DEBIAN", cache / "not installed")
    monkeypatch.setenv("SALIENCE_CACHE", str(cache))


def test_fashion_is_downloaded_once_and_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    _addressed(folder, monkeypatch, cache)
    assert len(load("fashion").test) == 20
    monkeypatch.setattr(pixels, "ADDRESS", "file:///gone")  # from the cache now
    assert len(load("fashion").test) == 20
    kept = cache / "data" / "fashion-mnist" / "t10k-images-idx3-ubyte.gz"
    kept.write_bytes(kept.read_bytes()[:-5])  # damaged on the disk: fetched anew, and here that fails
    with pytest.raises(OSError, match=r"can't be downloaded .*; without a network, install Debian's package"):
        load("fashion")
    monkeypatch.setattr(pixels, "ADDRESS", folder.as_uri())
    assert len(load("fashion").test) == 20


def test_a_download_that_is_not_the_published_file_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    _addressed(folder, monkeypatch, cache)
    monkeypatch.setitem(pixels.CHECKSUMS, "train-images-idx3-ubyte", "0" * 32)
    with pytest.raises(ValueError, match="is not the published file"):
        load("fashion")
    assert not any(path.is_file() for path in cache.rglob("*"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GIF89a", "is not an IDX file of bytes"),
        (b"\0\0\x08\x01\0\0\0\x05abc", r"says that it holds \(5,\), but 3 bytes follow"),
        (b"", "is not an IDX file of bytes"),
    ],
)
def test_broken_files_are_told(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_idx(tmp_path / "file")
    packed = gzip.compress(content + bytes(100))
    (tmp_path / "file.gz").write_bytes(packed[:-9])
    with pytest.raises(ValueError, match="is not a whole gzip file"):
        read_idx(tmp_path / "file.gz")


def test_files_that_do_not_fit_each_other_are_told(folder: Path) -> None:
    write_idx(folder / FILES["test"][1], LABELS["test"][:-1])
    with pytest.raises(ValueError, match="the test labels don't fit 20 pictures"):
        load(f"fashion:folder={folder}")
    (folder / FILES["test"][1]).unlink()
    with pytest.raises(ValueError, match=r"there is no t10k-labels-idx1-ubyte.gz in"):
        load(f"fashion:folder={folder}")
